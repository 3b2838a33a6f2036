"""Private training between real processes: what a server may not ask, a kill in mid-round, an older ledger."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from client.privacy.ledger import Ledger, spent
from shared_model.accounting import epsilon
from shared_model.guarantee import Steps
from tests.federation import Cohort
from tests.network.test_run import PLAN
from tests.network.world import Running, World, site_values, sites_of, wait_for
from tests.processes import message_processes

pytestmark = pytest.mark.long

PRIVATE: dict[str, Any] = {
    **{key: value for key, value in PLAN.items() if key != "release"},
    "name": "private",
    "sites": ["alder"],
    "minimum_sites": 1,
    "rounds": 2,
    "tasks": ["wt", "idh"],
    "attempts": 1,
    "training": {**PLAN["training"], "parts": ["adapters", "heads"]},
    "privacy": {"noise": 1.5, "patients_per_step": 2, "delta": 1e-6},
}
ONE = Steps(rate=0.2, noise=1.5, steps=2)
"""A round at a site of ten declared patients."""
TWO = epsilon([ONE, ONE], 1e-6)


class Private:
    """Two hospitals: alder trains privately and has budget for three runs of two rounds, birch never does."""

    def __init__(self, world: World, cohort: Cohort) -> None:
        self.world, self.sites = world, sites_of(cohort, world.folder)
        world.serve()
        floor = {"patients": 10, "minimum_noise": 0.5, "epsilon_per_run": TWO * 1.01, "epsilon": 20.0}
        policy = {"approve_plans": False, "minimum_cases": 1}
        self.alder = world.site("alder", site_values(self.sites["alder"], policy={**policy, "privacy": floor}))
        never = {"patients": 10, "mode": "never"}
        self.birch = world.site("birch", site_values(self.sites["birch"], policy={**policy, "privacy": never}))
        self.client: Running = world.join(self.alder)
        world.join(self.birch)
        world.connected("alder", "birch")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.alder.parent / "state")

    def plan(self, name: str, **changes: Any) -> Path:
        path = self.world.folder / f"{name}.yaml"
        values = {**PRIVATE, "name": name}
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(values))
        return path


@pytest.fixture(scope="module")
def private(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    world = World(tmp_path_factory.mktemp("private"))
    try:
        yield Private(world, cohort)
    finally:
        world.close()


def test_one_site_trains_privately_and_the_other_plainly(private: Private) -> None:
    said = private.world.command("run", str(private.plan("mixed", sites=["alder", "birch"], minimum_sites=2)))
    run = said.splitlines()[0].removeprefix("run ")
    assert spent(private.ledger.entries(), "patients", run) == [ONE, ONE]
    private.world.command("report", run)
    folder = private.world.coordinator.run(run).folder
    summary = json.loads((folder / "summary.json").read_bytes())
    rows = {site["name"]: site["privacy"] for site in summary["sites"]}
    assert rows["birch"] is None
    assert rows["alder"]["epsilon"] == pytest.approx(TWO) and rows["alder"]["steps"] == 4
    html = (folder / "report.html").read_text()
    assert "Differential privacy" in html and "none: its updates were not differentially private" in html
    balance = json.loads(private.world.client("alder", "ledger", "--json"))
    assert balance["spent"] == pytest.approx(epsilon([ONE, ONE], 1e-5)) and balance["rows"] == 4


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("noise", {"privacy": {"noise": 0.0}}, "the plan asks privacy without noise, which protects nobody"),
        ("rounds", {"rounds": 3}, "the run could bring the epsilon of this run from 0 to"),
        ("clip", {"privacy": {"clip": 1.5}}, "the plan asks a clipping norm of 1.5, the site's policy allows 1"),
        ("delta", {"privacy": {"delta": 2e-5}}, "the plan asks a delta of 2e-05, the site's policy allows 1e-05"),
        ("part", {"training": {"parts": ["all"]}}, "the plan trains 'all' privately"),
    ],
)
def test_what_a_server_may_not_ask(private: Private, name: str, changes: dict[str, Any], words: str) -> None:
    before = private.ledger.entries()
    said = private.world.command("run", str(private.plan(name, **changes)), code=3)
    assert f"alder: the site declines: {words}" in said
    assert private.ledger.entries() == before


def test_a_kill_between_reservation_and_booking_counts_whole(private: Private) -> None:
    """The process of the message that trains is killed once its reservation stands; the round is asked for again."""
    before = len(private.ledger.entries())
    started = private.world.start(
        "killed",
        [
            "-m",
            "server.cli",
            "run",
            str(private.plan("killed", rounds=1, attempts=3, round_minutes=2)),
            "--folder",
            str(private.world.coordinator.folder),
        ],
    )
    wait_for("a reservation", lambda: len(private.ledger.entries()) > before)
    killed = message_processes(psutil.Process(private.client.process.pid))
    assert killed
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    assert started.ends() == 0, started.said
    run = started.said.splitlines()[0].removeprefix("run ")
    assert spent(private.ledger.entries(), "patients", run) == [ONE, ONE]


def test_a_ledger_of_yesterday_stops_the_site(private: Private, tmp_path: Path) -> None:
    """Ledger and audit log were both put back, so that the hospital's own files agree."""
    state = private.alder.parent / "state"
    for name in ("ledger.db", "audit.jsonl"):
        shutil.copy(state / name, tmp_path / name)
    private.world.command("run", str(private.plan("today", rounds=1)))
    for name in ("ledger.db", "audit.jsonl"):
        shutil.copy(tmp_path / name, state / name)
    said = private.world.command("run", str(private.plan("tomorrow", rounds=1)), code=3)
    assert "which the coordinator was told of" in said
    heads = private.world.coordinator.folder / "heads.json"
    heads.write_text(
        json.dumps({site: head for site, head in json.loads(heads.read_bytes()).items() if site != "alder"})
    )
    said = private.world.command("run", str(private.plan("later", rounds=1)), code=3)
    assert "alder: the site declines: the site's privacy ledger lacks row" in said
