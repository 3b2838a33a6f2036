"""Adaptive federated optimisation with Adam at the server (Reddi et al. 2021, algorithm 2)."""

import numpy as np
from pydantic import Field

from server.aggregation.base import register
from server.aggregation.fedavg import FedAvg
from shared_model.parameters import Tensors


@register("fedadam")
class FedAdam(FedAvg):
    """The sites' mean as a direction d, and Adam's step along it, in each coordinate:

        d = mean - w,  m = beta1 m + (1 - beta1) d,  v = beta2 v + (1 - beta2) d^2,  next = w + eta m / (sqrt(v) + tau)

    m begins as 0 and v as tau^2, and no bias is corrected, as in the paper. Computed in float64; m and v are kept as
    float32, so the rule remembers twice what is trained. Where nobody trains a tensor, m and v of it rest with it.

    It can help where sites are unlike and averaging is slow. A step has the size of eta whatever the sites' steps, so
    with few rounds or an eta that was never tried it can do worse than fedavg; and it withstands no hostile site.
    """

    learning_rate: float = Field(0.01, gt=0, le=1)
    """eta: how far a coordinate moves in a round, in the unit of the weights, while its d keeps sign and size."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Share of m that the next round keeps."""
    beta2: float = Field(0.99, ge=0, lt=1)
    """Share of v that the next round keeps."""
    tau: float = Field(1e-3, ge=1e-9, le=1)
    """In the unit of the weights: a d that is much smaller moves its coordinate in proportion to d; a larger one is
    adapted to."""

    def step(self, base: np.ndarray, mean: np.ndarray, memory: Tensors) -> tuple[np.ndarray, Tensors]:
        change = mean.astype(np.float64) - base
        m, v = (memory["m"], memory["v"]) if memory else (np.zeros_like(change), np.full_like(change, self.tau**2))
        m = self.beta1 * m.astype(np.float64) + (1 - self.beta1) * change
        v = self.beta2 * v.astype(np.float64) + (1 - self.beta2) * change**2
        moved: np.ndarray = base + self.learning_rate * m / (np.sqrt(v) + self.tau)
        return moved.astype(np.float32), {"m": m.astype(np.float32), "v": v.astype(np.float32)}
