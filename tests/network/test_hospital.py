"""A hospital's client on its own machine: behind a proxy, with its local port, and an app that is not its release's."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
import yaml
from flwr.cli.build import build_fab_from_files
from grpc_health.v1 import health_pb2, health_pb2_grpc

import shared_model.shell as shell
from server.superlink.shell import FOLDER
from tests.network.proxy import Proxy
from tests.network.test_doors import PROTOBUF, VERSION
from tests.network.test_refusals import VALUES
from tests.network.world import ROOT, World, free_ports, wait_for

ELSEWHERE = "127.0.0.2"
"""An address of this machine that no client takes for its own."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def world(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("hospital"), name=ELSEWHERE)
    world.serve()
    health = free_ports(1)[0]
    world.join(world.site("north", {**VALUES, "health_port": health}), HTTPS_PROXY=proxy.url, HTTP_PROXY=proxy.url)
    world.connected("north")
    yield world
    world.close()


def log(world: World) -> str:
    path = world.folder / "north" / "state" / "logs" / "node.log"
    return path.read_text() if path.exists() else ""


def test_all_traffic_goes_through_the_proxy_but_loopback(world: World, proxy: Proxy) -> None:
    port = world.coordinator.config.port
    assert set(proxy.asked) == {f"CONNECT {ELSEWHERE}:{port}"}
    wait_for("the node's number in its log", lambda: "SuperNode ID" in log(world))


def test_the_local_port_wants_the_executors_secret(world: World) -> None:
    found = wait_for("the local port", lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log(world)))
    url = f"http://127.0.0.1:{found.group(1)}/v1/runtime"
    assert httpx.post(f"{url}/acquire-task", headers=PROTOBUF | VERSION, content=b"").status_code == 401
    assert httpx.post(f"{url}/pull-task-input", headers=PROTOBUF | VERSION, content=b"").status_code in (401, 403)


def test_health_says_whether_it_has_joined(world: World) -> None:
    port = yaml.safe_load((world.folder / "north" / "config.yaml").read_text())["health_port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        wait_for("SERVING", lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == serving)


FOREIGN = """
import sys
from pathlib import Path
import server.superlink.control as control
control.CONTENT = Path(sys.argv.pop(1)).read_bytes()
import server.cli
server.cli.main()
"""


def test_an_app_that_carries_code_is_refused_before_it_is_unpacked(world: World, tmp_path: Path) -> None:
    files = {"pyproject.toml": (FOLDER / "pyproject.toml").read_bytes(), "evil.py": b"open('/tmp/evil', 'w')"}
    foreign, _ = build_fab_from_files(files)
    (tmp_path / "foreign.fab").write_bytes(foreign)
    plan = {"name": "foreign", "synthetic": True, "rounds": 1, "sites": ["north"], "minimum_sites": 1, "attempts": 1}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, "tasks": ["wt"]}))
    arguments = [str(tmp_path / "foreign.fab"), "run", str(tmp_path / "plan.yaml")]
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN, *arguments, "--folder", str(world.coordinator.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"is not this release's shell {shell.DIGEST}; it carries 1 more files" in done.stdout
    assert "refused: app" in log(world)
    assert not (world.folder / "north" / "state" / "flower" / "apps").exists()


def test_it_stops_cleanly_and_leaves_no_process(world: World) -> None:
    client = next(one for one in world.running if one.log.stem == "north")
    assert client.stop() == 0
    assert client.said.strip().endswith("stopped")
    config = str(world.folder / "north")
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in lines if config in line] == []
