"""The reference of benchmarks/network.py: stock Flower with FedAvg, TLS, node keys and SQLite, as its documents say."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from server.certificates import create_authority, issue_server_certificate
from shared_model.flower_environment import environment
from shared_model.signing import create_site_key, to_line

PORT = 28543
WEIGHTS = 62_542_791
ARRAYS = 60
WAIT_SECONDS = 60
PROJECT = """
[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "stock:server"
clientapp = "stock:client"
[tool.flwr.app.config]
rounds = 2
times = ""
"""
APP = f"""
import time
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()

@client.train()
def train(message, context):
    arrays = message.content["arrays"]
    time.sleep(2)
    changed = ArrayRecord({{name: Array(value.numpy() + np.float32(0.001)) for name, value in arrays.items()}})
    metrics = MetricRecord({{"num-examples": 1}})
    return Message(RecordDict({{"arrays": changed, "metrics": metrics}}), reply_to=message)

class Timed(FedAvg):
    def configure_train(self, *args, **kwargs):
        self.started = time.monotonic()
        return super().configure_train(*args, **kwargs)

    def aggregate_train(self, *args, **kwargs):
        result = super().aggregate_train(*args, **kwargs)
        with open(self.times, "a") as file:
            file.write(f"{{time.monotonic() - self.started}}\\n")
        return result

@server.main()
def main(grid, context):
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    strategy.times = context.run_config["times"]
    draw = np.random.default_rng(0)  # equal arrays would be one object to Flower, and travel once
    values = [draw.standard_normal({WEIGHTS} // {ARRAYS}, np.float32) for _ in range({ARRAYS})]
    initial = ArrayRecord({{f"a{{i}}": Array(value) for i, value in enumerate(values)}})
    strategy.start(grid, initial, num_rounds=context.run_config["rounds"])
"""


def run_stock(folder: Path, rounds: int) -> list[float]:
    """Seconds of each round, from the choice of nodes to the aggregate."""
    (folder / "app").mkdir()
    (folder / "app" / "pyproject.toml").write_text(PROJECT)
    (folder / "app" / "stock.py").write_text(APP)
    create_authority(folder / "ca.key", folder / "ca.crt")
    issue_server_certificate(
        folder / "ca.key", folder / "ca.crt", ["127.0.0.1"], folder / "tls.key", folder / "tls.crt"
    )
    home = environment(folder / "home")
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
            running.append(_start(folder, environment(folder / f"home{index}"), "flower-supernode", *node, *local))
        settings = f"rounds={rounds} times='{folder / 'times'}'"
        _flwr(folder, home, "run", "app", "tls", "--stream", "--run-config", settings)
        return [float(line) for line in (folder / "times").read_text().split()]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait()


def _start(folder: Path, home: dict[str, str], program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    path = str(Path(sys.executable).with_name(program))
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([path, *arguments], cwd=folder, env={**os.environ, **home}, stdout=log, stderr=log)


def _flwr(folder: Path, home: dict[str, str], *arguments: str) -> bool:
    path = str(Path(sys.executable).with_name("flwr"))
    with (folder / "log").open("ab") as log:
        return subprocess.run([path, *arguments], cwd=folder, env=home, stdout=log, stderr=log).returncode == 0


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the SuperLink does not answer")
