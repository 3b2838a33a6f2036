"""A federation of two sites that can be halted, killed and started again; and what a kill must leave as it was."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml

from server.journal import DONE, RUNNING, Event, Journal
from server.store import RunStore
from shared_model.checkpoint import MODEL
from tests.faults.cells import CLIENT, EXECUTOR, LOOP, SERVER, WORKER
from tests.federation import Cohort
from tests.network.world import ROOT, Running, World, free_ports, site_values, sites_of, wait_for
from tests.processes import command_of, descendants

STUB = Path(__file__).with_name("stub")
SITES = ("alder", "birch")
ROUNDS = 3
PLAN: dict[str, Any] = {
    "name": "kills",
    "seed": 5,
    "synthetic": True,
    "rounds": ROUNDS,
    "sites": list(SITES),
    "tasks": ["wt", "tc", "et", "idh", "grade"],
    "training": {"local_steps": 1, "batch_size": 1, "crop": [32, 64, 32], "warmup_steps": 1},
    "round_minutes": 2,
}
PROGRAMS = {EXECUTOR: "flower-superexec", LOOP: "flwr-serverapp"}
QUICK = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
EXIT_RUN = 3
END_SECONDS = 240.0
"""For the run to end or to pause, and for a resumed one to end."""
ORPHAN_SECONDS = 20.0
"""In which a killed process' children have to end."""


def make_template(cohort: Cohort, folder: Path) -> Path:
    """A coordinator and two enrolled sites, never started: copied for each kill."""
    world = World(folder)
    public, admin = map(str, free_ports(2))
    world.command("init", "--name", world.name, "--port", public, "--admin-port", admin)
    configs = sites_of(cohort, folder)
    for site in SITES:
        world.site(site, site_values(configs[site], tasks=PLAN["tasks"]))
    return folder


class KillWorld(World):
    """The processes of one cell; with state "" nothing halts."""

    def __init__(self, template: Path, folder: Path, state: str, **plan: Any) -> None:
        super().__init__(shutil.copytree(template, folder))
        (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | plan))
        self.state = state
        self.environment: dict[str, str] = {}
        (folder / "hold").touch()

    def begin(self) -> None:
        """Start coordinator, sites and run."""
        self.server = self.serve()
        self.clients = {site: self.join(self.folder / site / "config.yaml") for site in SITES}
        self.follower = self._start("run", "server.cli", "run", "plan.yaml", *self._folder)

    def _start(self, name: str, module: str, *arguments: str, **environment: str) -> Running:
        log = f"{name}-{sum(one.log.name.startswith(name) for one in self.running)}"
        surroundings = {
            "PYTHONPATH": f"{STUB}:{ROOT}",
            "KILL_STATE": self.state,
            "KILL_FOLDER": str(self.folder),
            "CLOCK": str(self.folder / f"clock-{name}"),
            **QUICK,
            **self.environment,
            **environment,
        }
        return self.start(log, ["-m", module, *arguments], **surroundings)

    @property
    def _folder(self) -> tuple[str, str]:
        return "--folder", str(self.coordinator.folder)

    def serve(self, script: str = "") -> Running:
        server = self._start("server", "server.cli", "serve", *self._folder)
        server.says("sites reach this server at")
        return server

    def join(self, config: Path, script: str = "", **environment: str) -> Running:
        return self._start(config.parent.name, "client.cli", "--site", str(config))

    def resume(self) -> Running:
        return self._start("resume", "server.cli", "resume", self.run, *self._folder)

    @property
    def run(self) -> str:
        return self.store.read()[0]

    @property
    def store(self) -> RunStore:
        runs = self.coordinator.folder / "runs"
        return RunStore(wait_for("the run", lambda: next(runs.glob("*/run.json"), None)).parent)

    @property
    def status(self) -> tuple[str, str]:
        """The run's state and reason."""
        return Journal(self.store.folder).status()

    def events(self, kind: str) -> list[Event]:
        """The lines of that kind in the run's journal."""
        return [event for _, event in Journal(self.store.folder).events() if event.event == kind]

    def reached(self, seconds: float) -> int:
        """Wait until the state is reached; the number of the process that halts there."""
        file = self.folder / "reached"

        def halted() -> bool:
            assert self.follower.process.poll() is None, f"the run ended before: {self.follower.said}"
            return file.exists()

        wait_for(f"'{self.state}' reached", halted, seconds)
        return int(file.read_text())

    def ended(self) -> bool:
        """Wait for the run's end; whether it had to be resumed. A run that does not end says why."""
        if (code := self.follower.ends(END_SECONDS)) == EXIT_RUN:
            assert "mtsunet-server: " in self.follower.said, self.follower.said
            state, reason = wait_for("end or pause", lambda: (now := self.status)[0] != RUNNING and now, END_SECONDS)
            if state == DONE:
                return False
            assert reason, self.follower.said
            again = self.resume()
            assert again.ends(END_SECONDS) == 0, f"{self.follower.said}\n{again.said}"
            return True
        assert code == 0, self.follower.said
        return False

    def kill(self, process: str) -> None:
        """SIGKILL, and wait until the children have ended by themselves."""
        victims = self._victims(process)
        orphans = [child for victim in victims for child in victim.children(recursive=True) if child not in victims]
        for victim in victims:
            victim.kill()
        for one in (self.server, *self.clients.values()):
            if one.process.pid in {victim.pid for victim in victims}:
                one.process.wait(10)
        _, left = psutil.wait_procs([one for one in orphans if _lives(one)], timeout=ORPHAN_SECONDS)
        assert not left, f"outlived the {process}: {[command_of(one) for one in left]}"

    def _victims(self, process: str) -> list[psutil.Process]:
        server, client = (psutil.Process(one.process.pid) for one in (self.server, self.clients[SITES[0]]))
        if process == CLIENT:
            return [client, _child(client, "client.supernode")]
        if process == WORKER:
            return [psutil.Process(int((self.folder / "reached").read_text()))]
        return [server] if process == SERVER else [_child(server, PROGRAMS[process])]

    def restart(self, process: str) -> None:
        """Let what halted go on, and do what a service manager would."""
        (self.folder / "hold").unlink()
        if process == SERVER:
            self.server = self.serve()
        if process == CLIENT:
            self.clients[SITES[0]] = self.join(self.folder / SITES[0] / "config.yaml")

    def trained(self) -> Counter[str]:
        """How often each answer, by site, run, round and base, was made."""
        return Counter((self.folder / "trained.txt").read_text().splitlines())

    def committed(self) -> dict[int, tuple[int, str]]:
        """Round -> inode of its folder and sha256 of its model: written again, it has another inode."""
        found = {}
        for index in range(self.store.last_round() + 1):
            folder = self.store.model_folder(index)
            found[index] = folder.stat().st_ino, hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
        return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _child(parent: psutil.Process, program: str) -> psutil.Process:
    """The one descendant that runs a program."""
    (found,) = descendants(parent, program)
    return found
