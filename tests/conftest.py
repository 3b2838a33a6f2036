"""One thread per process, as in production, and the small synthetic cohort that many tests share."""

import server.simulation.environment  # noqa: F401  (before torch)

# isort: split
from pathlib import Path

import pytest
import torch

from tests.federation import Cohort, make_small_cohort

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
