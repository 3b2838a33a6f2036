"""Kills in the second of three rounds, with real processes over TLS: `make test-kills`, and `make test-faults` for all.

Two sites, and a round needs both. After the kill, what a service manager would start is started again; then the run
ends by itself, or pauses with a reason and ends by one `mtsunet-server resume`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.journal import DONE
from tests.faults.cells import CHOSEN, CLIENT, LOOP, POSSIBLE, SERVER, WORKER, Cell
from tests.faults.table import PROPERTY, Outcome
from tests.faults.world import END_SECONDS, ROUNDS, SITES, KillWorld, make_template
from tests.federation import Cohort

REACH_SECONDS = 120.0


@pytest.fixture(scope="session")
def template(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(cohort, tmp_path_factory.mktemp("template"))


def undisturbed(template: Path, folder: Path, **plan: Any) -> list[str]:
    """The digest of each round's model in a run that nothing disturbs."""
    world = KillWorld(template, folder, "", **plan)
    try:
        world.begin()
        assert world.follower.ends(REACH_SECONDS + END_SECONDS) == 0, world.follower.said
        assert set(world.trained().values()) == {1}
        return [sha for _, sha in world.committed().values()]
    finally:
        world.close()


@pytest.fixture(scope="session")
def unbroken(template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return undisturbed(template, tmp_path_factory.mktemp("unbroken") / "world")


def survived(cell: Cell, template: Path, folder: Path, unbroken: list[str], **plan: Any) -> Outcome:
    """Kill in the cell's state; what the run came to, once all that must hold of it has been looked at."""
    world = KillWorld(template, folder, cell.state, **plan)
    try:
        world.begin()
        world.reached(REACH_SECONDS)
        before, killed = world.committed(), time.monotonic()
        world.kill(cell.process)
        world.restart(cell.process)
        resumed = world.ended()
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
        return Outcome(state=cell.state, process=cell.process, resumed=resumed, seconds=seconds, equal=equal)
    finally:
        world.close()


@pytest.mark.faults
@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=cell.name, marks=[pytest.mark.kills] if cell in CHOSEN else []) for cell in POSSIBLE],
)
def test_a_run_survives_the_kill(
    cell: Cell,
    template: Path,
    unbroken: list[str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    outcome = survived(cell, template, tmp_path / "world", unbroken)
    record_property(PROPERTY, outcome.model_dump_json())


@pytest.mark.faults
@pytest.mark.parametrize(
    ("compression", "cell"),
    [("int8", Cell("committing", LOOP)), ("fp16", Cell("admitting", SERVER))],
    ids=["int8", "fp16"],
)
def test_a_compressed_run_survives_a_kill(compression: str, cell: Cell, template: Path, tmp_path: Path) -> None:
    unbroken = undisturbed(template, tmp_path / "unbroken", compression=compression)
    survived(cell, template, tmp_path / "world", unbroken, compression=compression)
