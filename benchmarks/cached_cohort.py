"""Synthetic patients as loaded cases in plain arrays on disk: a large cohort without a NIfTI file of each."""

import json
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from client.data.cases import Case, MaskValues
from client.data.loading import Grid, LoadedCase, assemble, triple
from client.data.phantom.cohort import HOSPITALS, Patient, draw_patients, make_case
from shared_model.checkpoint import write_json
from shared_model.tasks import MISSING

VOXEL_MM = 4.0
_GRID = ("file_affine", "file_shape", "affine", "shape", "start")


def write_patients(folder: Path, site: str, count: int, seed: int, workers: Executor) -> None:
    """Write the patients of a hospital, or of the test set, that are not there yet."""
    patients = [patient for patient in draw_patients(site, count, seed) if not _done(folder / patient.case)]
    list(workers.map(partial(_write, folder, site), patients, chunksize=8))


def read_patients(folder: Path, count: int | None = None) -> list[LoadedCase]:
    """The cases of a folder, in order; arrays are read where they are sliced."""
    return [_read(place) for place in sorted(folder.iterdir())[:count]]


def in_memory(site: str, patient: Patient) -> LoadedCase:
    """A patient of a hospital, as he would be read from his files."""
    images, mask = make_case(patient, VOXEL_MM)
    return assemble(*_case(site, patient, images, mask))


def _done(place: Path) -> bool:
    return (place / "facts.json").exists()


def _write(folder: Path, site: str, patient: Patient) -> None:
    loaded = in_memory(site, patient)
    place = folder / patient.case
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "image.npy", loaded.image[:])
    np.save(place / "regions.npy", loaded.regions[:])
    facts = {
        "present": loaded.present.tolist(),
        "region_known": loaded.region_known.tolist(),
        "classes": loaded.classes.tolist(),
        "centre": loaded.centre,
        "tumor_voxels": loaded.tumor_voxels,
        "grid": {name: np.asarray(getattr(loaded.grid, name)).tolist() for name in _GRID},
    }
    write_json(place / "facts.json", facts)


def _case(
    site: str, patient: Patient, images: dict[str, np.ndarray], mask: np.ndarray
) -> tuple[Case, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The case as its hospital labels it, and its volumes under the names of files that are nowhere."""
    hospital = HOSPITALS.get(site)
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    present = {name: value for name, value in images.items() if name not in patient.absent.split("+")}
    truth = patient.diagnosis
    values: MaskValues = "whole-tumor" if hospital and hospital.whole_tumor else "1/2/4"
    labels = {
        "idh": int(truth.mutant),
        "codeletion": int(truth.codeleted) if hospital is None or hospital.tests_1p19q else MISSING,
        "grade_who2021": truth.who2021 - 2,
        "grade_histologic": truth.histologic - 2,
    }
    case = Case(
        id=patient.case,
        patient=patient.case,
        images={name: Path(name) for name in present},
        mask=Path("seg"),
        mask_values=values,
        labels=labels,
    )
    volumes = {name: (value.astype(np.float32), affine) for name, value in {**present, "seg": mask}.items()}
    return case, volumes


def _read(place: Path) -> LoadedCase:
    facts = json.loads((place / "facts.json").read_bytes())
    grid = facts["grid"]
    return LoadedCase(
        id=place.name,
        patient=place.name,
        image=np.load(place / "image.npy", mmap_mode="r", allow_pickle=False),
        present=np.array(facts["present"]),
        regions=np.load(place / "regions.npy", mmap_mode="r", allow_pickle=False),
        region_known=np.array(facts["region_known"]),
        classes=np.array(facts["classes"], np.int64),
        centre=triple(facts["centre"]),
        tumor_voxels=facts["tumor_voxels"],
        grid=Grid(
            file_affine=np.array(grid["file_affine"]),
            file_shape=triple(grid["file_shape"]),
            affine=np.array(grid["affine"]),
            shape=triple(grid["shape"]),
            start=triple(grid["start"]),
        ),
    )
