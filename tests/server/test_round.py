"""A real round: four unlike sites train, and the aggregate is what it should be, to the bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.site import Site
from client.training import round_job, train
from server.memory import MEMORY
from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import MODEL
from shared_model.config import Plan
from shared_model.errors import RunError
from shared_model.network import build_network
from shared_model.parameters import Tensors, digest, group_of, load_shared, shared_state
from tests.federation import Cohort, InProcess, Tamper, changed, federate, small_simulation, start
from tests.tampering import FLAGGED, REFUSED, Change, poisoned

PLAN: Plan = small_simulation(rounds=1).plan


@pytest.fixture(scope="module")
def answered(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folders of sites that have answered round 1 and not yet closed the run: they answer at once."""
    folder = tmp_path_factory.mktemp("answered")

    def stop(name: str, facts: dict[str, Any]) -> None:
        if name == "committed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(start(folder / "run", PLAN), InProcess(cohort.configs(folder / "sites")), stop)
    return folder / "sites"


@pytest.fixture(scope="module")
def finished(
    answered: Path, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunStore, Path, dict[str, Tensors]]:
    """A finished round, its folder, and what each site sent."""
    folder = tmp_path_factory.mktemp("round")
    shutil.copytree(answered, folder / "sites", symlinks=True)
    sent: dict[str, Tensors] = {}

    def note(header: wire.Header, tensors: Tensors) -> tuple[str, Tensors]:
        if isinstance(header, wire.Update):
            sent[header.site] = tensors
        return wire.encode(header), tensors

    configs = cohort.configs(folder / "sites")
    store = start(folder / "run", PLAN)
    federate(store, InProcess(configs, tamper={config.site: note for config in configs}))
    return store, folder, sent


def heads(tensors: Tensors, task: str) -> list[str]:
    return [name for name in tensors if group_of(name) == task]


def test_a_head_without_labels_at_a_site_is_not_sent_and_is_averaged_over_the_others(finished: Any) -> None:
    store, _, sent = finished
    final, cases = store.model(1), {terms.site: terms.cases for terms in store.terms()[0]}
    for task, absent in (("codeletion", "birch"), ("tc", "cedar"), ("et", "cedar")):
        names = heads(final, task)
        assert names
        assert not set(names) & set(sent[absent])
        others = [site for site in sorted(sent) if site != absent]
        weights = [cases[site][task] for site in others]
        for name in names:
            stack = np.stack([sent[site][name].astype(np.float64) for site in others])
            mean = np.tensordot(weights, stack, axes=1) / sum(weights)
            np.testing.assert_allclose(final[name], mean, rtol=1e-6, atol=1e-9)
            assert not np.array_equal(final[name], store.model(0)[name])


def test_a_head_that_a_site_does_not_train_stays_bit_identical_through_its_training(
    cohort: Cohort, tmp_path: Path
) -> None:
    store = start(tmp_path / "run", PLAN)
    birch = next(config for config in cohort.configs(tmp_path / "sites") if config.site == "birch")
    site = Site(birch, PLAN, "0123456789abcdef")
    network = build_network(PLAN.model, PLAN.tasks)
    received = store.model(0)
    load_shared(network, received)
    train(network, site.learner.training_cases, round_job(PLAN, site.tasks, "birch", 1, {}), torch.device("cpu"))
    after = shared_state(network)
    for name in heads(after, "codeletion"):
        assert after[name].tobytes() == received[name].tobytes()
    assert any(not np.array_equal(after[name], received[name]) for name in heads(after, "idh"))


def test_the_trunk_is_weighted_by_cases_with_any_label(finished: Any) -> None:
    store, _, sent = finished
    cases = {terms.site: terms.cases["trunk"] for terms in store.terms()[0]}
    name = "backbone.encoder1.layer.conv1.conv.weight"
    stack = np.stack([sent[site][name].astype(np.float64) for site in sorted(sent)])
    weights = [cases[site] for site in sorted(sent)]
    np.testing.assert_allclose(
        store.model(1)[name], np.tensordot(weights, stack, 1) / sum(weights), rtol=1e-6, atol=1e-9
    )


def test_the_order_of_arrival_changes_no_bit(finished: Any, cohort: Cohort, tmp_path: Path) -> None:
    """Nor does training anew."""
    store, _, _ = finished
    again = start(tmp_path / "run", PLAN)
    backwards = InProcess(cohort.configs(tmp_path / "sites"), order=lambda nodes: sorted(nodes, reverse=True))
    federate(again, backwards, closing=False)
    assert (again.model_folder(1) / MODEL).read_bytes() == (store.model_folder(1) / MODEL).read_bytes()


def tampered(change: Change, store: RunStore) -> Tamper:
    """What dogwood sends instead, in a run's first round."""
    base = store.model(0)
    return changed(lambda update, tensors: change(update, tensors, base))


@pytest.fixture(scope="module")
def without_dogwood(answered: Path, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the model of the round in which the others alone take part."""
    folder = tmp_path_factory.mktemp("without")
    shutil.copytree(answered, folder / "sites", symlinks=True)
    configs = [config for config in cohort.configs(folder / "sites") if config.site != "dogwood"]
    store = start(folder / "run", PLAN)
    federate(store, InProcess(configs), closing=False)
    return digest(store.model(1))


@pytest.mark.parametrize("fault", REFUSED)
def test_one_sites_fault_is_refused_by_name_and_the_model_is_that_of_the_others(
    fault: str, without_dogwood: str, answered: Path, cohort: Cohort, tmp_path: Path
) -> None:
    change, reason = REFUSED[fault]
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    store = start(tmp_path / "run", PLAN)
    transport = InProcess(cohort.configs(tmp_path / "sites"), tamper={"dogwood": tampered(change, store)})
    events = federate(store, transport, closing=False)
    (refused,) = events.of("refused")
    assert refused["site"] == "dogwood"
    assert reason in refused["reason"]
    record = store.record(1)
    assert sorted(record["sites"]) == ["alder", "birch", "cedar"]
    assert record["refused"] == [{"site": "dogwood", "reason": refused["reason"]}]
    assert digest(store.model(1)) == without_dogwood


@pytest.mark.parametrize("fault", FLAGGED)
def test_a_suspicious_update_is_flagged_and_counts(fault: str, answered: Path, cohort: Cohort, tmp_path: Path) -> None:
    change, reason = FLAGGED[fault]
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    store = start(tmp_path / "run", PLAN)
    transport = InProcess(cohort.configs(tmp_path / "sites"), tamper={"dogwood": tampered(change, store)})
    events = federate(store, transport, closing=False)
    (flagged,) = events.of("flagged")
    assert flagged["site"] == "dogwood" and reason in flagged["reason"]
    assert "dogwood" in store.record(1)["sites"]
    assert store.record(1)["flagged"] == [{"site": "dogwood", "reason": flagged["reason"]}]


def test_a_silent_site_is_named_absent(answered: Path, cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    store = start(tmp_path / "run", PLAN)
    transport = InProcess(cohort.configs(tmp_path / "sites"))

    def silence(name: str, facts: dict[str, Any]) -> None:
        if name == "round":
            transport.silent = ("cedar",)

    federate(store, transport, silence, closing=False)
    assert [row["site"] for row in store.record(1)["absent"]] == ["cedar"]


def test_too_few_updates_end_the_run_and_what_was_admitted_is_not_asked_again(
    answered: Path, cohort: Cohort, tmp_path: Path
) -> None:
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    store = start(tmp_path / "run", PLAN)
    configs = cohort.configs(tmp_path / "sites")
    bad = tampered(poisoned(float("nan")), store)
    with pytest.raises(RunError, match="round 1: 1 sites gave an update, the plan needs 2"):
        federate(store, InProcess(configs, tamper={"birch": bad, "cedar": bad, "dogwood": bad}))
    assert store.last_round() == 0
    transport = InProcess(configs)
    federate(store, transport, closing=False)
    assert [nodes for nodes, header in transport.sent if isinstance(header, wire.Work)] == [
        ("birch", "cedar", "dogwood")
    ]
    assert sorted(store.record(1)["sites"]) == ["alder", "birch", "cedar", "dogwood"]


class KilledError(Exception):
    """Stands for a kill at a chosen moment."""


@pytest.mark.parametrize("moment", ["opened", "round", "reply", "committed"])
def test_a_run_that_stops_anywhere_ends_in_the_same_bytes(
    moment: str, finished: Any, answered: Path, cohort: Cohort, tmp_path: Path
) -> None:
    """Once with sites that train; then these have answered already, and the coordinator alone is looked at."""
    store, _, _ = finished
    if moment != "reply":
        shutil.copytree(answered, tmp_path / "sites", symlinks=True)

    def stop(name: str, facts: dict[str, Any]) -> None:
        if name == moment:
            raise KilledError

    broken = start(tmp_path / "run", PLAN)
    with pytest.raises(KilledError):
        federate(broken, InProcess(cohort.configs(tmp_path / "sites")), stop)
    federate(broken, InProcess(cohort.configs(tmp_path / "sites")), closing=False)
    assert (broken.model_folder(1) / MODEL).read_bytes() == (store.model_folder(1) / MODEL).read_bytes()


def test_a_model_that_was_sent_before_a_kill_is_made_again_without_those_who_came_later(
    answered: Path, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sites may train on it already: cedar, who is back, would make another one."""
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    store, configs = start(tmp_path / "run", PLAN.model_copy(update={"rounds": 2})), cohort.configs(tmp_path / "sites")
    alone = InProcess(configs)

    def silence(name: str, facts: dict[str, Any]) -> None:
        alone.silent = ("cedar",)

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit", killed)
        with pytest.raises(KilledError):
            federate(store, alone, silence)
    assert store.last_round() == 0
    asked = {header.round: header.base for _, header in alone.sent if isinstance(header, wire.Work)}
    assert sorted(asked) == [1, 2]
    federate(store, again := InProcess(configs), closing=False)
    works = [(header.round, header.base, nodes) for nodes, header in again.sent if isinstance(header, wire.Work)]
    assert works == [(2, asked[2], ("alder", "birch", "cedar", "dogwood"))]
    assert sorted(store.record(1)["sites"]) == ["alder", "birch", "dogwood"]


@pytest.mark.long
def test_a_rule_that_remembers_ends_in_the_same_bytes_wherever_the_run_stops(cohort: Cohort, tmp_path: Path) -> None:
    plan = small_simulation(aggregation={"rule": "fedadam"}, training={**PLAN.training.model_dump(), "local_steps": 1})
    unbroken, broken = start(tmp_path / "unbroken", plan.plan), start(tmp_path / "broken", plan.plan)
    federate(unbroken, InProcess(cohort.configs(tmp_path / "sites")[:2]), closing=False)
    seen: list[tuple[str, int]] = []

    def stop(name: str, facts: dict[str, Any]) -> None:
        moment = (name, facts.get("round", 0))
        if name in ("reply", "committed") and moment not in seen:
            seen.append(moment)
            raise KilledError

    for _ in range(3):
        with pytest.raises(KilledError):
            federate(broken, InProcess(cohort.configs(tmp_path / "again")[:2]), stop)
    federate(broken, InProcess(cohort.configs(tmp_path / "again")[:2]), closing=False)
    assert seen == [("reply", 1), ("committed", 1), ("reply", 2)]
    for file in (MODEL, MEMORY):
        assert (broken.model_folder(2) / file).read_bytes() == (unbroken.model_folder(2) / file).read_bytes()
    assert sorted(broken.memory(2)) == sorted(broken.model(2))
    assert sorted(path.name for path in broken.model_folder(1).iterdir()) == ["manifest.json", MODEL, "record.json"]


def test_a_site_sends_its_answer_again_instead_of_making_it_again(
    answered: Path, cohort: Cohort, tmp_path: Path
) -> None:
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)
    configs = cohort.configs(tmp_path / "sites")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "sites").glob("*/answers/*/*/tensors.safetensors")}
    assert len(kept) == len(configs)
    store = start(tmp_path / "run", PLAN)

    def unchanged(name: str, facts: dict[str, Any]) -> None:
        if name == "committed":
            assert {path: path.stat().st_mtime_ns for path in kept} == kept

    federate(store, InProcess(configs), unchanged)
    assert not list((tmp_path / "sites").glob("*/answers/*"))


def test_a_site_cannot_give_the_final_scores_of_another(answered: Path, cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(answered, tmp_path / "sites", symlinks=True)

    def pose(header: wire.Header, tensors: Tensors) -> tuple[str, Tensors]:
        if isinstance(header, wire.Evaluated):
            header = header.model_copy(update={"site": "birch"})
        return wire.encode(header), tensors

    store = start(tmp_path / "run", PLAN)
    events = federate(store, InProcess(cohort.configs(tmp_path / "sites"), tamper={"dogwood": pose}))
    assert [(row["site"], "signs as 'birch'" in row["reason"]) for row in events.of("refused")] == [("dogwood", True)]
    assert [row.site for row in store.evaluated()] == ["alder", "birch", "cedar"]
