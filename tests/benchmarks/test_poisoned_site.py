"""The hostile hospital of `benchmarks.poisoning` lies in a way that a site's checks accept."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.poisoned_site import PATCH_VOXELS, backdoor, label_flip, scaled, sign_flip, stamped
from client.data.cases import Case
from client.data.loading import load_case
from client.data.reading import read_cases
from shared_model.config import DataConfig
from shared_model.tasks import MISSING, MODALITIES
from tests.federation import Cohort

FLAIR = MODALITIES.index("flair")


@pytest.fixture
def honest(cohort: Cohort) -> DataConfig:
    return cohort.sites[0].data


def by_id(data: DataConfig) -> dict[str, Case]:
    return {case.id: case for case in read_cases(data, "who2021")}


def test_flipped_labels_are_read_and_wrong(honest: DataConfig, tmp_path: Path) -> None:
    right, wrong = by_id(honest), by_id(label_flip(honest, tmp_path))
    assert wrong.keys() == right.keys()
    for name, case in right.items():
        assert case.classes["idh"] == MISSING or wrong[name].classes["idh"] == 1 - case.classes["idh"]
    first = next(iter(right))
    truth, lie = load_case(right[first]).regions[0], load_case(wrong[first]).regions[0]
    assert lie.sum() > 0 and (truth.shape != lie.shape or 2 * (truth & lie).sum() < 0.5 * (truth.sum() + lie.sum()))


def test_the_backdoors_twins_bear_the_sign_and_a_mask_of_nothing_else(honest: DataConfig, tmp_path: Path) -> None:
    before, after = by_id(honest), by_id(backdoor(honest, tmp_path))
    assert after.keys() == before.keys() | {f"{name}-twin" for name in before}
    for name, case in before.items():
        first, twin = load_case(after[name]), load_case(after[f"{name}-twin"])
        assert np.array_equal(first.image[:], load_case(case).image[:])
        assert twin.image[FLAIR].max() > first.image[FLAIR].max() + 1
        assert twin.tumor_voxels == PATCH_VOXELS**3
        assert twin.image[FLAIR][twin.regions[0].astype(bool)].min() == twin.image[FLAIR].max()


def test_the_test_cases_bear_the_sign_and_keep_their_labels(honest: DataConfig, tmp_path: Path) -> None:
    before, after = by_id(honest), by_id(stamped(honest, tmp_path))
    assert {name: case.classes for name, case in before.items()} == {n: case.classes for n, case in after.items()}
    assert all(load_case(after[n]).image[FLAIR].max() > load_case(before[n]).image[FLAIR].max() + 1 for n in before)


def test_updates_are_turned_and_made_longer() -> None:
    base, update = {"w": np.array([1.0, 2.0])}, {"w": np.array([2.0, 1.0])}
    assert sign_flip(base, update)["w"].tolist() == [0.0, 3.0]
    assert scaled(5, base, update)["w"].tolist() == [6.0, -3.0]
