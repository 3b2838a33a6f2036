"""A run over the network from enrolment to its report: one of three hospitals declines, another has no 1p/19q labels.

One hospital's headers, files, folders, labels and config carry a patient's name and number, which must be found nowhere
at the coordinator, in no traffic, and in none of the hospital's own logs.
"""

import base64
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from server.store import RunStore
from server.summary import read_summary
from shared_model.config import SiteConfig
from shared_model.parameters import group_of
from tests.federation import Cohort
from tests.network.world import ROOT, World, site_values, sites_of

CANARY = "doe-jane-19550312"
PLAN: dict[str, Any] = {
    "name": "network",
    "seed": 3,
    "synthetic": True,
    "rounds": 2,
    "sites": ["alder", "birch", "cedar"],
    "training": {"local_steps": 2, "batch_size": 1, "crop": [32, 64, 32], "warmup_steps": 1},
    "round_minutes": 6,
}
RECORDING = """
import itertools, os
import server.superlink.guard as guard
number, original = itertools.count(), guard.PublicDoor.__call__
async def recorded(self, scope, receive, send):
    folder = os.environ["TRAFFIC"]
    name = f"{folder}/{next(number):06d}"
    async def receiving():
        message = await receive()
        with open(name + ".in", "ab") as file:
            file.write(message.get("body", b""))
        return message
    async def sending(message):
        with open(name + ".out", "ab") as file:
            file.write(message.get("body", b""))
        await send(message)
    if scope["type"] == "http":
        with open(name + ".in", "ab") as file:
            file.write(repr((scope["path"], scope["headers"])).encode())
    await original(self, scope, receiving, sending)
guard.PublicDoor.__call__ = recorded
"""


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


def marked(config: SiteConfig, folder: Path) -> dict[str, Any]:
    """The site's data with a patient's name wherever it can stand."""
    place = folder / CANARY
    shutil.copytree(config.data.folder, place / "scans")
    assert config.data.labels is not None
    rows = list(csv.DictReader(config.data.labels.open()))
    for path in sorted((place / "scans").rglob("*.nii.gz")):
        image = nib.load(path)
        image.header["descrip"] = CANARY.encode()
        image.header["aux_file"] = CANARY.encode()
        nib.save(image, path)
    for row in rows:
        case = f"{CANARY}-{row['case']}"
        (place / "scans" / row["case"]).rename(place / "scans" / case)
        for path in (place / "scans" / case).iterdir():
            path.rename(path.with_name(path.name.replace(row["case"], case)))
        row.update({name: value.replace(row["case"], case) for name, value in row.items()} | {"patient": case})
    with (place / f"{CANARY}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = {"folder": str(place / "scans"), "labels": str(place / f"{CANARY}.csv"), "masks": "regions"}
    return site_values(config, data=data)


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


def forms(word: str) -> list[bytes]:
    """A word as it may stand in traffic and files."""
    text = word.encode()
    found = [text, text.upper(), word.encode("utf-16-le"), text.hex().encode(), word.replace("-", "^").encode()]
    return found + [base64.b64encode(bytes(shift) + text)[4:-4] for shift in range(3)]


def leaks(*places: Path) -> list[Path]:
    """Files below the places that hold the canary."""
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [path for path in files if path.is_file() and any(form in path.read_bytes() for form in forms(CANARY))]


def test_nothing_of_a_patient_leaves_or_is_logged(world: World, run: str) -> None:
    traffic = sorted((world.folder / "traffic").iterdir())
    assert sum(path.stat().st_size for path in traffic) > 10e6  # models went both ways
    state = world.folder / "alder" / "state"
    own = [state / "logs", state / "audit.jsonl", state / "client.json", world.folder / "alder.log"]
    assert leaks(world.folder / "traffic", world.coordinator.folder, world.folder / "server.log", *own) == []


def client(world: World, site: str, *arguments: str, code: int = 0) -> str:
    config = str(world.folder / site / "config.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", *arguments[:1], "--site", config, *arguments[1:]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_audit_log_lists_what_left(world: World, run: str) -> None:
    assert "whole" in client(world, "alder", "audit", "--verify")
    lines = [json.loads(line) for line in (world.folder / "alder" / "state" / "audit.jsonl").read_text().splitlines()]
    sent = [line["facts"] for line in lines if line["event"] == "sent" and line["facts"]["run"] == run]
    assert [facts["kind"] for facts in sent] == ["terms", "update", "update", "evaluated"]
    listed = {name: (dtype, shape) for name, dtype, shape, _ in sent[1]["tensors"]["listed"]}
    model = world.coordinator.run(run).model(1)
    assert listed == {name: ("float32", list(value.shape)) for name, value in model.items()}


LEAKY = """
import sys
if any("flwr-clientapp" in part for part in sys.orig_argv):
    import client.app
    from shared_model.errors import RefusedError
    def leaking(config, message, tensors):
        raise RefusedError(f"cannot read {config.data.folder}", "look")
    client.app._respond = leaking
"""


def test_a_second_run_meets_a_leak_a_cut_log_and_a_plan_that_waits(world: World, run: str) -> None:
    """The canary is found where a build leaks it; the coordinator notices a cut audit log; approval is waited for."""
    alder, birch, cedar = (one for one in world.running if one.log.stem in ("alder", "birch", "cedar"))
    for one in (alder, birch, cedar):
        assert one.stop() == 0, one.said
    (world.folder / "leak").mkdir()
    (world.folder / "leak" / "sitecustomize.py").write_text(LEAKY)
    world.join(world.folder / "alder" / "config.yaml", PYTHONPATH=f"{world.folder / 'leak'}:{ROOT}")
    log = world.folder / "birch" / "state" / "audit.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-3]))
    assert "whole" in client(world, "birch", "audit", "--verify")
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
    assert f"{digest[:12]}  waits     second" in client(world, "cedar", "plans")
    assert "not approved yet" in client(world, "cedar", "show", digest[:12])
    assert "approved second" in client(world, "cedar", "approve", digest[:12])
    assert "done; write the report with" in world.command("resume", second)
    assert list(world.coordinator.run(second).record(1)["sites"]) == ["cedar"]
