"""Patients that went straight into arrays are those of the cohort's NIfTI files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cached_cohort import read_patients, write_patients
from client.data.loading import load_case
from client.data.reading import read_cases
from tests.federation import Cohort, small_simulation


@pytest.mark.parametrize("name", ["birch", "cedar", "dogwood"])
def test_they_equal_the_files(cohort: Cohort, tmp_path: Path, name: str) -> None:
    """birch has no 1p/19q, cedar whole-tumour masks, and dogwood lacks modalities."""
    (site,) = (one for one in cohort.sites if one.name == name)
    cases = read_cases(site.data, "who2021")
    with ThreadPoolExecutor(1) as workers:
        write_patients(tmp_path, name, len(cases), small_simulation().plan.seed, workers)
    found = read_patients(tmp_path)
    assert [one.id for one in found] == [case.id for case in cases]
    for case, one in zip(cases, found, strict=True):
        wanted = load_case(case)
        for field in ("image", "present", "regions", "region_known", "classes"):
            assert np.array_equal(getattr(one, field)[:], getattr(wanted, field)[:]), (case.id, field)
        assert (one.centre, one.tumor_voxels, one.patient) == (wanted.centre, wanted.tumor_voxels, wanted.patient)
