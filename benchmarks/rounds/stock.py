"""The reference: stock Flower with FedAvg, TLS, node keys and SQLite, as its documents say."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.rounds.counting import Span
from server.certificates import create_authority, issue_server_certificate
from shared_model.flower_environment import QUICKER, environment
from shared_model.signing import create_site_key, to_line

PORT = 28543
WAIT_SECONDS = 60


def run_stock(folder: Path, rounds: int, weights: int) -> list[Span]:
    """Each round, from the choice of nodes to the aggregate."""
    shutil.copytree(Path(__file__).with_name("stock_app"), folder / "app")
    create_authority(folder / "ca.key", folder / "ca.crt")
    issue_server_certificate(
        folder / "ca.key", folder / "ca.crt", ["127.0.0.1"], folder / "tls.key", folder / "tls.crt"
    )
    home = _environment(folder / "home")
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "tls"\n[superlink.tls]\naddress = "127.0.0.1:{PORT}"\n'
        f'root-certificates = "{folder / "ca.crt"}"\n'
    )
    tls = ("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "tls.crt", "--ssl-keyfile", "tls.key")
    options = ("--enable-supernode-auth", "--database", "state.db", "--host", "127.0.0.1", "--port", str(PORT))
    running = [_start(folder, home, "flower-superlink", *tls, *options)]
    try:
        for index in range(2):
            line = to_line(create_site_key(folder / f"node{index}"))
            (folder / f"node{index}.pub").write_text(line)
            _until(partial(_flwr, folder, home, "supernode", "register", f"node{index}.pub", "tls"))
            node = ("--superlink", f"127.0.0.1:{PORT}", "--root-certificates", "ca.crt")
            local = ("--auth-supernode-private-key", f"node{index}", "--port", str(PORT + 1 + index))
            running.append(_start(folder, _environment(folder / f"home{index}"), "flower-supernode", *node, *local))
        settings = f"rounds={rounds} weights={weights} times='{folder / 'times'}'"
        _flwr(folder, home, "run", "app", "tls", "--stream", "--run-config", settings)
        return [Span(*map(float, line.split())) for line in (folder / "times").read_text().splitlines()]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def _environment(home: Path) -> dict[str, str]:
    """Ours, but for what is quicker than Flower's own."""
    return {name: value for name, value in environment(home).items() if name not in QUICKER}


def _start(folder: Path, home: dict[str, str], program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    path = str(Path(sys.executable).with_name(program))
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([path, *arguments], cwd=folder, env=home, stdout=log, stderr=log)


def _flwr(folder: Path, home: dict[str, str], *arguments: str) -> bool:
    path = str(Path(sys.executable).with_name("flwr"))
    with (folder / "log").open("ab") as log:
        return subprocess.run([path, *arguments], cwd=folder, env=home, stdout=log, stderr=log).returncode == 0


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the SuperLink does not answer")
