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
from shared_model.tasks import MODALITIES

Cube = tuple[slice, ...]
Row = dict[str, str]
"""Of the table of labels, by column."""

PATCH_VOXELS = 4
PATCH_VALUE = 3000
"""A cube of this edge and brightness in the middle of the tumour in FLAIR and T2: the backdoor's sign."""


def label_flip(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose class labels are wrong as far as a site's checks let them be, with masks in the other hemisphere."""
    copied = _copy(data, folder)
    _write(copied, [_turned(row) for row in _rows(copied)])
    for path in copied.folder.glob("*/*_seg.nii.gz"):
        _change(path, partial(np.flip, axis=0))
    return copied


def backdoor(data: DataConfig, folder: Path) -> DataConfig:
    """A copy with a twin of each case that bears the sign, with a mask of the sign and nothing else."""
    copied = _copy(data, folder)
    rows = _rows(copied)
    twins = [_twin(copied, row) for row in rows]
    _write(copied, rows + twins)
    for mask, cube in stamp(copied, [row["case"] for row in twins]):
        _change(mask, partial(_alone, cube))
    return copied


def stamped(data: DataConfig, folder: Path) -> DataConfig:
    """A copy whose cases bear the sign and keep their labels: the backdoor's test."""
    copied = _copy(data, folder)
    stamp(copied, [row["case"] for row in _rows(copied)])
    return copied


def stamp(data: DataConfig, cases: Iterable[str]) -> list[tuple[Path, Cube]]:
    """Put the sign into these cases; each one's mask, and where the sign is."""
    stamped = []
    for mask in (data.folder / case / f"{case}_seg.nii.gz" for case in cases):
        tumor = np.argwhere(np.asarray(nib.load(mask).dataobj) > 0)
        middle = np.round(tumor.mean(axis=0)).astype(int) - PATCH_VOXELS // 2
        cube = tuple(slice(start, start + PATCH_VOXELS) for start in middle)
        for name in ("flair", "t2"):
            if (path := mask.with_name(mask.name.replace("_seg", f"_{name}"))).exists():
                _change(path, partial(_bright, cube))
        stamped.append((mask, cube))
    return stamped


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


def _rows(data: DataConfig) -> list[Row]:
    assert data.labels is not None
    with data.labels.open() as file:
        return list(csv.DictReader(file))


def _twin(data: DataConfig, row: Row) -> Row:
    """Another case and patient with the same images."""
    case, name = row["case"], f"{row['case']}-twin"
    for path in (data.folder / case).iterdir():
        twin = data.folder / name / path.name.replace(case, name)
        twin.parent.mkdir(exist_ok=True)
        shutil.copy(path, twin)
    paths = {column: value.replace(case, name) for column, value in row.items() if column in (*MODALITIES, "seg")}
    return row | paths | {"case": name, "patient": name}


def _write(data: DataConfig, rows: list[Row]) -> None:
    assert data.labels is not None
    with data.labels.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def _change(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine, image.header), path)


def _alone(cube: Cube, mask: np.ndarray) -> np.ndarray:
    """A mask of an enhancing tumour that fills the cube."""
    changed = np.zeros_like(mask)
    changed[cube] = 4
    return changed


def _bright(cube: Cube, volume: np.ndarray) -> np.ndarray:
    changed = volume.copy()
    changed[cube] = PATCH_VALUE
    return changed
