"""The stub of a round's training that every way runs: noise on the weights, in a given time. No torch."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SECONDS, NOISE = "MTSUNET_STEP_SECONDS", "MTSUNET_STEP_NOISE"
"""Names in the environment: how long a step takes, and the file of `make_noise`."""
RELATIVE = 1e-3
SHIFTS = 1009


def make_noise(path: Path, size: int) -> None:
    """Draw once what the steps of all rounds add to `size` weights."""
    np.save(path, np.random.default_rng(0).standard_normal(size + SHIFTS, np.float32))


def step(before: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Each tensor with Gaussian noise of a thousandth of its root mean square, or of 0.001 where it is zero.

    Args:
        seed: where in the drawn noise to begin: no two answers are the same bytes, which Flower would send once.
    """
    end = time.monotonic() + float(os.environ[SECONDS])
    noise = np.load(os.environ[NOISE], mmap_mode="r")
    after, start = {}, seed % SHIFTS
    for name in sorted(before):
        value = before[name]
        size = np.float32(RELATIVE * (np.sqrt(np.mean(np.square(value))) or 1.0))
        after[name] = value + size * noise[start : start + value.size].reshape(value.shape)
        start += value.size
    time.sleep(max(0.0, end - time.monotonic()))
    return after
