"""Upgrading a hospital's client: what its state folder holds stays, byte for byte, and a newer folder is left alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from client.audit import AuditLog
from client.join import Joined
from client.migrations import VERSION, migrate, version_of
from client.policy import Approvals
from client.setup import create
from client.state import Answers
from client.withdrawal import Withdrawals
from server.certificates import create_authority
from shared_model import wire
from shared_model.config import Invitation
from shared_model.errors import ConfigError, DataError
from shared_model.scores import SiteScores
from shared_model.skeleton import skeleton
from tests.federation import small_simulation
from tests.network.world import World, free_ports

RUN = "0123456789abcdef"
PLAN = small_simulation().plan
WORK = wire.Work(run=RUN, round=1, plan=PLAN.digest(), base="1" * 64, settings={})
HEAD = f"1:{'a' * 64}"
UPDATE = wire.Update(
    run=RUN, round=1, base="1" * 64, site="north", cases={"wt": 11}, evaluation=SiteScores(), seconds=1.0, audit=HEAD
)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A site's config whose state folder is of version 0: an answer, an approved plan, an audit log, an error log."""
    config = create(tmp_path / "north", "north").config
    state = config.parent / "state"
    Answers(state).keep(WORK, UPDATE, {"w": np.ones(2, np.float32)}, {"step/w": np.full((), 5.0, np.float32)})
    Approvals(state).approve(PLAN)
    for event in ("joined", "sent"):
        AuditLog(state).append(event, {"run": RUN})
    (state / "withdrawals.json").write_text('{"patients": {"ab": []}, "changed": {}, "declined": {}}')
    (state / "errors.log").write_text("2026-01-02 03:04:05Z ValueError\n")
    return config


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_older_folder_keeps_all_that_it_holds(older: Path) -> None:
    state = older.parent / "state"
    before, head = files(state), AuditLog(state).head
    assert version_of(state) == 0
    migrate(state)
    log = before.pop("errors.log")
    assert files(state) == before | {"logs/errors.log": log, "version.json": b'{\n "version": 1\n}\n'}
    assert version_of(state) == VERSION == 1

    kept = Answers(state).find(WORK)
    assert kept is not None and kept[0] == UPDATE and kept[1]["w"].tolist() == [1.0, 1.0]
    assert Answers(state).moments(WORK.model_copy(update={"round": 2}))["step/w"] == 5.0
    Approvals(state).check(PLAN)
    assert AuditLog(state).verify() is None and AuditLog(state).head == head
    assert Withdrawals(state).patients == {"ab": []}

    after = files(state)
    migrate(state)
    assert files(state) == after


def test_an_error_log_in_both_places_is_joined_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "errors.log").write_text("new\n")
    (tmp_path / "errors.log").write_text("old\n")
    migrate(tmp_path)
    assert files(tmp_path) == {"logs/errors.log": b"old\nnew\n", "version.json": b'{\n "version": 1\n}\n'}


def test_a_new_folder_gets_the_version_alone(tmp_path: Path) -> None:
    migrate(tmp_path)
    assert files(tmp_path) == {"version.json": b'{\n "version": 1\n}\n'}


def test_a_migration_that_fails_is_done_again(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version is written once its own migration is done, and the next start goes on there."""
    state = older.parent / "state"
    done: list[int] = []

    def second(state: Path) -> None:
        done.append(version_of(state))
        if len(done) == 1:
            raise OSError("no space left")

    monkeypatch.setattr("client.migrations.MIGRATIONS", (lambda _: None, second))
    monkeypatch.setattr("client.migrations.VERSION", 2)
    with pytest.raises(OSError, match="no space left"):
        migrate(state)
    assert version_of(state) == 1
    migrate(state)
    assert (done, version_of(state)) == ([1, 1], 2)


def test_a_newer_folder_is_refused_before_anything_is_touched(older: Path) -> None:
    state = older.parent / "state"
    (state / "version.json").write_text('{"version": 2}')
    (state / "site.key").write_text("a key of a kind that only the newer release knows")
    before = files(state)
    with pytest.raises(ConfigError) as caught:
        Joined(older, print).run()
    assert caught.value.what == f"{state}: is of version 2, this release knows versions up to 1"
    assert caught.value.remedy == "install the newer release that used it last"
    assert files(state) == before


@pytest.mark.parametrize("text", ["", "{", "1", '{"version": "1"}', '{"version": -1}', '{"version": true}', "{}"])
def test_a_version_that_cannot_be_told_is_refused(older: Path, text: str) -> None:
    state = older.parent / "state"
    (state / "version.json").write_text(text)
    before = files(state)
    with pytest.raises(DataError, match=r"version\.json: cannot be read \(ValidationError\)"):
        migrate(state)
    assert files(state) == before


def test_the_client_migrates_when_it_starts(older: Path, tmp_path: Path) -> None:
    """A real client of this release on the older folder; the coordinator is away."""
    folder = older.parent
    create_authority(tmp_path / "ca.key", tmp_path / "ca.crt")
    authority = (tmp_path / "ca.crt").read_text()
    invitation = Invitation(
        site="north", address=f"127.0.0.1:{free_ports(1)[0]}", authority=authority, release_key="0" * 64
    )
    (folder / "invitation.yaml").write_text(skeleton(invitation))
    older.write_text(older.read_text() + "invitation: invitation.yaml\n")
    before = files(folder / "state")
    world = World(tmp_path)
    try:
        client = world.join(older)
        client.says("Trying again")
        assert client.stop() == 0, client.said
    finally:
        world.close()
    after = files(folder / "state")
    assert json.loads(after.pop("version.json")) == {"version": 1}
    assert json.loads(after.pop("client.json"))["said"] == "stopped"
    assert after.pop("client.lock") == b""
    before["logs/errors.log"] = before.pop("errors.log")
    assert after == before
