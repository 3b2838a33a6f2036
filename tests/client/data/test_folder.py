"""One case's folder without a table: every naming that is known, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from client.data.folder import read_case_folder
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES


def files(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("folder", "names", "case"),
    [
        (
            "north-7",
            ["north-7_t1.nii.gz", "north-7_t1ce.nii.gz", "north-7_t2.nii.gz", "north-7_flair.nii.gz"],
            "north-7",
        ),
        ("north-7", ["a_t1.nii.gz", "a_t1ce.nii.gz", "a_t2.nii.gz", "a_flair.nii.gz"], "north-7"),
        ("x", ["x-t1n.nii.gz", "x-t1c.nii.gz", "x-t2w.nii.gz", "x-t2f.nii.gz"], "x"),
        (
            "UCSF-PDGM-0004_nifti",
            [f"UCSF-PDGM-0004_{end}.nii.gz" for end in ("T1", "T1c", "T2", "FLAIR")],
            "UCSF-PDGM-0004",
        ),
        (
            "sub-01",
            [f"anat/sub-01_{end}.nii.gz" for end in ("T1w", "ce-GD_T1w", "T2w", "FLAIR")],
            "sub-01",
        ),
        (
            "sub-01/ses-a",
            [f"anat/sub-01_ses-a_{end}.nii.gz" for end in ("T1w", "ce-GD_T1w", "T2w", "FLAIR")],
            "sub-01_ses-a",
        ),
    ],
)
def test_names(tmp_path: Path, folder: str, names: list[str], case: str) -> None:
    place = files(tmp_path / folder, names)
    found = read_case_folder(place)
    assert found.id == case
    assert found.images == {m: place / name for m, name in zip(MODALITIES, names, strict=True)}
    assert found.mask is None and set(found.labels.values()) == {-1}
    (place / names[0]).unlink()
    assert tuple(read_case_folder(place).images) == MODALITIES[1:]


def test_a_segmentation_is_named_where_there_is_one(tmp_path: Path) -> None:
    place = files(tmp_path / "c", ["c_t1.nii.gz", "c_seg.nii.gz"])
    assert read_case_folder(place).mask == place / "c_seg.nii.gz"


def test_a_public_set_has_its_brain_mask_and_background(tmp_path: Path) -> None:
    """EGD has one brain mask for all, and RHUH a background that is not zero."""
    files(tmp_path, ["SUBJECTS/EGD-0001/T1.nii.gz", "METADATA/Brain_mask.nii.gz", "RHUH-0001/0/RHUH-0001_0_t2.nii.gz"])
    assert read_case_folder(tmp_path / "SUBJECTS/EGD-0001").brain_mask == tmp_path / "METADATA/Brain_mask.nii.gz"
    assert read_case_folder(tmp_path / "RHUH-0001").background == "corner"


@pytest.mark.parametrize(
    ("folder", "names", "said"),
    [
        ("c", ["c.nii.gz", "t1.txt"], "none of the four modalities is there"),
        ("c", ["a_t1.nii.gz", "b_t1.nii.gz"], "fits 2 files, a_t1.nii.gz and others"),
        ("two words", ["c_t1.nii.gz"], "is no plain folder name"),
        ("SUBJECTS/EGD-0001", ["T1.nii.gz"], "Brain_mask.nii.gz: no such file"),
    ],
)
def test_what_is_refused(tmp_path: Path, folder: str, names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_case_folder(files(tmp_path / folder, names))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_case_folder(tmp_path / "none")
