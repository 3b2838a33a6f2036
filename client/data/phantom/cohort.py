"""The synthetic cohort on disk: four hospitals and a test set in BraTS 2021 layout. All of it says synthetic."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from client.data.manifest import PATHS
from client.data.phantom.anatomy import grow_brain
from client.data.phantom.diagnosis import Diagnosis, draw_diagnosis, draw_look
from client.data.phantom.scanner import SCANNERS, acquire
from client.data.phantom.tumor import grow_tumor
from shared_model.config import DataConfig, PhantomCohort
from shared_model.errors import DataError
from shared_model.tasks import TASKS

VERSION = 4
"""Raised when the same seed would give other bytes."""
HEADER = ("case", "patient", "idh", "codel_1p19q", "grade_histologic", "grade_who2021", *PATHS)
MISSING_MODALITIES = ("t1", "t2", "t1+t2")


@dataclass(frozen=True)
class Hospital:
    """What one site of the cohort is like.

    Attributes:
        grades: shares of histologic grade 2, 3 and 4 among its patients.
        size: patients, as a share of the largest site's.
        tasks: what it declares to train.
        note: what is special about it, for reports.
        whole_tumor: its masks tell tumour from brain and no more.
        tests_1p19q: its table has 1p/19q results.
        absent: share of cases that lack modalities.
    """

    grades: tuple[float, float, float]
    size: float
    tasks: tuple[str, ...]
    note: str
    whole_tumor: bool = False
    tests_1p19q: bool = True
    absent: float = 0.0


HOSPITALS = {
    "alder": Hospital((0.3, 0.3, 0.4), 1.0, tuple(TASKS), "all labels, good scanner"),
    "birch": Hospital(
        (0.12, 0.18, 0.7),
        0.75,
        ("wt", "tc", "et", "idh", "grade"),
        "no 1p/19q results, mostly glioblastoma",
        tests_1p19q=False,
    ),
    "cedar": Hospital(
        (0.42, 0.38, 0.2),
        0.75,
        ("wt", "idh", "codeletion", "grade"),
        "whole-tumour masks only, mostly lower grade",
        whole_tumor=True,
    ),
    "dogwood": Hospital((0.3, 0.3, 0.4), 0.5, tuple(TASKS), "small, a third of the cases lacks T1 or T2", absent=0.35),
}
TEST = "test"
TEST_GRADES = (0.3, 0.3, 0.4)


@dataclass(frozen=True)
class PhantomSite:
    """A site that was written.

    Attributes:
        name: the hospital's, or "test".
        data: where its cases lie.
        tasks: what it declares to train.
        note: what is special about it.
    """

    name: str
    data: DataConfig
    tasks: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Patient:
    """One synthetic patient before any voxel is drawn; everything follows from it.

    Attributes:
        case: also the patient's pseudonym.
        scanner: key of SCANNERS.
        diagnosis: the truth.
        absent: modalities that the site lacks, joined by '+'.
        entropy: seed of the images.
    """

    case: str
    scanner: str
    diagnosis: Diagnosis
    absent: str
    entropy: tuple[int, ...]


def draw_patients(site: str, count: int, seed: int) -> list[Patient]:
    """The patients of a hospital or of the test set, each from a seed of its own: the first of many stay the same."""
    patients = []
    for index in range(count):
        entropy = (seed, [*HOSPITALS, TEST].index(site), index)
        rng = np.random.default_rng((*entropy, 0))
        hospital = HOSPITALS.get(site)
        diagnosis = draw_diagnosis(hospital.grades if hospital else TEST_GRADES, rng)
        lacks = hospital is not None and rng.random() < hospital.absent
        patients.append(
            Patient(
                case=f"synthetic-{site}-{index:04d}",
                scanner=site if hospital else list(SCANNERS)[index % len(SCANNERS)],
                diagnosis=diagnosis,
                absent=str(rng.choice(MISSING_MODALITIES)) if lacks else "",
                entropy=(*entropy, 1),
            )
        )
    return patients


def make_case(patient: Patient, voxel_mm: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The four images, (X, Y, Z) int16 in RAS orientation, and the mask, uint8 with 0, 1, 2, 4."""
    rng = np.random.default_rng(patient.entropy)
    look = draw_look(patient.diagnosis, rng)
    brain = grow_brain(voxel_mm, rng)
    mask = grow_tumor(brain, look, rng)
    return acquire(brain, mask, look, SCANNERS[patient.scanner], rng), mask


def make_cohort(
    cohort: PhantomCohort, folder: Path, seed: int, progress: Callable[[int, int], None] | None = None
) -> list[PhantomSite]:
    """Write the four hospitals and the test set, or find them written.

    Args:
        cohort: sizes and resolution.
        folder: gets a folder for each hospital and one named test.
        seed: the same seed gives the same bytes.
        progress: called with cases done and cases in all.

    Returns:
        The four hospitals, and last the test set.

    Raises:
        DataError: the folder holds another cohort.
    """
    counts = {name: round(cohort.patients * hospital.size) for name, hospital in HOSPITALS.items()}
    counts[TEST] = cohort.test_patients
    done, total = 0, sum(counts.values())
    sites = []
    for name, count in counts.items():
        hospital = HOSPITALS.get(name)
        place = folder / name
        whole = hospital is not None and hospital.whole_tumor
        key = hashlib.sha256(json.dumps([VERSION, name, count, cohort.voxel_mm, seed]).encode()).hexdigest()
        marker = place / "synthetic.sha256"
        if not marker.exists():
            patients = draw_patients(name, count, seed)
            for patient in patients:
                _write_case(
                    patient, place / "cases", cohort.voxel_mm, whole=hospital is not None and hospital.whole_tumor
                )
                done += 1
                if progress:
                    progress(done, total)
            _write_table(patients, place / "labels.csv", tests_1p19q=hospital is None or hospital.tests_1p19q)
            marker.write_text(key, encoding="ascii")
        else:
            if marker.read_text(encoding="ascii") != key:
                raise DataError(
                    f"{place}: holds a synthetic cohort of another seed, size or version",
                    "give an empty folder, or delete it",
                )
            done += count
            if progress:
                progress(done, total)
        sites.append(
            PhantomSite(
                name=name,
                data=DataConfig(
                    folder=place / "cases",
                    labels=place / "labels.csv",
                    masks="whole-tumor" if whole else "regions",
                ),
                tasks=hospital.tasks if hospital else tuple(TASKS),
                note=hospital.note if hospital else "held out, all scanners, all labels",
            )
        )
    return sites


def _write_case(patient: Patient, folder: Path, voxel_mm: float, whole: bool) -> None:
    images, mask = make_case(patient, voxel_mm)
    place = folder / patient.case
    place.mkdir(parents=True, exist_ok=True)
    for name, volume in images.items():
        if name not in patient.absent.split("+"):
            _write_nifti(volume, voxel_mm, place / f"{patient.case}_{name}.nii.gz")
    _write_nifti((mask > 0).astype(np.int16) if whole else mask, voxel_mm, place / f"{patient.case}_seg.nii.gz")


def _write_nifti(volume: np.ndarray, voxel_mm: float, path: Path) -> None:
    """int16, in LPS orientation as BraTS files are, the same bytes each time."""
    size = np.array(volume.shape)
    affine = np.diag([-voxel_mm, -voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = (size[0] - 1) * voxel_mm / 2, (size[1] - 1) * voxel_mm / 2, -(size[2] - 1) * voxel_mm / 2
    image = nib.Nifti1Image(np.ascontiguousarray(volume[::-1, ::-1]).astype(np.int16), affine)
    image.header["descrip"] = b"synthetic"
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))


def _write_table(patients: list[Patient], path: Path, tests_1p19q: bool) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    for patient in patients:
        truth = patient.diagnosis
        table.writerow(
            (
                patient.case,
                patient.case,
                "mutant" if truth.mutant else "wildtype",
                ("codeleted" if truth.codeleted else "intact") if tests_1p19q else "",
                truth.histologic,
                truth.who2021,
                *(
                    "" if part in patient.absent.split("+") else f"{patient.case}/{patient.case}_{part}.nii.gz"
                    for part in PATHS
                ),
            )
        )
    path.write_text(text.getvalue(), encoding="utf-8")
