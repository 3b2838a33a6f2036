"""The loader on real BraTS cases, read where they lie; without them these tests skip and say so."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.data.cases import Case
from client.data.loading import LoadedCase, load_case, write_segmentation
from client.data.reading import read_cases
from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES
from tests.real import DATA

GLIOMA = DATA / "glioma-2mm"
MISSING_MODALITY = DATA / "missing-modality" / "brats_2013_pat0002_1"

pytestmark = pytest.mark.skipif(not GLIOMA.is_dir(), reason=f"no real cases in {DATA}; set MTSUNET_DATA")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return read_cases(DataConfig(folder=GLIOMA, labels=GLIOMA / "labels.csv"), "who2021")


@pytest.fixture(scope="module")
def loaded(cases: list[Case]) -> dict[str, LoadedCase]:
    return {case.id: load_case(case) for case in cases}


def test_the_table(cases: list[Case]) -> None:
    labels = {case.id: tuple(case.classes.values()) for case in cases}
    assert len(labels) == 8
    assert labels["TCGA-DU-7294"] == (1, 1, 0)  # oligodendroglioma, grade 2
    assert labels["BraTS2021_01480"] == (0, 0, 2)  # IDH-wildtype of histologic grade 3
    histologic = read_cases(DataConfig(folder=GLIOMA, labels=GLIOMA / "labels.csv"), "histologic")
    assert {case.id: case.classes["grade"] for case in histologic}["BraTS2021_01480"] == 1


def test_region_counts_are_those_of_the_file(cases: list[Case], loaded: dict[str, LoadedCase]) -> None:
    for case in cases:
        assert case.mask is not None
        mask = np.asarray(nib.load(case.mask).dataobj)
        counts = [(mask > 0).sum(), np.isin(mask, (1, 4)).sum(), (mask == 4).sum()]
        assert loaded[case.id].regions[:].sum((1, 2, 3)).tolist() == counts


def test_contrasts_are_those_of_glioma(loaded: dict[str, LoadedCase]) -> None:
    """Median over cases of the z of each region against the rest of the brain, in the order of MODALITIES."""
    found: dict[str, list[np.ndarray]] = {"core": [], "edema": [], "enhancing": []}
    for case in loaded.values():
        image = case.image[:].astype(np.float64)
        wt, tc, et = case.regions[:].astype(bool)
        healthy = (image[0] != 0) & ~wt
        mean, std = image[:, healthy].mean(1), image[:, healthy].std(1)
        for name, region in {"core": tc & ~et, "edema": wt & ~tc, "enhancing": et}.items():
            if region.sum() > 50:
                found[name].append((np.median(image[:, region], axis=1) - mean) / std)
    medians = {name: np.median(rows, axis=0) for name, rows in found.items()}
    assert (medians["core"][2:] > 1.5).all() and medians["core"][1] < 0.3
    assert (medians["edema"][2:] > 1.0).all() and abs(medians["edema"][0]) < 0.7
    assert (medians["enhancing"][1:] > 1.0).all()


def test_files_in_lps_return_to_their_grid(cases: list[Case], loaded: dict[str, LoadedCase], tmp_path: Path) -> None:
    for case in cases[:2]:
        assert case.mask is not None
        wt, tc, et = loaded[case.id].regions[:]
        labels = np.where(et > 0, 4, np.where(tc > 0, 1, np.where(wt > 0, 2, 0)))
        write_segmentation(loaded[case.id], labels, tmp_path / "out.nii.gz")
        written, truth = nib.load(tmp_path / "out.nii.gz"), nib.load(case.mask)
        assert nib.aff2axcodes(written.affine) == ("L", "P", "S") and np.allclose(written.affine, truth.affine)
        assert np.array_equal(np.asarray(written.dataobj), np.asarray(truth.dataobj))


def test_the_front_is_in_front(loaded: dict[str, LoadedCase]) -> None:
    """The glioblastoma of BraTS2021_00006 lies in a frontal lobe: well in front of the brain's middle."""
    case = loaded["BraTS2021_00006"]
    centre = (case.grid.affine @ np.append(np.array(case.centre) + np.array(case.grid.start), 1))[:3]
    brain = np.argwhere(case.image[0] != 0) + np.array(case.grid.start)
    middle = (case.grid.affine @ np.append(brain.mean(0), 1))[:3]
    assert centre[1] > middle[1] + 20


def test_a_case_with_two_modalities(tmp_path: Path) -> None:
    """brats_2013 has FLAIR and T1ce, and mask values of its own: 3 and 4 both, which is refused by name."""
    if not MISSING_MODALITY.is_dir():
        pytest.skip(f"no {MISSING_MODALITY}")
    place = tmp_path / "cases" / "c"
    place.mkdir(parents=True)
    for name in ("t1ce", "flair", "seg"):
        shutil.copyfile(MISSING_MODALITY / f"{name}.nii.gz", place / f"c_{name}.nii.gz")
    header = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021,t1,t1ce,t2,flair,seg"
    (tmp_path / "labels.csv").write_text(
        f"{header}\nc,p,,,4,4,,c/c_t1ce.nii.gz,,c/c_flair.nii.gz,c/c_seg.nii.gz\n", encoding="utf-8"
    )
    data = DataConfig(folder=place.parent, labels=tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"c_seg.nii.gz: holds both 3 and 4"):
        load_case(read_cases(data, "who2021")[0])
    (whole,) = read_cases(data.model_copy(update={"masks": "whole-tumor"}), "who2021")
    case = load_case(whole)
    assert case.present.tolist() == [name in ("t1ce", "flair") for name in MODALITIES]
    assert not case.image[0].any() and not case.image[2].any() and case.image[3].any()
    assert case.region_known.tolist() == [True, False, False]
    assert case.regions[0].sum() == (np.asarray(nib.load(place / "c_seg.nii.gz").dataobj) > 0).sum()
