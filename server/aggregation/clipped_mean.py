"""The mean of norm-clipped updates (Sun et al. 2019)."""

import statistics
from collections.abc import Sequence

from pydantic import Field

from server.aggregation.base import register
from server.aggregation.fedavg import FedAvg


@register("clipped-mean")
class ClippedMean(FedAvg):
    """FedAvg over base + min(1, bound / ||w - base||) (w - base): no site moves the model further than the bound.

    It bounds what a site can do in a round and turns no wrong direction into a right one.
    """

    bound: float | None = Field(None, gt=0)
    """Largest L2 norm of a site's update; the median of the round's norms if left out."""

    def scales(self, norms: Sequence[float]) -> list[float]:
        bound = statistics.median(norms) if self.bound is None else self.bound
        return [bound / norm if norm > bound else 1.0 for norm in norms]
