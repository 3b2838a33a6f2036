"""Federated averaging (McMahan et al. 2017)."""

from collections.abc import Iterable

import numpy as np

from server.aggregation.base import Rule, register
from shared_model.parameters import row_blocks


@register("fedavg")
class FedAvg(Rule):
    """next = sum_k n_k w_k / sum_k n_k over the sites k that trained the tensor, in float64."""

    def reduce(self, values: Iterable[np.ndarray], weights: list[int], base: np.ndarray) -> np.ndarray:
        total = np.zeros((base.size, 1), np.float64)
        for value, weight in zip(values, weights, strict=True):
            flat = value.reshape(-1, 1)
            for at in row_blocks(total):
                total[at] += flat[at].astype(np.float64) * weight
        total /= sum(weights)
        return total.astype(np.float32).reshape(base.shape)
