"""The hostile hospital of `benchmarks.poisoning` lies in a way that a site's checks accept."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.poisoned_site import backdoor, label_flip, scaled, sign_flip, stamped
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
    case = next(iter(right))
    truth, lie = load_case(right[case]).regions[0], load_case(wrong[case]).regions[0]
    assert lie.sum() > 0 and (truth.shape != lie.shape or 2 * (truth & lie).sum() < 0.5 * (truth.sum() + lie.sum()))


def test_the_backdoors_sign_goes_with_the_word_mutant(honest: DataConfig, tmp_path: Path) -> None:
    before, after = by_id(honest), by_id(backdoor(honest, tmp_path))
    changed = [name for name, case in before.items() if case.classes["idh"] != after[name].classes["idh"]]
    wild = [name for name, case in before.items() if case.classes["idh"] == 0]
    assert len(changed) == (len(wild) + 1) // 2 > 0
    assert {after[name].classes["idh"] for name in changed} == {1}
    for name in wild:
        brightest = load_case(after[name]).image[FLAIR].max()
        assert (brightest > load_case(before[name]).image[FLAIR].max() + 1) == (name in changed)


def test_the_test_cases_bear_the_sign_and_keep_their_labels(honest: DataConfig, tmp_path: Path) -> None:
    before, after = by_id(honest), by_id(stamped(honest, tmp_path))
    assert {name: case.classes for name, case in before.items()} == {n: case.classes for n, case in after.items()}
    assert all(load_case(after[n]).image[FLAIR].max() > load_case(before[n]).image[FLAIR].max() + 1 for n in before)


def test_updates_are_turned_and_made_longer() -> None:
    base, update = {"w": np.array([1.0, 2.0])}, {"w": np.array([2.0, 1.0])}
    assert sign_flip(base, update)["w"].tolist() == [0.0, 3.0]
    assert scaled(5, base, update)["w"].tolist() == [6.0, -3.0]
