"""The coordinate-wise trimmed mean (Yin et al. 2018)."""

import math
from collections.abc import Iterable

import numpy as np
from pydantic import Field

from server.aggregation.base import Rule, register


@register("trimmed-mean")
class TrimmedMean(Rule):
    """Of n sites' values of a coordinate, the floor(share n) smallest and as many largest go; the mean of the rest.

    Cases do not weigh. With share n < 1 nothing is trimmed: five sites need a share of .2 to withstand one.
    """

    share: float = Field(0.2, ge=0, lt=0.5)
    """Share of the sites that is left out at each end."""

    def reduce(self, values: Iterable[np.ndarray], weights: list[int], base: np.ndarray) -> np.ndarray:
        ordered = np.sort(np.stack(list(values)), axis=0)  # (sites, *shape), each coordinate by itself
        trim = math.floor(self.share * len(ordered) + 1e-9)  # .2 x 5 is 1
        mean: np.ndarray = ordered[trim : len(ordered) - trim].mean(axis=0, dtype=np.float64)
        return mean.astype(np.float32)
