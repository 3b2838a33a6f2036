"""Synthetic patients for the attacks, made in memory: one hospital's, with all labels."""

from functools import cache

from benchmarks.cached_cohort import in_memory
from client.data.loading import LoadedCase
from client.data.phantom.cohort import draw_patients

HOSPITAL, SEED = "alder", 41
CROP = (32, 64, 32)
"""The smallest that the network takes, along the brain's longest axis."""


@cache
def patients(count: int) -> tuple[LoadedCase, ...]:
    """The first so many patients; more of them begin with the same ones."""
    return tuple(in_memory(HOSPITAL, patient) for patient in draw_patients(HOSPITAL, count, SEED))
