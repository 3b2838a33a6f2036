"""Synthetic patients for the attacks, made in memory: one hospital's, with all labels."""

from functools import cache
from pathlib import Path

import numpy as np

from client.data.cases import Case
from client.data.loading import LoadedCase, assemble
from client.data.phantom.cohort import Patient, draw_patients, make_case
from shared_model.tasks import CLASSES

HOSPITAL, SEED = "alder", 41
VOXEL_MM = 4.0
CROP = (32, 64, 32)
"""The smallest that the network takes, along the brain's longest axis."""


@cache
def patients(count: int) -> tuple[LoadedCase, ...]:
    """The first so many patients; more of them begin with the same ones."""
    return tuple(_load(patient) for patient in draw_patients(HOSPITAL, count, SEED))


def _load(patient: Patient) -> LoadedCase:
    """As it would be read from its files."""
    images, mask = make_case(patient, VOXEL_MM)
    truth, grades = patient.diagnosis, CLASSES[2].classes
    case = Case(
        id=patient.case,
        patient=patient.case,
        images={name: Path(f"{name}.nii") for name in images},
        mask=Path("seg.nii"),
        labels={
            "idh": int(truth.mutant),
            "codeletion": int(truth.codeleted),
            "grade_histologic": grades.index(str(truth.histologic)),
            "grade_who2021": grades.index(str(truth.who2021)),
        },
    )
    affine, volumes = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0]), {**images, "seg": mask}
    return assemble(case, {name: (volume.astype(np.float32), affine) for name, volume in volumes.items()})
