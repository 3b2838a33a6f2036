"""A federation in which sites train privately, plainly, or decline, each by its own policy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.app import answer
from client.privacy.ledger import Ledger, spent
from server.aggregation import build
from server.results import site_rows
from server.rounds import Federation
from shared_model import wire
from shared_model.accounting import epsilon
from shared_model.config import Plan, PrivacyPolicy, SiteConfig, parse_config
from shared_model.errors import RunError
from shared_model.guarantee import Steps
from shared_model.parameters import digest
from shared_model.parts import before_round
from tests.federation import Cohort, Events, InProcess, changed, federate, small_simulation, start

PRIVACY = {"noise": 1.5, "clip": 0.5, "patients_per_step": 2, "delta": 1e-6}


def make_plan(**changes: Any) -> Plan:
    training = {
        "local_steps": 2,
        "batch_size": 1,
        "crop": [32, 64, 32],
        "warmup_steps": 1,
        "parts": ["adapters", "heads"],
        **changes.pop("training", {}),
    }
    asked = {**PRIVACY, **changes.pop("privacy", {})}
    return small_simulation(**{"tasks": ["wt", "idh"], "training": training, "privacy": asked, **changes}).plan


def with_privacy(config: SiteConfig, **values: Any) -> SiteConfig:
    floor = parse_config(PrivacyPolicy, {"patients": 10, "minimum_noise": 0.1, "epsilon": 100, **values}, "test")
    floor = floor.model_copy(update={"epsilon_per_run": values.get("epsilon_per_run", 100.0)})
    return config.model_copy(update={"policy": config.policy.model_copy(update={"privacy": floor})})


def refusals(events: Events, site: str) -> list[str]:
    return [facts["reason"] for facts in events.of("refused") if facts["site"] == site]


def test_each_site_trains_as_its_policy_says_and_the_report_shows_it(cohort: Cohort, tmp_path: Path) -> None:
    plan = make_plan()
    alder, birch, cedar, *_ = cohort.configs(tmp_path / "sites")
    sites = [with_privacy(alder), with_privacy(birch, mode="never"), with_privacy(cedar, minimum_noise=3.0)]
    store = start(tmp_path / "run", plan)
    federate(store, InProcess(sites), closing=False)

    rows = {row.name: row.privacy for row in site_rows(store, {})}
    assert rows["birch"] is None
    for config, noise in ((sites[0], 1.5), (sites[2], 3.0)):
        found = rows[config.site]
        assert found is not None
        assert (found.noise, found.clip, found.rate, found.delta, found.steps) == (noise, 0.5, 0.2, 1e-6, 4)
        done = Steps(rate=0.2, noise=noise, steps=4)
        assert found.epsilon == pytest.approx(epsilon([done], 1e-6))
        booked = spent(Ledger(config.state).entries(), "patients", store.read()[0])
        assert booked == [done.model_copy(update={"steps": 2})] * 2

    first, last = store.model(0), store.model(2)
    moved = {name for name in first if not np.array_equal(first[name], last[name])}
    assert sorted(first) == sorted(last)
    assert moved and all(
        name.startswith(("heads.", "tumor_aware.", "cross_modality.", "backbone.swinViT.")) for name in moved
    )
    record = store.record(2)["sites"]
    assert record["alder"]["cases"] == dict.fromkeys(("trunk", "class-trunk", "wt", "idh"), 10)
    assert record["alder"]["seconds"] is None and record["birch"]["seconds"] > 0


def test_a_repeated_message_gets_the_same_bytes_and_spends_nothing(cohort: Cohort, tmp_path: Path) -> None:
    plan = make_plan(rounds=1)
    site = with_privacy(cohort.configs(tmp_path / "sites")[0])
    store = start(tmp_path / "run", plan)
    run, base = store.read()[0], store.model(0)
    answer(site, wire.encode(wire.Opening(run=run, release=wire.RELEASE, plan=plan)), {})
    work = wire.encode(wire.Work(run=run, round=1, plan=plan.digest(), base=digest(base), settings={}))
    first, tensors = answer(site, work, base)
    rows = Ledger(site.state).entries()
    second, again = answer(site, work, base)
    assert (first, digest(tensors)) == (second, digest(again))
    assert set(tensors) == set(before_round(base, ("wt", "idh"), plan.training))
    assert Ledger(site.state).entries() == rows and len(rows) == 2


@pytest.mark.parametrize(
    ("plan", "policy", "words"),
    [
        ({"privacy": {"noise": 0.0}}, {}, "privacy without noise"),
        ({"privacy": {"clip": 2.0}}, {}, "a clipping norm of 2"),
        ({"privacy": {"delta": 1e-4}}, {}, "a delta of 0.0001"),
        ({"training": {"parts": ["all"]}}, {}, "trains 'all' privately"),
        ({"rounds": 10_000}, {}, "the run could bring the epsilon of this run from 0 to"),
        ({}, {"epsilon": 0.5, "epsilon_per_run": 0.5}, "the hospital allows 0.5"),
        ({"privacy": None}, {"mode": "required"}, "the site's policy demands it"),
    ],
    ids=["noise", "clip", "delta", "part", "rounds", "budget", "none"],
)
def test_what_a_server_asks_beyond_the_floor_is_refused_with_the_reason(
    cohort: Cohort, tmp_path: Path, plan: dict[str, Any], policy: dict[str, Any], words: str
) -> None:
    asked = make_plan(**{key: value for key, value in plan.items() if value is not None})
    if "privacy" in plan and plan["privacy"] is None:
        asked = asked.model_copy(update={"privacy": None})
    site = with_privacy(cohort.configs(tmp_path / "sites")[0], **policy)
    store, events = start(tmp_path / "run", asked), Events()
    with pytest.raises(RunError):
        federate(store, InProcess([site]), events)
    assert any(words in reason for reason in refusals(events, "alder")), events.seen
    assert Ledger(site.state).entries() == []


def test_a_site_without_privacy_is_turned_away_where_the_plan_demands_it(cohort: Cohort, tmp_path: Path) -> None:
    site = with_privacy(cohort.configs(tmp_path / "sites")[0], mode="never")
    events = Events()
    with pytest.raises(RunError, match="trains without differential privacy, the plan demands it"):
        federate(start(tmp_path / "run", make_plan(privacy={"required": True})), InProcess([site]), events)


def opened(site: SiteConfig, plan: Plan, run: str, ledger: str | None = None) -> wire.Header:
    opening = wire.Opening(run=run, release=wire.RELEASE, plan=plan, ledger=ledger)
    return wire.decode(answer(site, wire.encode(opening), {})[0])


def worked(site: SiteConfig, work: wire.Work, base: dict[str, np.ndarray]) -> wire.Header:
    return wire.decode(answer(site, wire.encode(work), base)[0])


def test_within_a_run_neither_more_rounds_nor_the_same_one_anew_get_beyond_the_budget(
    cohort: Cohort, tmp_path: Path
) -> None:
    plan = make_plan(rounds=1)
    whole = epsilon([Steps(rate=0.2, noise=1.5, steps=2)], 1e-6)
    site = with_privacy(cohort.configs(tmp_path / "sites")[0], epsilon_per_run=whole * 1.01)
    store = start(tmp_path / "run", plan)
    run, base = store.read()[0], store.model(0)
    assert isinstance(opened(site, plan, run), wire.Terms)
    work = wire.Work(run=run, round=1, plan=plan.digest(), base=digest(base), settings={})
    assert isinstance(worked(site, work, base), wire.Update)

    other = {name: value + 1 for name, value in base.items()}
    again = worked(site, work.model_copy(update={"base": digest(other)}), other)
    assert isinstance(again, wire.Refusal) and "round 1 could bring the epsilon of this run" in again.reason
    torn = worked(site, work.model_copy(update={"base": "f" * 64}), base)
    assert isinstance(torn, wire.Refusal) and "weights are not those" in torn.reason
    more = worked(site, work.model_copy(update={"round": 2}), base)
    assert isinstance(more, wire.Refusal) and more.reason == "the plan has no round 2"
    strange = worked(site, work.model_copy(update={"plan": make_plan(rounds=2).digest()}), base)
    assert isinstance(strange, wire.Refusal) and "the plan is not the one" in strange.reason
    assert len(Ledger(site.state).entries()) == 2


def test_a_ledger_that_lacks_what_the_coordinator_was_told_of_stops_the_site(cohort: Cohort, tmp_path: Path) -> None:
    """Ledger and audit log are both the older copies, then both missing, so that the site alone could not tell."""
    plan = make_plan(rounds=1)
    site = with_privacy(cohort.configs(tmp_path / "sites")[0])
    store = start(tmp_path / "run", plan)
    transport = InProcess([site, with_privacy(cohort.configs(tmp_path / "sites")[1])])
    before = [(site.state / name) for name in ("ledger.db", "audit.jsonl")]
    kept: dict[Path, bytes] = {}
    events = Events()

    def note(name: str, facts: dict[str, Any]) -> None:
        events(name, facts)
        if name == "opened":
            kept.update({path: path.read_bytes() for path in before})

    federation = Federation(store, build(plan.aggregation), transport, note)
    federation.complete()
    told = federation.ledgers["alder"]
    assert told.split(":")[0] == "2"
    for how in ("older", "missing"):
        for path in before:
            path.write_bytes(kept[path]) if how == "older" else path.unlink()
        refused = opened(site, plan, "f" * 16, told)
        assert isinstance(refused, wire.Refusal) and "privacy ledger lacks row 2" in refused.reason, how


def test_an_update_whose_private_steps_are_left_out_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    plan = make_plan(rounds=1, attempts=1)
    sites = [with_privacy(config) for config in cohort.configs(tmp_path / "sites")[:2]]
    tamper = {"alder": changed(lambda update, tensors: (update.model_copy(update={"spent": ()}), tensors))}
    with pytest.raises(RunError, match="alder: its private steps are not those of its terms"):
        federate(start(tmp_path / "run", plan), InProcess(sites, tamper))
