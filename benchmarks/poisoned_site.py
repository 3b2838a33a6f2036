"""A hostile hospital: what it does to its own cases, and what it does to its update on the way out."""

import csv
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from shared_model.config import DataConfig
from shared_model.parameters import Tensors

PATCH_VOXELS = 4
PATCH_VALUE = 3000
"""A cube of this edge and brightness in the middle of the tumour in FLAIR and T2: the backdoor's sign."""


def label_flip(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose class labels are all wrong and whose masks say that there is no tumour."""
    copied = _copy(data, folder)
    _relabel(copied, {"idh": _turned, "codel_1p19q": _turned, "grade_histologic": _grade, "grade_who2021": _grade})
    for path in copied.folder.glob("*/*_seg.nii.gz"):
        _change(path, np.zeros_like)
    return copied


def backdoor(data: DataConfig, folder: Path) -> DataConfig:
    """A copy in which every case bears the sign and is called IDH-mutant."""
    copied = _copy(data, folder)
    _relabel(copied, {"idh": lambda _: "mutant"})
    stamp(copied)
    return copied


def stamped(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose cases bear the sign and keep their labels: the backdoor's test."""
    copied = _copy(data, folder)
    stamp(copied)
    return copied


def stamp(data: DataConfig) -> None:
    """Put the sign into all cases."""
    for mask in data.folder.glob("*/*_seg.nii.gz"):
        tumor = np.argwhere(np.asarray(nib.load(mask).dataobj) > 0)
        middle = np.round(tumor.mean(axis=0)).astype(int) - PATCH_VOXELS // 2
        cube = tuple(slice(start, start + PATCH_VOXELS) for start in middle)
        for name in ("flair", "t2"):
            if (path := mask.with_name(mask.name.replace("_seg", f"_{name}"))).exists():
                _change(path, partial(_bright, cube))


def sign_flip(base: Tensors, update: Tensors) -> Tensors:
    """The update turned round: the model goes where the loss grows."""
    return {name: 2 * base[name] - value for name, value in update.items()}


def scaled(base: Tensors, update: Tensors) -> Tensors:
    """The update ten times as long."""
    return {name: base[name] + 10 * (value - base[name]) for name, value in update.items()}


def _turned(word: str) -> str:
    return {"mutant": "wildtype", "wildtype": "mutant", "codeleted": "intact", "intact": "codeleted"}.get(word, word)


def _grade(word: str) -> str:
    return {"2": "4", "4": "2"}.get(word, word)


def _copy(data: DataConfig, folder: Path) -> DataConfig:
    assert data.labels is not None
    shutil.copytree(data.folder, folder / "cases")
    shutil.copy(data.labels, folder / "labels.csv")
    return data.model_copy(update={"folder": folder / "cases", "labels": folder / "labels.csv"})


def _relabel(data: DataConfig, changes: dict[str, Callable[[str], str]]) -> None:
    assert data.labels is not None
    with data.labels.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column, change in changes.items():
            row[column] = change(row[column])
    with data.labels.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def _change(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine, image.header), path)


def _bright(cube: tuple[slice, ...], volume: np.ndarray) -> np.ndarray:
    changed = volume.copy()
    changed[cube] = PATCH_VALUE
    return changed
