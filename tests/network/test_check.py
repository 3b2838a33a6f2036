"""What `check` says of the network, `status` of a client, with a real coordinator and real clients."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from client.config import load_site
from client.data.cases import Finding
from client.preflight import network
from server.certificates import create_authority
from tests.federation import Cohort
from tests.network.test_refusals import VALUES, elsewhere
from tests.network.world import ROOT, World, free_ports, site_values, sites_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("check"))
    world.serve()
    yield world
    world.close()


def client(command: str, config: Path, *arguments: str) -> str:
    """What a command of the client prints; it ends well."""
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", command, "--site", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(world: World, config: Path, what: str, remedy: str) -> None:
    """One error with these words, and no fact but where the coordinator was looked for."""
    facts, found = network(load_site(config))
    address = world.invitation(config).address
    assert found == [Finding("error", "network", what.format(address=address), remedy)]
    assert facts.get("coordinator", address) == address and len(facts) <= 1


def test_a_good_site_is_clean_before_and_while_it_is_connected(world: World, cohort: Cohort) -> None:
    config = world.site("alder", site_values(sites_of(cohort, world.folder)["alder"]))
    report = json.loads(client("check", config, "--json", "--crop", "32", "64", "32", "--batch", "1"))
    assert [finding for finding in report["findings"] if finding["where"] == "network"] == []
    facts = report["network"]
    assert re.fullmatch(r"[012] s (ahead of|behind) the coordinator's, give or take a second", facts.pop("clock"))
    assert facts == {
        "coordinator": world.coordinator.config.address,
        "reached": "yes",
        "certificate": "of the invitation's authority",
        "enrolment": "this site's key is enrolled",
        "release": "0.1.0 on both sides",
        "connected": "not now",
    }
    state = config.parent / "state"
    assert sorted(path.name for path in state.iterdir()) == ["site.key"]

    joined = world.join(config)
    world.connected("alder")
    now, found = network(load_site(config))
    assert now["connected"] == "yes" and found == []
    told = client("status", config).splitlines()
    assert told[0] == f"site 'alder': the client runs (process {joined.process.pid})"
    assert told[1].endswith("Z: joined") and told[2:] == ["no training now"]
    assert json.loads((state / "version.json").read_text()) == {"version": 1}

    assert joined.stop() == 0, joined.said
    told = client("status", config).splitlines()
    assert told[0] == "site 'alder': the client does not run" and told[1].endswith("Z: stopped")


def test_a_revoked_site(world: World) -> None:
    config = world.site("former", VALUES)
    world.command("revoke", "former")
    refused(world, config, "{address}: the enrolment of 'former' was revoked", "ask the coordinator")


def test_a_key_that_is_not_enrolled(world: World) -> None:
    config, other = world.site("enrolled", VALUES), world.site("stranger", VALUES, enrol=False)
    text = (config.parent / "invitation.yaml").read_text()
    (other.parent / "invitation.yaml").write_text(text.replace("site: enrolled", "site: stranger"))
    refused(world, other, "{address}: this key is not enrolled here", "ask the coordinator")


def test_another_authority(world: World, tmp_path: Path) -> None:
    config = world.site("deceived", VALUES)
    create_authority(tmp_path / "ca.key", tmp_path / "ca.crt")
    path = config.parent / "invitation.yaml"
    values = yaml.safe_load(path.read_text()) | {"authority": (tmp_path / "ca.crt").read_text()}
    path.write_text(yaml.safe_dump(values))
    why = "(unable to get local issuer certificate)"
    what = f"{{address}}: its certificate is not vouched for by the invitation's authority {why}"
    refused(world, config, what, "ask the coordinator for a new invitation")


def test_nobody_answers(world: World) -> None:
    config = world.site("lonely", VALUES)
    elsewhere(config, free_ports(1)[0])
    refused(world, config, "{address}: cannot be reached", "check the network, the firewall and the proxy")


def test_another_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = world.site("older", VALUES)
    monkeypatch.setattr("client.connection.RELEASE", "0.0.9")
    what = "the coordinator runs release 0.1.0, this client is 0.0.9"
    refused(world, config, what, "install the same release on both sides")


def test_a_key_that_is_missing_or_open_to_others(world: World) -> None:
    config = world.site("careless", VALUES)
    key = load_site(config).key
    key.chmod(0o640)
    refused(world, config, f"{key}: others than its owner can read this key", "chmod 600 site.key")
    key.unlink()
    what = f"{key}: no key can be read here (FileNotFoundError)"
    refused(world, config, what, "make one with: mtsunet-client init")


def test_a_clock_that_is_off(world: World) -> None:
    """A minute behind the coordinator still lets a site in; ten minutes, or one minute ahead, do not."""
    config = load_site(world.site("hasty", VALUES))

    def off(seconds: int) -> list[Finding]:
        return network(config, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds))[1]

    (found,) = off(-60)
    assert (found.severity, found.remedy) == ("warning", "let NTP set it")
    assert re.fullmatch(r"the site's clock is (59|60|61) s behind the coordinator's", found.what)
    for seconds, words in ((-600, "600 s behind"), (60, "60 s ahead of")):
        (found,) = off(seconds)
        address = world.coordinator.config.address
        assert (found.severity, found.what) == (
            "error",
            f"{address}: the site's clock is {words} the coordinator's",
        )
