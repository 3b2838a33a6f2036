"""One thread per process, as in production, and the small synthetic cohort that many tests share."""

import server.simulation.environment  # noqa: F401  (before torch)

# isort: split
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.federation import Cohort, make_small_cohort

torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

FIRST = (
    *("simulation/test_federation", "network/test_run", "network/test_recovery", "real/test_overlap", "network/"),
    *("preparation/test_prepare",),
)
"""The files that take longest, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((index for index, name in enumerate(FIRST) if name in item.nodeid), len(FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
