"""A federation whose run paused in round 2, and copies of its coordinator's folder from then.

Training is a stub: what is looked at is what the coordinator and the sites remember.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from client.audit import AuditLog
from server.store import RunStore
from shared_model.config import SiteConfig
from tests.network.world import ROOT, Running, World, site_values

PLAN: dict[str, Any] = {
    "name": "interrupted",
    "synthetic": True,
    "rounds": 2,
    "tasks": ["wt"],
    "sites": ["alder", "birch"],
    "attempts": 1,
    "round_minutes": 4,
}
STUB = """
import sys, time
if any("client.supernode" in part for part in sys.orig_argv):
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.3))
if any("multiprocessing.forkserver" in part for part in sys.orig_argv):
    import types
    import numpy as np
    from shared_model.metrics import DiceSum
    from shared_model.scores import SiteScores

    class Learner:
        def __init__(self, config, *about):
            self.state = config.state

        def load(self, weights):
            self.weights = weights

        def evaluate(self):
            return SiteScores(dice={"wt": DiceSum.of([0.5])})

        def train(self, work, moments):
            while (self.state / "busy").exists():
                time.sleep(0.2)
            if work.round == 2 and (self.state / "ill").exists():
                raise RuntimeError
            draw = np.random.default_rng()
            steps = {name: draw.standard_normal(value.shape, np.float32) for name, value in self.weights.items()}
            tensors = {name: value + steps[name] for name, value in self.weights.items()}
            return types.SimpleNamespace(tensors=tensors, moments={}, private_steps=0)

        def release(self):
            del self.weights

    sys.modules["client.learner"] = types.ModuleType("client.learner")
    sys.modules["client.learner"].Learner = Learner
"""
"""The node looks for messages often. No two answers are the same; a site works as long as there is a file state/busy,
and fails in round 2 where there is one state/ill.
"""
HURRY = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
DONE = "done; write the report with"


@dataclass
class Interrupted:
    """The federation, which goes on or is put back as a test wants it.

    Attributes:
        run: a run with one committed round, that paused in its second, as birch failed; alder's reply is in the spool.
        hot: the coordinator's folder, copied while the server ran.
        cold: the same, copied after it was stopped.
    """

    world: World
    sites: dict[str, SiteConfig]
    server: Running = field(init=False)
    clients: dict[str, Running] = field(init=False, default_factory=dict)
    run: str = field(init=False)

    def __post_init__(self) -> None:
        self.hot, self.cold = self.world.folder / "hot", self.world.folder / "cold"
        (self.world.folder / "stub").mkdir()
        (self.world.folder / "stub" / "sitecustomize.py").write_text(STUB)
        self.server = self.world.serve()
        for site in PLAN["sites"]:
            self.world.site(site, site_values(self.sites[site], tasks=["wt"]))
            self.join(site)
        self.world.connected(*PLAN["sites"])
        ill = self.state("birch") / "ill"
        ill.touch()
        said = self.world.command("run", str(self.plan(PLAN)), code=3)
        assert "birch: the site declines: RuntimeError at the site" in said
        ill.unlink()
        self.run = said.splitlines()[0].removeprefix("run ")
        self._back_up()

    def _back_up(self) -> None:
        """As docs/coordinator.md has it: without stopping, then whole, with the server stopped; it stays so."""
        folder = self.world.coordinator.folder
        subprocess.run(["sqlite3", "link.db", ".backup link.copy"], cwd=folder, check=True)
        shutil.copytree(folder, self.hot, ignore=shutil.ignore_patterns("link.db*", "parts"))
        (self.hot / "link.copy").rename(self.hot / "link.db")
        (folder / "link.copy").unlink()
        self.stop()
        subprocess.run(["cp", "-a", folder, self.cold], check=True)

    def put_back(self, backup: Path) -> None:
        """Nothing is left of the coordinator but a backup; the server starts from it."""
        self.stop()
        shutil.rmtree(self.world.coordinator.folder)
        subprocess.run(["cp", "-a", backup, self.world.coordinator.folder], check=True)
        self.server = self.world.serve()

    def stop(self) -> None:
        assert self.server.stop() == 0, self.server.said

    def join(self, site: str) -> None:
        config = self.world.folder / site / "config.yaml"
        self.clients[site] = self.world.join(config, PYTHONPATH=f"{self.world.folder / 'stub'}:{ROOT}", **HURRY)

    def state(self, site: str) -> Path:
        return self.world.folder / site / "state"

    def plan(self, values: dict[str, Any]) -> Path:
        path = self.world.folder / f"{values['name']}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    @property
    def store(self) -> RunStore:
        return self.world.coordinator.run(self.run)

    def asked_to_train(self, site: str) -> list[tuple[str, int]]:
        """Run and round of each time that a site was asked, by its own log."""
        facts = [json.loads(line) for line in AuditLog(self.state(site)).lines()]
        asked = [line["facts"] for line in facts if line["event"] == "asked to train"]
        return [(one["run"], one["round"]) for one in asked]
