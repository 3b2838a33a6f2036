"""A disk that takes no more, at the coordinator and at a site; and what many rounds leave on it.

The limit on the size of a file (RLIMIT_FSIZE) is the kernel's own refusal to write, as on a full disk, and needs no
rights; a test lays it on one process, and whatever is started next is free of it.
"""

import resource
from functools import partial
from pathlib import Path

import psutil
import pytest

from server.journal import DONE, PAUSED
from tests.faults.table import Tell
from tests.faults.weather import ALL_PRESENT, END_SECONDS, Make, Weather
from tests.faults.world import SITES
from tests.network.world import wait_for
from tests.processes import message_processes

pytestmark = pytest.mark.faults
FEW_BYTES = 100_000
MANY = 20
EARLY, LATE = range(4, 9), range(MANY - 4, MANY + 1)
GROWTH = 1.15
"""From the early rounds to the late ones."""


def fill(process: int) -> None:
    """From now on, this process writes no file beyond a few bytes."""
    psutil.Process(process).rlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, resource.RLIM_INFINITY))


def test_a_full_disk_at_the_coordinator_pauses_the_run_and_says_so(make: Make, tell: Tell) -> None:
    world = make(state="selecting")
    fill(world.reached(120))
    world.go_on()
    assert world.follower.ends(END_SECONDS) == 3, world.follower.said
    state, reason = world.status
    assert state == PAUSED and "cannot write" in reason and "/" not in reason
    assert world.store.last_round() == 1
    assert world.resume().ends(END_SECONDS) == 0
    assert world.status[0] == DONE
    assert world.present() == ALL_PRESENT
    assert set(world.trained().values()) == {1}
    tell("full coordinator", "the run pauses and says so; `resume` ends it, and no answer is made twice")


def test_a_full_disk_at_a_site_is_its_refusal_and_the_next_attempt_goes_through(make: Make, tell: Tell) -> None:
    world = make(state="training")
    fill(world.reached(120))
    world.go_on()
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    assert world.present() == ALL_PRESENT
    (refused,) = [row for row in world.events("refused") if row.site == "alder"]
    assert "OSError" in refused.reason and "/" not in refused.reason
    answers = world.folder / "alder" / "state" / "answers"
    assert not list(answers.glob("*/.*.part"))
    tell("full site", "it declines by its kind of error, and the round asks again")


def test_twenty_rounds_grow_nothing(make: Make, tell: Tell) -> None:
    """Memory, open files and disk of all that lives through the rounds: the least of five early rounds and of the last.

    A model of 16 MB that stayed from each round would be a third more; what the allocator keeps comes and goes.
    """
    world = make(plan={"rounds": MANY}, settings={"keep_rounds": 2})
    measured: dict[str, list[float]] = {}

    def reached(index: int) -> bool:
        assert world.follower.process.poll() is None or world.store.last_round() == MANY, world.follower.said
        return world.store.last_round() >= index

    for window in (EARLY, LATE):
        least: dict[str, float] = {}
        for index in window:
            wait_for(f"round {index}", partial(reached, index), END_SECONDS)
            for name, value in _all_sizes(world).items():
                least[name] = min(value, least.get(name, value))
        for name, value in least.items():
            measured.setdefault(name, []).append(value)
    assert world.follower.ends(END_SECONDS) == 0
    grown = {name: values for name, values in measured.items() if values[1] > GROWTH * values[0] + 5}
    assert not grown
    sizes = (f"{name} {before:.0f} -> {after:.0f}" for name, (before, after) in measured.items() if "birch" not in name)
    tell("many rounds", f"least of rounds 4 to 8 and of 16 to 20, MB and open files: {', '.join(sizes)}")


def _all_sizes(world: Weather) -> dict[str, float]:
    """Of the coordinator and of each site."""
    places = {"coordinator": (world.server, world.coordinator.folder)}
    places |= {site: (world.clients[site], world.folder / site / "state") for site in SITES}
    return {
        f"{who} {name}": value
        for who, (running, folder) in places.items()
        for name, value in _sizes(running.process.pid, folder).items()
    }


def _sizes(process: int, folder: Path) -> dict[str, float]:
    """MB of memory of the processes that live through the rounds, their open files, and MB on disk."""
    top = psutil.Process(process)
    passing = message_processes(top)
    family = [top, *(child for child in top.children(recursive=True) if child not in passing and _lives(child))]
    return {
        "memory": sum(one.memory_info().rss for one in family) / 1e6,
        "files": sum(one.num_fds() for one in family),
        "disk": sum(_bytes(path) for path in folder.rglob("*")) / 1e6,
    }


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # a part that has its name by now
        return 0
