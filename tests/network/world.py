"""A federation of real processes over loopback with TLS: a coordinator, hospitals, and what they print."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from client.config import load_site
from client.connection import read_invitation
from server.coordinator import Coordinator
from server.superlink.control import Control
from shared_model.config import Invitation, SiteConfig
from tests.federation import Cohort

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
"""Seconds; far more than anything here takes on a quiet machine."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(what: str, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first truthy value of `holds`, looked at again and again; AssertionError naming `what` when time is up."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return value


@dataclass
class Running:
    """A process whose output goes to a file."""

    process: "subprocess.Popen[bytes]"
    log: Path
    begin: int = 0
    """Byte of the log at which it began: those before it wrote to the same file."""

    @property
    def said(self) -> str:
        return self.log.read_bytes()[self.begin :].decode(errors="replace")

    def says(self, words: str, seconds: float = PATIENCE) -> str:
        """Wait until it has printed `words`; all that it printed."""
        wait_for(f"'{words}' in {self.log.name}, which says: {self.said}", lambda: words in self.said, seconds)
        return self.said

    def ends(self, seconds: float = PATIENCE) -> int:
        """Wait for its exit code."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.ends(60)


@dataclass
class World:
    """Where the processes of one test live; everything started here is stopped when it closes."""

    folder: Path
    name: str = "127.0.0.1"
    running: list[Running] = field(default_factory=list)

    def start(self, name: str, arguments: Sequence[str], **environment: str) -> Running:
        """Start this Python with arguments; its output goes to NAME.log."""
        log = self.folder / f"{name}.log"
        begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            )
        self.running.append(Running(process, log, begin))
        return self.running[-1]

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run `mtsunet-server` to its end; its whole output, with the exit code that was expected."""
        return output_of(["server.cli", *arguments, "--folder", str(self.coordinator.folder)], code)

    def client(self, site: str, command: str, *arguments: str, code: int = 0) -> str:
        """Run a command of `mtsunet-client` at a site; likewise."""
        return output_of(["client.cli", command, "--site", str(self.folder / site / "config.yaml"), *arguments], code)

    @property
    def coordinator(self) -> Coordinator:
        return Coordinator(self.folder / "coordinator")

    def serve(self, script: str = "") -> Running:
        """Make the coordinator if there is none, and start it; `script` is run in its process first."""
        if not self.coordinator.folder.exists():
            public, admin, health = map(str, free_ports(3))
            ports = ("--port", public, "--admin-port", admin, "--health-port", health)
            self.command("init", "--name", self.name, *ports)
        arguments = ["serve", "--folder", str(self.coordinator.folder)]
        server = self.start("server", ["-c", f"{script}\nimport sys, server.cli\nserver.cli.main()", *arguments])
        server.says("sites reach this server at")
        return server

    def site(self, name: str, config: dict[str, Any], enrol: bool = True) -> Path:
        """A hospital's folder with key and config; returns the config file."""
        from client.setup import create

        folder = self.folder / name
        create(folder, name)
        invitation = {"invitation": "invitation.yaml"}
        (folder / "config.yaml").write_text(yaml.safe_dump({"site": name, "state": "state", **invitation, **config}))
        if enrol:
            self.command("enrol", name, str(folder / "site.pub"))
            shutil.copy(self.coordinator.folder / "invitations" / f"{name}.yaml", folder / "invitation.yaml")
        return folder / "config.yaml"

    def join(self, config: Path, script: str = "", **environment: str) -> Running:
        """Start a hospital's client; `script` is run in its process first."""
        arguments = ["-c", f"{script}\nimport sys, client.cli\nclient.cli.main()", "--site", str(config)]
        return self.start(config.parent.name, arguments, **environment)

    def invitation(self, config: Path) -> Invitation:
        return read_invitation(load_site(config))

    def connected(self, *sites: str) -> None:
        """Wait until the coordinator sees these sites."""
        coordinator = self.coordinator
        control = Control(coordinator)

        def all_there() -> bool:
            there, enrolled = control.connected(), coordinator.registry.sites()
            return all(enrolled[site].node in there for site in sites)

        wait_for(f"{sites} connected", all_there)

    def close(self) -> None:
        for one in reversed(self.running):
            if one.process.poll() is None:
                one.process.terminate()
        for one in self.running:
            try:
                one.process.wait(30)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()


def output_of(module: Sequence[str], code: int = 0) -> str:
    """Run a module to its end; its whole output, with the exit code that was expected."""
    done = subprocess.run(
        [sys.executable, "-m", *module],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def site_values(config: SiteConfig, **changes: Any) -> dict[str, Any]:
    """The part of a test cohort's site config that a hospital would write."""
    values = config.model_dump(mode="json", exclude={"site", "state", "policy", "invitation", "health_port", "raw"})
    policy = {"approve_plans": False, "minimum_cases": 1}
    return {**values, "minimum_cell": 1, "policy": policy, **changes}


def sites_of(cohort: Cohort, folder: Path) -> dict[str, SiteConfig]:
    """Configs of a cohort's sites by name."""
    return {config.site: config for config in cohort.configs(folder / "unused")}
