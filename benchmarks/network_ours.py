"""Our side of benchmarks/network.py: a real coordinator and two hospitals whose training is a stub."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from client.data.phantom import make_cohort
from client.setup import create
from server.coordinator import Coordinator, CoordinatorConfig
from server.coordinator import init as init_coordinator
from server.enrolment import write_invitation
from server.journal import Journal
from shared_model.config import PhantomCohort

ROOT = Path(__file__).resolve().parents[1]
SITES = ("alder", "birch")
WAIT_SECONDS = 60
STUB = """
import sys
if any("flwr-clientapp" in part for part in sys.orig_argv):
    import time
    import types
    from shared_model.scores import SiteScores

    class Learner:
        def __init__(self, *about):
            pass

        def load(self, weights):
            self.weights = weights

        def evaluate(self):
            return SiteScores()

        def train(self, work, moments):
            time.sleep(2)
            tensors = {name: value + 0.001 for name, value in self.weights.items()}
            return types.SimpleNamespace(tensors=tensors, moments={}, private_steps=0)

    sys.modules["client.learner"] = types.ModuleType("client.learner")
    sys.modules["client.learner"].Learner = Learner
"""


def run_ours(folder: Path, rounds: int) -> list[float]:
    """Seconds of each round, from the opening or the last commit to its own commit."""
    (folder / "stub").mkdir()
    (folder / "stub" / "sitecustomize.py").write_text(STUB)
    os.environ["PYTHONPATH"] = f"{folder / 'stub'}:{ROOT}"
    coordinator = init_coordinator(folder / "c", CoordinatorConfig(names=("127.0.0.1",), port=28443, admin_port=28444))
    running = [_start(["server.cli", "serve", "--folder", str(coordinator.folder)])]
    cohort = make_cohort(PhantomCohort(patients=8, test_patients=8, voxel_mm=4.0), folder / "cohort", 1)
    try:
        for site in cohort[:2]:
            config = _site(folder, site.name, site.data.model_dump(mode="json"), coordinator)
            running.append(_start(["client.cli", "--site", str(config)]))
        plan = {
            "name": "network",
            "synthetic": True,
            "rounds": rounds,
            "sites": list(SITES),
            "tasks": ["wt", "tc", "et", "idh", "grade"],
            "model": {"preset": "base"},
            "round_minutes": 10,
        }
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        _until_connected(coordinator)
        subprocess.run(
            [sys.executable, "-m", "server.cli", "run", str(folder / "plan.yaml"), "--folder", str(coordinator.folder)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        journal = Journal(next((coordinator.folder / "runs").iterdir()))
        times = [event.time for _, event in journal.events() if event.event in ("opened", "committed")]
        return [after - before for before, after in pairwise(times)]
    finally:
        os.environ["PYTHONPATH"] = str(ROOT)
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def _start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _site(folder: Path, name: str, data: dict[str, object], coordinator: Coordinator) -> Path:
    create(folder / name, name)
    coordinator.registry.enrol(name, (folder / name / "site.pub").read_text())
    values = {
        "site": name,
        "data": data,
        "tasks": ["wt", "tc", "et", "idh", "grade"],
        "minimum_cell": 1,
        "state": "state",
        "invitation": str(write_invitation(coordinator, name)),
        "policy": {"approve_plans": False, "minimum_cases": 1},
    }
    (folder / name / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / name / "config.yaml"


def _until_connected(coordinator: Coordinator) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        command = [sys.executable, "-m", "server.cli", "status", "--folder", str(coordinator.folder)]
        told = subprocess.run(command, capture_output=True, text=True).stdout
        if all(f"{site}: connected" in told for site in SITES):
            return
        if time.monotonic() > end:
            raise TimeoutError(told)
