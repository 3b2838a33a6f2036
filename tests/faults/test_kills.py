"""Kills in the second of three rounds, with real processes over TLS: `make test-kills`, and `make test-faults` for all.

Two sites, and a round needs both. After the kill, what a service manager would start is started again; then the run
ends by itself, or pauses with a reason and ends by one `mtsunet-server resume`.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.journal import DONE, RUNNING
from tests.faults.cells import CHOSEN, CLIENT, POSSIBLE, WORKER, Cell
from tests.faults.table import PROPERTY, Outcome
from tests.faults.world import ROUNDS, SITES, KillWorld, make_template
from tests.federation import Cohort
from tests.network.world import wait_for

EXIT_RUN = 3
REACH_SECONDS = 120.0
END_SECONDS = 240.0
"""For the run to end or to pause, and for a resumed one to end."""


@pytest.fixture(scope="session")
def template(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(cohort, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def unbroken(template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The digest of each round's model in a run that nothing disturbs."""
    world = KillWorld(template, tmp_path_factory.mktemp("unbroken") / "world", "")
    try:
        world.begin()
        assert world.follower.ends(REACH_SECONDS + END_SECONDS) == 0, world.follower.said
        assert set(world.trained().values()) == {1}
        return [sha for _, sha in world.committed().values()]
    finally:
        world.close()


@pytest.fixture
def world(cell: Cell, template: Path, unbroken: list[str], tmp_path: Path) -> Iterator[KillWorld]:
    world = KillWorld(template, tmp_path / "world", cell.state)
    try:
        world.begin()
        yield world
    finally:
        world.close()


def end(world: KillWorld) -> bool:
    """Wait for the run's end; whether it had to be resumed. A run that does not end says why."""
    if (code := world.follower.ends(END_SECONDS)) == EXIT_RUN:
        assert "mtsunet-server: " in world.follower.said, world.follower.said
        state, reason = wait_for("end or pause", lambda: (now := world.status)[0] != RUNNING and now, END_SECONDS)
        if state == DONE:
            return False
        assert reason, world.follower.said
        again = world.resume()
        assert again.ends(END_SECONDS) == 0, f"{world.follower.said}\n{again.said}"
        return True
    assert code == 0, world.follower.said
    return False


@pytest.mark.faults
@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=cell.name, marks=[pytest.mark.kills] if cell in CHOSEN else []) for cell in POSSIBLE],
)
def test_a_run_survives_the_kill(
    cell: Cell, world: KillWorld, unbroken: list[str], record_property: Callable[[str, object], None]
) -> None:
    world.reached(REACH_SECONDS)
    before, killed = world.committed(), time.monotonic()
    world.kill(cell.process)
    world.restart(cell.process)
    resumed = end(world)
    seconds = time.monotonic() - killed

    assert world.status == (DONE, "")
    after = world.committed()
    assert len(after) == 1 + ROUNDS and before.items() <= after.items()
    rounds = [event.round for event in world.events("committed")]
    assert len(rounds) == len(set(rounds)), f"committed twice: {rounds}"
    trained = world.trained()
    assert len(trained) == len(SITES) * ROUNDS and set(trained.values()) == {1}, trained
    equal = [sha for _, sha in after.values()] == unbroken
    assert equal or cell.process in (CLIENT, WORKER)
    outcome = Outcome(state=cell.state, process=cell.process, resumed=resumed, seconds=seconds, equal=equal)
    record_property(PROPERTY, outcome.model_dump_json())
