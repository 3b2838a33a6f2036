"""Epsilon of what an optimizer did: Poisson-sampled Gaussian steps, composed over rounds and runs.

A step takes each patient with probability `rate`, clips each one's gradient to norm C, and adds Gaussian noise of
standard deviation `noise` x C to their sum. Neighbouring data sets differ by one patient, added or removed. After any
number of such steps, whatever was seen of them, (epsilon, delta)-differential privacy holds with the epsilon computed
here. It is an upper bound, and says nothing of what leaves a site otherwise: counts, results, times.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant

from shared_model.guarantee import Steps

Accountant = Literal["prv", "rdp"]

TIGHT_BELOW = 60.0
"""Where the RDP bound is above this, it is the answer: no epsilon of that size protects anybody, and the numerical
accountant takes minutes there or finds none."""
RELATIVE_ERROR = 0.005
LARGEST_ERROR = 0.01
"""Of the PRV accountant, which adds it to its answer."""


def epsilon(events: Sequence[Steps], delta: float, accountant: Accountant = "prv") -> float:
    """Epsilon of all events together, in any order; infinite where a step had no noise.

    Args:
        delta: chance that the bound does not hold; far below one over the number of patients.
        accountant: prv, numerical composition (Gopi et al. 2021), or rdp, by Renyi moments (Mironov et al. 2019),
            which is the larger one.

    Raises:
        ValueError: delta is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta: {delta} is not between 0 and 1")
    counts: Counter[tuple[float, float]] = Counter()
    for event in events:
        counts[event.noise, event.rate] += event.steps
    history = [(noise, rate, steps) for (noise, rate), steps in sorted(counts.items()) if steps]
    if not history:
        return 0.0
    if any(noise == 0 for noise, _, _ in history):
        return math.inf
    renyi = RDPAccountant()
    renyi.history = history
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a wider range of orders might make the bound smaller
        bound = float(renyi.get_epsilon(delta))
    if accountant == "rdp" or bound > TIGHT_BELOW:
        return bound
    numerical = PRVAccountant()
    numerical.history = history
    error = min(LARGEST_ERROR, RELATIVE_ERROR * bound)
    with np.errstate(divide="ignore"):  # the logarithm of 1 - rate where every patient is taken
        return min(bound, float(numerical.get_epsilon(delta, eps_error=error)))


def noise_for(target: float, delta: float, rate: float, steps: int, spent: Sequence[Steps] = ()) -> float:
    """The least noise with which so many steps, after `spent`, cost at most `target`, to a part in a thousand.

    Raises:
        ValueError: `spent` alone costs as much, or no noise below a million is enough.
    """
    low, high = 0.0, 1.0

    def costs(noise: float) -> float:
        return epsilon([*spent, Steps(rate=rate, noise=noise, steps=steps)], delta)

    if spent and epsilon(spent, delta) >= target:
        raise ValueError("what is spent costs as much as that already")
    while costs(high) > target:
        low, high = high, 2 * high
        if high > 1e6:
            raise ValueError(f"no noise makes epsilon {target:g} of {steps} steps")
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if costs(middle) <= target else (middle, high)
    return high


def rounds_left(limit: float, delta: float, one: Steps, spent: Sequence[Steps], most: int) -> int:
    """How many rounds of so many steps, after `spent`, cost at most `limit` in all; no more than `most` are counted."""
    if spent and epsilon(spent, delta) > limit:
        return 0
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        events = [*spent, one.model_copy(update={"steps": middle * one.steps})]
        low, high = (middle, high) if epsilon(events, delta) <= limit else (low, middle)
    return low


def noise_to_signal(noise: float, batch: float, parameters: int) -> float:
    """Norm of a step's noise over the largest norm that its signal can have: noise sqrt(parameters) / batch.

    The signal is the sum of `batch` clipped gradients, and as long as that only if all point the same way.
    """
    return noise * math.sqrt(parameters) / batch
