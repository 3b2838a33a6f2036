"""Our side: a real coordinator, and hospitals whose training is a stub."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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


Join = Callable[[Path, Coordinator, Sequence[str]], AbstractContextManager[None]]


@contextmanager
def hospitals(folder: Path, coordinator: Coordinator, names: Sequence[str]) -> Iterator[None]:
    """Real clients of real hospitals, whose training is a stub."""
    cohort = make_cohort(PhantomCohort(patients=8, test_patients=8, voxel_mm=4.0), folder / "cohort", 1)
    commands = []
    for name, hospital in zip(names, cycle(cohort[: len(SITES)]), strict=False):
        config = _site(folder, name, hospital.data.model_dump(mode="json"), coordinator)
        commands.append(["client.cli", "--site", str(config)])
    with _running(*commands):
        yield


def run_ours(
    folder: Path,
    rounds: int,
    preset: str,
    changes: Mapping[str, Any],
    sites: Sequence[str] = SITES,
    joined: Join = hospitals,
    connected: Callable[[], None] = lambda: None,
) -> list[Span]:
    """Each round, from the opening or the last reply of the one before to its own last reply: reduction, commit and all
    that a site is sent lie between.

    Args:
        changes: keys of the plan that are this way's own.
        joined: lets the sites be there while its context lasts.
        connected: called when all sites are, before the run starts.
    """
    coordinator = init_coordinator(folder / "c", CoordinatorConfig(names=("127.0.0.1",), port=28443, admin_port=28444))
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
    with _running(["server.cli", "serve", "--folder", str(coordinator.folder)]):
        _until(lambda: _status(coordinator).returncode == 0)
        with joined(folder, coordinator, sites):
            _until(lambda: all(f"{site}: connected" in _status(coordinator).stdout for site in sites))
            connected()
            done = _command("run", str(folder / "plan.yaml"), "--folder", str(coordinator.folder))
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        journal = Journal(next((coordinator.folder / "runs").iterdir()))
        events = [event for _, event in journal.events()]
        opened = [event.time for event in events if event.event == "opened"]
        replies = {event.round: event.time for event in events if event.event == "reply"}  # the last one counts
        return [Span(*times) for times in pairwise([*opened, *replies.values()])]


@contextmanager
def _running(*commands: Sequence[str]) -> Iterator[None]:
    """Modules of this release as processes, which end with the context."""
    running = [
        subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `mtsunet-server` to its end."""
    return subprocess.run([sys.executable, "-m", "server.cli", *arguments], capture_output=True, text=True)


def _status(coordinator: Coordinator) -> "subprocess.CompletedProcess[str]":
    return _command("status", "--folder", str(coordinator.folder))


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


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the coordinator or a site is not there")
