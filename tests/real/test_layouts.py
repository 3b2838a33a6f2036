"""Every public data set's layout, BIDS and a manifest, built from the same real cases, give the same tensors."""

from pathlib import Path

import numpy as np
import pytest

from client.data.datasets import datasets
from client.data.loading import LoadedCase, load_case
from client.data.reading import read
from shared_model.config import DataConfig
from shared_model.tasks import MISSING
from tests.layouts import CASES, LABELS, LAYOUTS
from tests.real import real_data

WHOLE_TUMOR = ("egd",)
UNTESTED = ("upenn-gbm", "rhuh-gbm")
"""Sets without 1p/19q, all of grade 4."""


@pytest.fixture(scope="module")
def truth() -> list[LoadedCase]:
    folder = real_data("glioma-2mm")
    data = DataConfig(folder=folder, labels=folder / "labels.csv", cases=CASES)
    return [load_case(case) for case in sorted(read(data).require(), key=lambda case: case.id)]


def test_every_described_data_set_is_built_here() -> None:
    assert set(LAYOUTS) == {*datasets(), "bids", "manifest"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_anatomy_gives_the_same_tensor(layout: str, truth: list[LoadedCase], tmp_path: Path) -> None:
    reading = read(LAYOUTS[layout](tmp_path / "NIfTI"), "histologic" if layout != "ucsf-pdgm" else "who2021")
    cases = reading.require()
    assert len(cases) == len(CASES) and not [f for f in reading.findings if f.severity == "warning"]
    for case, real, name in zip(cases, truth, CASES, strict=True):
        loaded = load_case(case)
        if layout == "rhuh-gbm":  # z-scored once more: equal to the rounding of float16
            np.testing.assert_allclose(loaded.image[:], real.image[:], atol=5e-3, rtol=2e-3)
        elif layout == "egd":  # one brain mask for all: cut to another box, voxels equal
            assert loaded.present.all()
        else:
            assert np.array_equal(loaded.image[:], real.image[:])
        known = (True, False, False) if layout in WHOLE_TUMOR else (True, True, True)
        assert tuple(loaded.region_known) == known
        for index, is_known in enumerate(known):
            assert loaded.regions[index].sum() == (real.regions[index].sum() if is_known else 0)
        words = LABELS[name]
        assert case.classes["idh"] == (words["idh"] == "mutant")
        if layout in UNTESTED:
            assert (case.classes["codeletion"], case.classes["grade"]) == (MISSING, 2)
        else:
            assert case.classes["codeletion"] == (words["codel_1p19q"] == "codeleted")
            assert case.classes["grade"] == int(words["grade_histologic"]) - 2


def test_egd_is_skull_stripped_by_its_mask(truth: list[LoadedCase], tmp_path: Path) -> None:
    for case, real in zip(read(LAYOUTS["egd"](tmp_path)).require(), truth, strict=True):
        loaded = load_case(case)
        offset = np.array(real.grid.start) - np.array(loaded.grid.start)
        inner = tuple(slice(o, o + s) for o, s in zip(offset, real.image.shape[1:], strict=True))
        np.testing.assert_allclose(loaded.image[:, *inner], real.image[:], atol=5e-3)


def test_ids_and_left_out_exams(tmp_path: Path) -> None:
    reading = read(LAYOUTS["upenn-gbm"](tmp_path))
    assert [case.id for case in reading.cases] == [f"UPENN-GBM-0000{n}_11" for n in (1, 2, 3)]
    assert [case.patient for case in reading.cases] == [f"UPENN-GBM-0000{n}" for n in (1, 2, 3)]
    assert {left.why for left in reading.left_out} == {"a follow-up scan after surgery"}
    assert len(reading.left_out) == 2  # the folder and its row
    assert reading.cases[0].mask is not None and "images_segm" in str(reading.cases[0].mask)
    assert reading.cases[1].mask is not None and "automated_segm" in str(reading.cases[1].mask)
