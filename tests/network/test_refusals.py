"""Who is refused over the real network, and by which words: the coordinator and the clients are real processes."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from server.certificates import create_authority
from shared_model.config import DataConfig, SiteConfig
from tests.network.world import World, free_ports, site_values

EXIT_INPUT, EXIT_RUN = 2, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    world.serve()
    yield world
    world.close()


VALUES = site_values(
    SiteConfig(site="x", data=DataConfig(folder=Path("cases"), labels=Path("l.csv")), tasks=("wt",), state=Path("s"))
)


def refused(world: World, config: Path, words: str, code: int = EXIT_RUN, script: str = "") -> None:
    """The client ends by itself with one line that says why."""
    client = world.join(config, script)
    assert client.ends() == code, client.said
    last = client.said.strip().splitlines()[-1]
    assert last.startswith("mtsunet-client: ") and words in last, client.said
    assert "Traceback" not in client.said


def test_a_key_that_is_not_enrolled(world: World) -> None:
    config = world.site("enrolled", VALUES)
    stranger = world.site("stranger", VALUES, enrol=False)
    text = (config.parent / "invitation.yaml").read_text().replace("site: enrolled", "site: stranger")
    (stranger.parent / "invitation.yaml").write_text(text)
    refused(world, stranger, "this key is not enrolled here")


def test_no_key(world: World) -> None:
    config = world.site("keyless", VALUES)
    (config.parent / "state" / "site.key").unlink()
    refused(world, config, "no key can be read here", EXIT_INPUT)


def test_a_certificate_of_another_authority(world: World, tmp_path: Path) -> None:
    config = world.site("deceived", VALUES)
    create_authority(tmp_path / "ca.key", tmp_path / "ca.crt")
    invitation = yaml.safe_load((config.parent / "invitation.yaml").read_text())
    invitation["authority"] = (tmp_path / "ca.crt").read_text()
    (config.parent / "invitation.yaml").write_text(yaml.safe_dump(invitation))
    refused(world, config, "not vouched for by the invitation's authority")


def test_a_revoked_site(world: World) -> None:
    config = world.site("former", VALUES)
    world.command("revoke", "former")
    refused(world, config, "the enrolment of 'former' was revoked")


def test_the_same_key_twice(world: World) -> None:
    config = world.site("twin", VALUES)
    first = world.join(config)
    world.connected("twin")
    copy = world.folder / "copy"
    shutil.copytree(config.parent, copy)
    hurry = "import client.join\nclient.join.LOCKOUT_SECONDS = 3"
    refused(world, copy / "config.yaml", "its key is connected from somewhere else", script=hurry)
    again = world.join(config)
    assert again.ends() == EXIT_RUN
    assert "a client runs here already" in again.said
    assert first.stop() == 0, first.said
    assert first.said.strip().endswith("stopped")


@pytest.mark.parametrize(("seconds", "words"), [(600, "600 s ahead of"), (-600, "600 s behind")])
def test_a_clock_ten_minutes_off(world: World, seconds: int, words: str) -> None:
    config = world.site(f"clock{abs(seconds) + (seconds > 0)}", VALUES)
    script = f"""
import client.join
from datetime import UTC, datetime, timedelta
from functools import partial
client.join.hello = partial(client.join.hello, clock=lambda: datetime.now(UTC) + timedelta(seconds={seconds}))
"""
    refused(world, config, f"the site's clock is {words} the coordinator's", script=script)


def test_plain_http(world: World) -> None:
    config = world.site("plain", VALUES)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    elsewhere(config, server.server_port)
    refused(world, config, "speaks plain HTTP, not TLS")
    server.shutdown()
    server.server_close()


def test_another_release(world: World) -> None:
    config = world.site("older", VALUES)
    script = "import client.connection\nclient.connection.RELEASE = '0.0.9'"
    refused(world, config, "the coordinator runs release 0.1.0, this client is 0.0.9", script=script)


def test_a_coordinator_that_is_away_is_waited_for(world: World) -> None:
    config = world.site("patient", VALUES)
    elsewhere(config, free_ports(1)[0])
    client = world.join(config)
    assert "cannot be reached" in client.says("Trying again")
    assert client.stop() == 0


def elsewhere(config: Path, port: int) -> None:
    """Point an invitation at another port of this machine."""
    path = config.parent / "invitation.yaml"
    invitation = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**invitation, "address": f"127.0.0.1:{port}"}))
