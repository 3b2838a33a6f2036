"""Federated averaging (McMahan et al. 2017)."""

from collections.abc import Iterable

import numpy as np

from server.aggregation.base import Rule, register


@register("fedavg")
class FedAvg(Rule):
    """next = sum_k n_k w_k / sum_k n_k over the sites k that trained the tensor, in float64."""

    def reduce(self, values: Iterable[np.ndarray], weights: list[int], base: np.ndarray) -> np.ndarray:
        total = np.zeros(base.shape, np.float64)
        for value, weight in zip(values, weights, strict=True):
            total += value.astype(np.float64) * weight
        return (total / sum(weights)).astype(np.float32)
