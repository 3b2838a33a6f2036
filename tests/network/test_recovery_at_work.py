"""The coordinator's folder goes back in time while a site is at work for it."""

import json
import secrets

import pytest

from shared_model.checkpoint import write_bytes
from tests.network.interrupted import DONE, PLAN, Interrupted
from tests.network.world import wait_for


@pytest.mark.long
def test_an_answer_that_nobody_waits_for_any_more_is_kept_and_sent_when_asked_again(federation: Interrupted) -> None:
    """birch's answer to a message of which the restored coordinator knows nothing does not keep birch from working."""
    world, run, state = federation.world, federation.run, federation.state("birch")
    federation.put_back(federation.cold)
    (state / "busy").touch()
    asked = federation.asked_to_train("birch")
    arguments = ["-m", "server.cli", "resume", run, "--folder", str(world.coordinator.folder)]
    follower = world.start("follower", arguments)
    wait_for("birch at work", lambda: federation.asked_to_train("birch") == [*asked, (run, 2)])
    federation.stop()
    assert follower.ends() == 3
    federation.put_back(federation.hot)
    (state / "busy").unlink()
    (made,) = wait_for("birch's answer", lambda: list((state / "answers" / run).glob("0002-*/header.json")))
    answer = json.loads(made.read_text())

    assert DONE in world.command("resume", run)
    assert federation.asked_to_train("birch") == [*asked, (run, 2), (run, 2)]
    del answer["audit"]
    record = federation.store.record(2)["sites"]["birch"]
    assert {**record, **answer} == record  # the seconds that it took among it


@pytest.mark.long
def test_what_can_be_made_anew_is_made_anew(federation: Interrupted) -> None:
    """The table of docs/coordinator.md: with these files lost and its remedies, the sites connect by themselves."""
    world, folder = federation.world, federation.world.coordinator.folder
    federation.stop()
    lost = ["sites.json", "heads.json", "admin.token", "executor.secret", "tls/server.key", "tls/server.crt"]
    for path in [*folder.glob("link.db*"), *(folder / name for name in lost)]:
        path.unlink()
    for name in ("admin.token", "executor.secret"):
        write_bytes(folder / name, secrets.token_hex(32).encode(), mode=0o600)
    world.command("renew")
    for site in PLAN["sites"]:
        world.command("enrol", site, str(world.folder / site / "site.pub"))
    federation.server = world.serve()
    world.connected(*PLAN["sites"])
    for site in PLAN["sites"]:
        written = folder / "invitations" / f"{site}.yaml"
        assert written.read_bytes() == (world.folder / site / "invitation.yaml").read_bytes()
    assert "done" in world.command("runs")
