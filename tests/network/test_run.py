"""A run over the network from enrolment to its released model: one of three hospitals declines, another has no 1p/19q.

One hospital's headers, files, folders, labels and config carry a patient's name and number, which must be found nowhere
at the coordinator, in no traffic, and in none of the hospital's own logs.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from client.audit import AuditLog
from server.card import NO_PRIVACY
from server.store import RunStore
from server.summary import read_summary
from shared_model.checkpoint import MANIFEST, MODEL, read_model
from shared_model.parameters import group_of
from shared_model.released import CARD, RELEASED, SIGNATURE, Released, parse_released
from shared_model.scores import SiteScores
from shared_model.signing import create_release_key, release_public_key
from tests.federation import Cohort
from tests.network.canary import LEAKY, RECORDING, leaks, marked
from tests.network.test_refusals import VALUES
from tests.network.world import ROOT, World, site_values, sites_of

PLAN: dict[str, Any] = {
    "name": "network",
    "seed": 3,
    "synthetic": True,
    "rounds": 2,
    "sites": ["alder", "birch", "cedar"],
    "training": {"local_steps": 2, "batch_size": 1, "crop": [32, 64, 32], "warmup_steps": 1},
    "round_minutes": 6,
    "release": {"rule": "best", "task": "wt"},
}


@pytest.fixture(scope="module")
def world(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("run"))
    (world.folder / "traffic").mkdir()
    os.environ["TRAFFIC"] = str(world.folder / "traffic")
    world.serve(RECORDING)
    sites = sites_of(cohort, world.folder)
    world.join(world.site("alder", marked(sites["alder"], world.folder)))
    world.join(world.site("birch", site_values(sites["birch"])))
    refusing = {"approve_plans": False, "minimum_cases": 1, "rounds": 1}
    world.join(world.site("cedar", site_values(sites["cedar"], policy=refusing)))
    world.connected("alder", "birch", "cedar")
    yield world
    world.close()


@pytest.fixture(scope="module")
def run(world: World) -> str:
    path = world.folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    said = world.command("run", str(path))
    assert "done; write the report with" in said
    return said.splitlines()[0].removeprefix("run ")


@pytest.fixture(scope="module")
def store(world: World, run: str) -> RunStore:
    return world.coordinator.run(run)


def test_the_run_goes_on_without_the_site_that_declines(store: RunStore) -> None:
    for index in (1, 2):
        record = store.record(index)
        assert sorted(record["sites"]) == ["alder", "birch"]
        assert [row["site"] for row in record["refused"]] == ["cedar"]
        assert "the plan asks 2 rounds, the site's policy allows 1" in record["refused"][0]["reason"]
        assert record["absent"] == []


def test_a_task_is_trained_by_the_sites_that_have_it(store: RunStore) -> None:
    """1p/19q is alder's alone: its head is what alder sent, the others are means."""
    first = store.record(1)["sites"]
    assert "codeletion" in first["alder"]["cases"] and "codeletion" not in first["birch"]["cases"]
    before, after = store.model(0), store.model(1)
    for group in ("codeletion", "idh", "wt", "trunk"):
        names = [name for name in before if group_of(name) == group]
        assert names and any(not np.array_equal(before[name], after[name]) for name in names), group


def test_the_report_shows_sites_absences_results_and_bytes(world: World, run: str, store: RunStore) -> None:
    assert "report.html" in world.command("report", run)
    summary = read_summary(store.folder / "summary.json")
    assert summary.synthetic and [site.name for site in summary.sites] == ["alder", "birch"]
    assert [len(one.refusals) for one in summary.rounds] == [1, 1]
    assert all(one.bytes_up > 1e6 and one.bytes_down > 1e6 for one in summary.rounds)
    assert {row.task for row in summary.rounds[-1].sites["alder"]} >= {"wt"}
    html = (store.folder / "report.html").read_text()
    for words in ("alder", "birch", "policy allows 1", "ynthetic"):
        assert words in html, words


def test_status_and_runs_tell_it(world: World, run: str) -> None:
    facts = json.loads(world.command("status", "--json"))
    assert facts["serving"] and facts["sites"] == {"alder": True, "birch": True, "cedar": True}
    assert [(row["run"], row["state"], row["committed"]) for row in facts["runs"]] == [(run, "done", 2)]
    assert "is done" in world.command("resume", run, code=3)
    assert "is not known here" in world.command("report", "0" * 16, code=2)


@pytest.fixture(scope="module")
def released(world: World, run: str) -> Released:
    place = world.coordinator.folder / "releases" / run
    assert f"released: {place}" in world.command("release", run)
    return parse_released((place / MANIFEST).read_bytes(), "the release")


def sent(store: RunStore, index: int) -> dict[str, dict[str, Any]]:
    """Site -> what it sent of its results with a round's model: with its next answer, or when the run was closed."""
    if index < store.last_round():
        return {site: update["evaluation"] for site, update in store.record(index + 1)["sites"].items()}
    rows = json.loads((store.folder / "evaluated.json").read_bytes())
    return {row["site"]: row["evaluation"] for row in rows}


def dice(store: RunStore, index: int) -> float:
    """Of the whole tumour, over all sites' cases."""
    sums = [scores["dice"]["wt"] for scores in sent(store, index).values()]
    return float(sum(one["total"] for one in sums) / sum(one["n"] for one in sums))


def test_the_release_is_the_round_that_the_plan_names(
    world: World, run: str, store: RunStore, released: Released
) -> None:
    assert released.round == max((1, 2), key=lambda index: (dice(store, index), index))
    assert released.chosen.rule == "best" and released.chosen.by is not None
    assert released.chosen.by.value == pytest.approx(dice(store, released.round))
    assert (released.run, released.sites, released.about["synthetic"]) == (run, 2, True)
    assert "is released already" in world.command("release", run, code=3)


def test_the_card_shows_counts_and_results_of_sites_without_names(
    world: World, run: str, store: RunStore, released: Released
) -> None:
    text = (world.coordinator.folder / "releases" / run / CARD).read_text()
    lines = text.splitlines()
    for words in ("**Synthetic: ", "not for clinical use", "The plan said beforehand", "not differentially private"):
        assert words in text, words
    assert [site for site in ("alder", "birch", "cedar", "former") if site in text.lower()] == []
    tasks = released.about["tasks"]
    counts = [update["cases"] for update in store.record(1)["sites"].values()]
    trained = [[str(one.get(task, "not trained")) for task in tasks] for one in counts]
    rows = [line.strip("| ").split(" | ")[1:] for line in lines if line.startswith("| site ")]
    assert sorted(row[:-1] for row in rows if row[-1] == NO_PRIVACY) == sorted(trained)
    results = [row[0] for row in rows if row[-1] != NO_PRIVACY]
    scores = [SiteScores.from_json(one).dice["wt"].finish() for one in sent(store, released.round).values()]
    assert sorted(cell[:5] for cell in results) == sorted(f"{one.value:.3f}" for one in scores if one)


def test_every_enrolled_hospital_fetches_the_chosen_round(
    world: World, run: str, store: RunStore, released: Released
) -> None:
    """cedar, which took no part, among them; the files are those that the key in the invitation vouches for."""
    chosen = store.model(released.round)
    for site in ("alder", "cedar"):
        state = world.folder / site / "state"
        assert world.client(site, "models").split() == [run, "offered"]
        assert "genuine, and here" in world.client(site, "models", "--get", run)
        assert world.client(site, "models").split() == [run, "here"]
        fetched = read_model(state / "models" / run)
        assert fetched.keys() == chosen.keys()
        assert all(np.array_equal(fetched[name], chosen[name]) for name in chosen)
        assert any('"event":"fetched model"' in line and run in line for line in AuditLog(state).lines())
        assert "whole" in world.client(site, "audit", "--verify")
        assert "is here already" in world.client(site, "models", "--get", run, code=2)


def test_a_hospital_keeps_nothing_that_is_not_what_was_signed(world: World, run: str, released: Released) -> None:
    place, hospital = world.coordinator.folder / "releases" / run, world.folder / "birch"
    before = AuditLog(hospital / "state").head

    def refused(words: str) -> None:
        said = world.client("birch", "models", "--get", run, code=2)
        remedy = "Do not use it, and tell the coordinator by telephone."
        assert said == f"mtsunet-client: run '{run}': {words}. {remedy}\n"
        assert not (hospital / "state" / "models").exists() and AuditLog(hospital / "state").head == before

    words = dict.fromkeys((MANIFEST, SIGNATURE), "the signature is not that of the key in the invitation")
    words |= {name: f"{name} is not the file that its manifest vouches for" for name in (MODEL, CARD)}
    assert sorted(words) == sorted(RELEASED)
    for name, expected in words.items():
        data = (place / name).read_bytes()
        middle = len(data) // 2
        (place / name).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        refused(expected)
        (place / name).write_bytes(data)
    invitation = hospital / "invitation.yaml"
    text = invitation.read_text()
    create_release_key(world.folder / "another.key")
    own, other = (release_public_key(key) for key in (world.coordinator.release_key, world.folder / "another.key"))
    invitation.write_text(text.replace(own, other))
    refused(words[SIGNATURE])
    invitation.write_text(text)
    assert "genuine, and here" in world.client("birch", "models", "--get", run)


def test_who_is_not_enrolled_gets_no_model(world: World, run: str, released: Released) -> None:
    invitation = (world.site("former", VALUES).parent / "invitation.yaml").read_text()
    assert world.client("former", "models").split() == [run, "offered"]
    world.command("revoke", "former")
    stranger = world.site("stranger", VALUES, enrol=False).parent
    (stranger / "invitation.yaml").write_text(invitation.replace("site: former", "site: stranger"))
    address = world.coordinator.config.address
    for site, words in (("former", "the enrolment of 'former' was revoked"), ("stranger", "this key is not enrolled")):
        for arguments in ((), ("--get", run)):
            said = world.client(site, "models", *arguments, code=3)
            assert said.startswith(f"mtsunet-client: {address}: {words}") and said.count("\n") == 1
        assert not (world.folder / site / "state" / "models").exists()


def test_a_hospital_sees_its_own_results_beside_the_federations(
    world: World, run: str, store: RunStore, released: Released
) -> None:
    told = json.loads(world.client("alder", "report", run, "--json"))
    assert (told["own_round"], told["released_round"], told["synthetic"]) == (released.round, released.round, True)
    own = {row["task"]: row for row in told["own"]}
    for row in SiteScores.from_json(sent(store, released.round)["alder"]).rows():
        assert own[row.task] == row.to_json()
    assert told["federation"] == [row.to_json() for row in released.pooled]
    shown = world.client("alder", "report", run)
    for words in (f"run {run}, synthetic cases", f"this hospital, round {released.round}", "whole tumour: Dice"):
        assert words in shown, words
    assert "no case" in world.client("cedar", "report", run)  # it declined, and has none of its own


def test_nothing_of_a_patient_leaves_or_is_logged(world: World, run: str) -> None:
    traffic = sorted((world.folder / "traffic").iterdir())
    assert sum(path.stat().st_size for path in traffic) > 10e6  # models went both ways
    state = world.folder / "alder" / "state"
    own = [state / "logs", state / "audit.jsonl", state / "client.json", world.folder / "alder.log"]
    assert leaks(world.folder / "traffic", world.coordinator.folder, world.folder / "server.log", *own) == []


def test_the_audit_log_lists_what_left(world: World, run: str) -> None:
    assert "whole" in world.client("alder", "audit", "--verify")
    lines = [json.loads(line) for line in (world.folder / "alder" / "state" / "audit.jsonl").read_text().splitlines()]
    left = [line["facts"] for line in lines if line["event"] == "sent" and line["facts"]["run"] == run]
    assert [facts["kind"] for facts in left] == ["terms", "update", "update", "evaluated"]
    listed = {name: (dtype, shape) for name, dtype, shape, _ in left[1]["tensors"]["listed"]}
    model = world.coordinator.run(run).model(1)
    assert listed == {name: ("float32", list(value.shape)) for name, value in model.items()}


def test_a_second_run_meets_a_leak_a_cut_log_and_a_plan_that_waits(world: World, run: str) -> None:
    """The canary is found where a build leaks it; the coordinator notices a cut audit log; approval is waited for."""
    alder, birch, cedar = (one for one in world.running if one.log.stem in ("alder", "birch", "cedar"))
    for one in (alder, birch, cedar):
        one.process.terminate()
    for one in (alder, birch, cedar):
        assert one.ends() == 0, one.said
    (world.folder / "leak").mkdir()
    (world.folder / "leak" / "sitecustomize.py").write_text(LEAKY)
    world.join(world.folder / "alder" / "config.yaml", PYTHONPATH=f"{world.folder / 'leak'}:{ROOT}")
    log = world.folder / "birch" / "state" / "audit.jsonl"
    told = int(json.loads((world.coordinator.folder / "heads.json").read_bytes())["birch"].split(":")[0])
    log.write_text("".join(log.read_text().splitlines(keepends=True)[: told - 1]))
    assert "whole" in world.client("birch", "audit", "--verify")
    world.join(world.folder / "birch" / "config.yaml")
    config = world.folder / "cedar" / "config.yaml"
    config.write_text(config.read_text().replace("approve_plans: false", "approve_plans: true"))
    world.join(config)
    world.connected("alder", "birch", "cedar")
    path = world.folder / "second.yaml"
    path.write_text(yaml.safe_dump({**PLAN, "name": "second", "rounds": 1, "minimum_sites": 1, "attempts": 1}))
    said = world.command("run", str(path), code=3)
    assert "0 sites gave an update, the plan needs 1" in said
    assert "refused: birch: the site declines: the site's audit log lacks line" in said
    assert "waits for the hospital's approval" in said
    found = leaks(world.folder / "traffic", world.coordinator.folder)
    assert any(".in" in path.name for path in found) and any("events" in path.name for path in found)

    second = said.splitlines()[0].removeprefix("run ")
    digest = world.coordinator.run(second).read()[1].digest()
    assert f"{digest[:12]}  waits     second" in world.client("cedar", "plans")
    assert "not approved yet" in world.client("cedar", "show", digest[:12])
    assert "approved second" in world.client("cedar", "approve", digest[:12])
    assert "done; write the report with" in world.command("resume", second)
    assert list(world.coordinator.run(second).record(1)["sites"]) == ["cedar"]
