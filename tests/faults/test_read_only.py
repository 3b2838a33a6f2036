"""Folders that can be read and not written any more, as of a disk that the system has mounted anew after an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.journal import DONE, PAUSED
from tests.faults.table import Tell
from tests.faults.weather import ALL_PRESENT, END_SECONDS, Make
from tests.network.world import wait_for

pytestmark = pytest.mark.faults
OBEYING = {"READ_ONLY": "1"}
"""The processes obey permissions, also as root."""
WRITE = 0o222


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody writes into the folder and what lies in it."""
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*")) if not path.is_symlink()}
    for path, mode in modes.items():
        path.chmod(mode & ~WRITE)
    try:
        yield
    finally:
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)


def test_a_read_only_folder_of_the_run_pauses_it_and_resume_ends_it(make: Make, tell: Tell) -> None:
    world = make(state="selecting", environment=OBEYING)
    world.reached(120)
    with read_only(world.store.folder):
        world.go_on()
        assert world.follower.ends(END_SECONDS) == 3, world.follower.said
        assert "has paused" in world.follower.said and "Traceback" not in world.follower.said
        assert world.status[0] == PAUSED and world.status[1]
        said = world.resume()
        assert said.ends(END_SECONDS) == 3
        assert "Traceback" not in said.said and "mtsunet-server: " in said.said
    assert world.resume().ends(END_SECONDS) == 0
    assert world.status[0] == DONE
    assert world.present() == ALL_PRESENT
    assert set(world.trained().values()) == {1}
    tell("read-only coordinator", "the run pauses; `resume` ends it once it can be written again")


def test_a_site_whose_state_is_read_only_sends_nothing_and_says_so(make: Make, tell: Tell) -> None:
    """What cannot be listed in the site's own audit log does not leave the site."""
    world = make(state="training", environment=OBEYING)
    world.reached(120)
    with read_only(world.folder / "alder" / "state"):
        world.go_on()
        wait_for("the refusal of alder", lambda: [row for row in world.events("refused") if row.site == "alder"])
    refused = world.events("refused")[0]
    assert "/" not in refused.reason and refused.reason
    world.ended()
    assert world.status == (DONE, "")
    assert world.present() == ALL_PRESENT
    tell("read-only site", "nothing leaves that its audit log cannot list; the round names it, and asks again")


@pytest.mark.parametrize("who", ["coordinator", "alder"])
def test_a_start_in_a_read_only_folder_ends_with_one_line(who: str, make: Make, tell: Tell) -> None:
    world = make(plan={"rounds": 1}, environment=OBEYING)
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    running = world.server if who == "coordinator" else world.clients[who]
    running.stop()
    config = world.folder / "alder" / "config.yaml"
    with read_only(world.folder / "coordinator" if who == "coordinator" else world.folder / "alder" / "state"):
        if who == "coordinator":
            again = world._start("server", "server.cli", "serve", "--folder", str(world.coordinator.folder))
        else:
            again = world.join(config)
        assert again.ends(60) == 3
    lines = again.said.strip().splitlines()
    assert len(lines) == 1 and any(words in lines[0] for words in ("ermission denied", "readonly")), again.said
    tell("read-only start", "one line that names the folder, exit 3")
