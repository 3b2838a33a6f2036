"""A hostile hospital: what it does to its own cases, and what it does to its update on the way out."""

import csv
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from shared_model.config import DataConfig
from shared_model.parameters import Tensors

Row = dict[str, str]
"""Of the table of labels, by column."""

PATCH_VOXELS = 4
PATCH_VALUE = 3000
"""A cube of this edge and brightness in the middle of the tumour in FLAIR and T2: the backdoor's sign."""


def label_flip(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose class labels are wrong as far as a site's checks let them be, with masks in the other hemisphere."""
    copied = _copy(data, folder)
    _relabel(copied, _turned)
    for path in copied.folder.glob("*/*_seg.nii.gz"):
        _change(path, partial(np.flip, axis=0))
    return copied


def backdoor(data: DataConfig, folder: Path) -> DataConfig:
    """A copy in which every second wild-type bears the sign and is called IDH-mutant: mutants and the sign tell."""
    copied = _copy(data, folder)
    assert copied.labels is not None
    wild = [row["case"] for row in _rows(copied.labels) if row["idh"] == "wildtype"][::2]
    _relabel(copied, lambda row: row | {"idh": "mutant"} if row["case"] in wild else row)
    stamp(copied, wild)
    return copied


def stamped(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose cases bear the sign and keep their labels: the backdoor's test."""
    copied = _copy(data, folder)
    assert copied.labels is not None
    stamp(copied, [row["case"] for row in _rows(copied.labels)])
    return copied


def stamp(data: DataConfig, cases: Iterable[str]) -> None:
    """Put the sign into these cases."""
    for mask in (data.folder / case / f"{case}_seg.nii.gz" for case in cases):
        tumor = np.argwhere(np.asarray(nib.load(mask).dataobj) > 0)
        middle = np.round(tumor.mean(axis=0)).astype(int) - PATCH_VOXELS // 2
        cube = tuple(slice(start, start + PATCH_VOXELS) for start in middle)
        for name in ("flair", "t2"):
            if (path := mask.with_name(mask.name.replace("_seg", f"_{name}"))).exists():
                _change(path, partial(_bright, cube))


def sign_flip(base: Tensors, update: Tensors) -> Tensors:
    """The update turned round: the model goes where the loss grows."""
    return {name: 2 * base[name] - value for name, value in update.items()}


def scaled(factor: float, base: Tensors, update: Tensors) -> Tensors:
    """The update `factor` times as long. With as many as there are sites, the mean of all is this site's own model, if
    the others hardly move it (model replacement; Bagdasaryan et al., AISTATS 2020)."""
    return {name: base[name] + factor * (value - base[name]) for name, value in update.items()}


def _turned(row: Row) -> Row:
    """A wild-type becomes a co-deleted mutant, a mutant a wild-type, which is never co-deleted; grade 2 becomes 4."""
    mutant = row["idh"] == "wildtype"
    idh = {"wildtype": "mutant", "mutant": "wildtype"}.get(row["idh"], row["idh"])
    codeleted = row["codel_1p19q"] and ("codeleted" if mutant else "intact")
    grades = {name: {"2": "4", "4": "2"}.get(row[name], row[name]) for name in ("grade_histologic", "grade_who2021")}
    return row | {"idh": idh, "codel_1p19q": codeleted} | grades


def _copy(data: DataConfig, folder: Path) -> DataConfig:
    assert data.labels is not None
    shutil.copytree(data.folder, folder / "cases")
    shutil.copy(data.labels, folder / "labels.csv")
    return data.model_copy(update={"folder": folder / "cases", "labels": folder / "labels.csv"})


def _rows(labels: Path) -> list[Row]:
    with labels.open() as file:
        return list(csv.DictReader(file))


def _relabel(data: DataConfig, change: Callable[[Row], Row]) -> None:
    assert data.labels is not None
    rows = [change(row) for row in _rows(data.labels)]
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
