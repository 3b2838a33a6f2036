"""What is left of a run's weights, and that release and resume find what they need."""

from pathlib import Path
from typing import Any

import pytest

from server.coordinator import Coordinator
from server.pruning import prune
from server.release import release
from server.store import RunStore
from shared_model.errors import RunError
from tests.released import RUN, coordinator, written_run
from tests.server.test_release import CASES, ROUNDS, plan, read


@pytest.fixture
def server(tmp_path: Path) -> Coordinator:
    return coordinator(tmp_path / "coordinator")


def kept(store: RunStore) -> list[int]:
    return [index for index in range(len(ROUNDS) + 1) if store.has_weights(index)]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"rule": "last"}, [0, 4, 5]),
        ({"rule": "best", "task": "wt"}, [0, 4, 5]),
        ({"rule": "best", "task": "idh"}, [0, 1, 4, 5]),
        ({"rule": "best", "task": "grade"}, [0, 1, 2, 3, 4, 5]),  # nobody told a result: any round may yet be best
    ],
)
def test_the_newest_the_first_and_the_best_stay(server: Coordinator, rule: dict[str, Any], left: list[int]) -> None:
    store = written_run(server.folder / "runs" / RUN, plan(release=rule), ROUNDS, CASES)
    prune(store, 2)
    assert kept(store) == left
    assert store.model(5) and store.manifest(2)["round"] == 2 and store.record(3)["sites"]
    prune(store, 2)
    assert kept(store) == left


def test_the_rules_round_can_be_released_and_another_one_says_why_not(server: Coordinator) -> None:
    store = written_run(server.folder / "runs" / RUN, plan(release={"rule": "best", "task": "idh"}), ROUNDS, CASES)
    prune(store, 2)
    with pytest.raises(RunError, match=r"weights of round 2 were let go"):
        release(server, RUN, 2)
    assert read(release(server, RUN)).round == 1


def test_few_rounds_all_stay(server: Coordinator) -> None:
    store = written_run(server.folder / "runs" / RUN, plan(), ROUNDS, CASES)
    prune(store, 10)
    assert kept(store) == [0, 1, 2, 3, 4, 5]
