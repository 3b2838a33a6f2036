"""A coordinator's folder is backed up and restored as docs/coordinator.md says, and a site changes its key as
docs/hospital.md says: no site is locked out, and no invitation is written anew.
"""

import shutil

import numpy as np
import pytest

from client.audit import AuditLog
from client.config import load_site
from client.connection import RefusedHereError, hello
from server.conduct import Heads
from shared_model.checkpoint import read_model
from shared_model.signing import read_site_key
from tests.network.interrupted import DONE, PLAN, Interrupted
from tests.network.world import output_of, wait_for

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def finished(federation: Interrupted) -> Interrupted:
    """Put back from the whole copy; the clients ran all the time, and the run has come to its end."""
    world, run, before = federation.world, federation.run, federation.store.model(1)
    federation.put_back(federation.cold)
    world.connected(*PLAN["sites"])
    row = next(line for line in world.command("runs").splitlines() if run in line)
    assert "paused" in row and "1 of 2" in row
    after = federation.store.model(1)
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    said = world.command("resume", run)
    assert DONE in said and "round 2 of 2: asked birch\n" in said
    return federation


def test_a_restored_run_goes_on_with_the_replies_that_it_had(finished: Interrupted) -> None:
    assert sorted(finished.store.record(2)["sites"]) == ["alder", "birch"]
    assert finished.asked_to_train("alder") == [(finished.run, 1), (finished.run, 2)]
    assert all(client.process.poll() is None for client in finished.clients.values())
    for name in ("release.key", "admin.token", "authority/ca.key"):
        assert (finished.world.coordinator.folder / name).stat().st_mode & 0o077 == 0, name


def test_what_is_released_after_a_restore_is_genuine_by_the_key_that_was_pinned(finished: Interrupted) -> None:
    world, run = finished.world, finished.run
    world.command("release", run)
    assert "genuine, and here" in world.client("alder", "models", "--get", run)
    fetched, final = read_model(finished.state("alder") / "models" / run), finished.store.model(2)
    assert fetched.keys() == final.keys() and all(np.array_equal(fetched[name], final[name]) for name in final)


@pytest.fixture(scope="module")
def rotated(finished: Interrupted) -> Interrupted:
    """birch has made a new key, and the coordinator enrolled it; the client with the old one has ended by itself."""
    folder = finished.world.folder
    made = output_of(["client.cli", "init", "birch", "--folder", str(folder / "new")])
    fingerprint = made.strip().splitlines()[-1].split()[-1]
    said = finished.world.command("enrol", "birch", str(folder / "new" / "site.pub"), "--replace")
    assert f"enrolled birch, key {fingerprint}:" in said
    assert finished.clients["birch"].ends() == 3
    shutil.copy(finished.state("birch") / "site.key", folder / "old.key")
    (folder / "new" / "state" / "site.key").rename(finished.state("birch") / "site.key")
    return finished


def test_the_old_key_is_refused_and_the_new_one_let_in(rotated: Interrupted) -> None:
    world, place = rotated.world, rotated.world.folder / "birch"
    invitation = world.invitation(place / "config.yaml")
    words = "the enrolment of 'birch' was revoked"
    assert words in rotated.clients["birch"].said.splitlines()[-1]
    with pytest.raises(RefusedHereError, match=words):
        hello(invitation, read_site_key(world.folder / "old.key"))
    assert "this key is revoked for 'birch'" in world.command("enrol", "birch", str(place / "site.pub"), code=2)
    written = world.coordinator.folder / "invitations" / "birch.yaml"
    assert written.read_bytes() == (place / "invitation.yaml").read_bytes()

    log = AuditLog(rotated.state("birch"))
    before = log.head
    rotated.join("birch")
    key = read_site_key(load_site(place / "config.yaml").key)
    wait_for("birch connected", lambda: hello(invitation, key).online)
    assert log.contains(before) and log.head != before
    assert "whole" in world.client("birch", "audit", "--verify")


def test_after_an_older_backup_the_sites_take_part_again(rotated: Interrupted) -> None:
    """The coordinator knows less than the sites: round 2 and the release are gone, the heads of the audit logs are
    behind, and birch's key is the one before, until the coordinator does again what was done since.
    """
    world, run = rotated.world, rotated.run
    rotated.put_back(rotated.hot)
    heads = Heads(world.coordinator.folder / "heads.json")
    for site in PLAN["sites"]:
        assert int(heads[site].split(":")[0]) < int(AuditLog(rotated.state(site)).head.split(":")[0])
    assert rotated.store.last_round() == 1 and not rotated.store.closed
    assert world.client("alder", "models") == ""
    assert rotated.clients["birch"].ends() == 3
    assert "this key is not enrolled here" in rotated.clients["birch"].said.splitlines()[-1]
    invitation, old = world.invitation(world.folder / "birch" / "config.yaml"), read_site_key(world.folder / "old.key")
    hello(invitation, old)
    world.command("enrol", "birch", str(world.folder / "new" / "site.pub"), "--replace")
    with pytest.raises(RefusedHereError, match="was revoked"):
        hello(invitation, old)
    rotated.join("birch")
    said = world.command("resume", run)
    assert DONE in said and "round 2 of 2: asked birch\n" in said
    assert [row.site for row in rotated.store.evaluated()] == ["alder", "birch"]
    for site in PLAN["sites"]:
        assert "whole" in world.client(site, "audit", "--verify")
