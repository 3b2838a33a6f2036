"""`mtsunet-client --site`: joins, stays joined, and says in plain words what it is doing.

Two children do the work: Flower's SuperNode (client/supernode.py), which talks to the coordinator, and Flower's
executor, which starts a process for each message. Both end with this process.
"""

import fcntl
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from client.audit import AuditLog
from client.config import SITE_VARIABLE, load_site
from client.connection import ClockError, RefusedHereError, UnreachableError, hello, read_invitation
from client.logs import append
from client.migrations import migrate, version_of
from shared_model.checkpoint import open_to_append, write_bytes, write_json
from shared_model.config import Invitation, SiteConfig
from shared_model.errors import RunError
from shared_model.flower_environment import environment
from shared_model.health import HealthServer
from shared_model.process import Process
from shared_model.signing import SitePrivateKey, read_site_key

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
LOCKOUT_SECONDS = 120.0
"""Flower lets a key in again about a minute after a session that was not closed."""
LOOK_SECONDS = 1.0
STOP_SECONDS = 15.0
LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR) ?: *\S")
"""Lines of Flower's own log; all else that its processes print, tracebacks among it, is dropped."""

Say = Callable[[str], None]


@dataclass
class Joined:
    """A hospital's client in progress."""

    site_file: Path
    say: Say
    config: SiteConfig = field(init=False)
    _stop: threading.Event = field(default_factory=threading.Event)
    _joined: bool = False

    def run(self) -> None:
        """Join and stay joined until SIGTERM or SIGINT.

        Raises:
            ConfigError: the config, key or invitation cannot be used, or a newer release has used the state folder.
            RunError: the coordinator refuses this site, and only a person can mend that.
        """
        self.config = load_site(self.site_file)
        version_of(self.config.state)
        invitation, key = read_invitation(self.config), read_site_key(self.config.key)
        self._one_alone()
        migrate(self.config.state)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        health = HealthServer(self.config.health_port) if self.config.health_port else None
        self.say(f"site '{self.config.site}'; coordinator {invitation.address}")
        try:
            pause = FIRST_PAUSE
            while not self._stop.is_set():
                if not self._admitted(invitation, key):
                    continue
                self._tell("joined")
                self._joined = True
                AuditLog(self.config.state).append("connected", {"coordinator": invitation.address})
                if health:
                    health.set(True)
                started = time.monotonic()
                code = self._work(invitation)
                if health:
                    health.set(False)
                if self._stop.is_set():
                    break
                pause = FIRST_PAUSE if time.monotonic() - started > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
                self._tell(f"the connection ended (code {code}); joining again in {pause:.0f} s")
                self._stop.wait(pause)
        finally:
            if health:
                health.stop()
        self._tell("stopped")

    def _tell(self, line: str) -> None:
        self.say(line)
        write_json(
            self.config.state / "client.json",
            {"said": line, "time": time.time(), "process": Process.own().model_dump()},
        )

    def _one_alone(self) -> None:
        """Refuse a second client of the same state folder."""
        self._lock = open_to_append(self.config.state / "client.lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{self.config.state}: a client runs here already", "stop that one first") from None

    def _admitted(self, invitation: Invitation, key: SitePrivateKey) -> bool:
        """Ask the coordinator until it would have us; False once we are to stop.

        A clock that is off ends a client that starts, so that somebody sees it; one that has joined waits for the time
        service.

        Raises:
            RefusedHereError: it will not, or this key stays connected elsewhere.
        """
        pause, began, said = FIRST_PAUSE, time.monotonic(), ""
        while not self._stop.is_set():
            try:
                if not hello(invitation, key).online:
                    return True
                if time.monotonic() - began > LOCKOUT_SECONDS:
                    what = f"site '{self.config.site}': its key is connected from somewhere else"
                    raise RefusedHereError(what, "stop the other client, or make a new key and enrol it")
                line = "the coordinator still holds this key's last session; waiting until it lets go"
            except (UnreachableError, ClockError) as error:
                if isinstance(error, ClockError) and not self._joined:
                    raise
                line = f"{error} Trying again"
                began = time.monotonic()
            if line != said:
                self._tell(line)
                said = line
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE / 4)
        return False

    def _work(self, invitation: Invitation) -> int:
        """Keep both children running until the node ends or we are to stop; returns the node's exit code."""
        state = self.config.state
        write_bytes(state / "flower" / "authority.crt", invitation.authority.encode())
        secret = state / "flower" / "executor.secret"
        write_bytes(secret, secrets.token_bytes(32), mode=0o600)
        port = _free_port()
        surroundings = environment(state / "flower") | {SITE_VARIABLE: str(self.site_file.resolve())}
        node = _start(
            [
                *(sys.executable, "-m", "client.supernode", "--superlink", invitation.address),
                *("--root-certificates", str(state / "flower" / "authority.crt")),
                *("--auth-supernode-private-key", str(self.config.key)),
                *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            surroundings,
            subprocess.PIPE,
        )
        reader = threading.Thread(target=_keep_log, args=(node, state / "logs" / "node.log"), daemon=True)
        reader.start()
        executor = None
        try:
            while node.poll() is None and not self._stop.is_set():
                if executor is None or executor.poll() is not None:
                    executor = _start(
                        [
                            *(sys.executable, "-m", "client.executor", "--insecure"),
                            *("--runtime-api-address", f"127.0.0.1:{port}", "--parent-pid", str(os.getpid())),
                            *("--superexec-auth-secret-file", str(secret)),
                        ],
                        surroundings,
                        subprocess.DEVNULL,
                    )
                self._end_overdue(executor)
                self._stop.wait(LOOK_SECONDS)
        finally:
            for child in (executor, node):
                if child is not None:
                    _end(child)
            reader.join(STOP_SECONDS)
        return node.returncode

    def _end_overdue(self, executor: subprocess.Popen[bytes]) -> None:
        """End a message's process that has worked longer than the policy allows."""
        limit = 60 * self.config.policy.minutes_per_round
        for worker in _workers(executor):
            try:
                if time.time() - worker.create_time() > limit:
                    worker.kill()
                    AuditLog(self.config.state).append("ended", {"after_seconds": limit})
                    self._tell(f"a round's work was ended: it took longer than {limit / 60:g} minutes")
            except psutil.NoSuchProcess:
                continue


def _start(arguments: list[str], surroundings: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    """Start a child, away from the terminal's signals."""
    return subprocess.Popen(
        arguments,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _workers(executor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes in which messages are worked on: those that the executor's fork server started."""
    found = []
    try:
        for server in psutil.Process(executor.pid).children():
            found += [child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return found
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM to a child and to what it started, then SIGKILL."""
    try:
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def _keep_log(node: subprocess.Popen[bytes], path: Path) -> None:
    """Keep the engine's own lines; a message that names a file is not among them."""
    assert node.stdout is not None
    for line in node.stdout:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace"))
        if LOGGED.search(plain):
            append(path, f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}Z {plain.strip()}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
