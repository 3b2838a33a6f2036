"""The coordinate-wise median (Yin et al. 2018)."""

from collections.abc import Iterable

import numpy as np

from server.aggregation.base import Rule, register


@register("median")
class Median(Rule):
    """next_j = median over sites of w_j: fewer than half of the sites cannot move it beyond the others' values.

    Cases do not weigh, so a small hospital counts as much as a large one; of two sites it is the plain mean, which
    defends against nothing. With few and unlike sites it costs accuracy; benchmarks/poisoning.py measures how much.
    """

    def reduce(self, values: Iterable[np.ndarray], weights: list[int], base: np.ndarray) -> np.ndarray:
        median: np.ndarray = np.median(np.stack(list(values)), axis=0)  # (sites, *shape) -> shape
        return median.astype(np.float32)
