"""Our side: a real coordinator and hospitals whose training is a stub."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.rounds.counting import Span
from client.data.phantom import make_cohort
from client.setup import create
from server.coordinator import Coordinator, CoordinatorConfig
from server.coordinator import init as init_coordinator
from server.enrolment import write_invitation
from server.journal import Journal
from shared_model.config import PhantomCohort

SITES = ("alder", "birch")
"""The hospitals; further ones have their data again."""
TASKS = ("wt", "tc", "et", "idh", "grade")
WAIT_SECONDS = 60


def run_ours(
    folder: Path,
    rounds: int,
    preset: str,
    changes: Mapping[str, Any],
    sites: Sequence[str] = SITES,
    connected: Callable[[], None] = lambda: None,
) -> list[Span]:
    """Each round, from the opening or the last commit to its own commit.

    Args:
        changes: keys of the plan that are this way's own.
        connected: called when all sites are, before the run starts.
    """
    coordinator = init_coordinator(folder / "c", CoordinatorConfig(names=("127.0.0.1",), port=28443, admin_port=28444))
    cohort = make_cohort(PhantomCohort(patients=8, test_patients=8, voxel_mm=4.0), folder / "cohort", 1)
    plan = {
        "name": "rounds",
        "synthetic": True,
        "rounds": rounds,
        "sites": list(sites),
        "tasks": list(TASKS),
        "model": {"preset": preset},
        "round_minutes": 10,
        **changes,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    running = [_start(["server.cli", "serve", "--folder", str(coordinator.folder)])]
    try:
        for name, hospital in zip(sites, cycle(cohort[: len(SITES)]), strict=False):
            config = _site(folder, name, hospital.data.model_dump(mode="json"), coordinator)
            running.append(_start(["client.cli", "--site", str(config)]))
        _until_connected(coordinator, sites)
        connected()
        done = _command("run", str(folder / "plan.yaml"), "--folder", str(coordinator.folder))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        journal = Journal(next((coordinator.folder / "runs").iterdir()))
        times = [event.time for _, event in journal.events() if event.event in ("opened", "committed")]
        return [Span(*times) for times in pairwise(times)]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def _start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `mtsunet-server` to its end."""
    return subprocess.run([sys.executable, "-m", "server.cli", *arguments], capture_output=True, text=True)


def _site(folder: Path, name: str, data: dict[str, object], coordinator: Coordinator) -> Path:
    create(folder / name, name)
    coordinator.registry.enrol(name, (folder / name / "site.pub").read_text())
    values = {
        "site": name,
        "data": data,
        "tasks": list(TASKS),
        "minimum_cell": 1,
        "state": "state",
        "invitation": str(write_invitation(coordinator, name)),
        "policy": {"approve_plans": False, "minimum_cases": 1},
    }
    (folder / name / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / name / "config.yaml"


def _until_connected(coordinator: Coordinator, sites: Sequence[str]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        told = _command("status", "--folder", str(coordinator.folder)).stdout
        if all(f"{site}: connected" in told for site in sites):
            return
        if time.monotonic() > end:
            raise TimeoutError(told)
