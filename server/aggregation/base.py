"""What an aggregation rule is: the site's settings, what becomes of whole updates, and what becomes of one tensor."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from shared_model.config import Config
from shared_model.parameters import Tensors


class Rule(Config):
    """An aggregation rule; its fields are the plan's `aggregation.options`."""

    def settings(self) -> dict[str, float]:
        """What local training is asked to do, sent with each round's work."""
        return {}

    def scales(self, norms: Sequence[float]) -> list[float]:
        """By what each site's whole update, w - base, is multiplied before tensors are reduced.

        Args:
            norms: L2 norms of the updates, sites in sorted order.
        """
        return [1.0] * len(norms)

    @abstractmethod
    def reduce(self, values: Iterable[np.ndarray], weights: list[int], base: np.ndarray) -> np.ndarray:
        """What the sites make of one tensor together.

        Args:
            values: the tensor of each site that trained it, float32, sites in sorted order; never empty. They are read
                as they are asked for, so that a rule which needs one at a time holds one.
            weights: labelled cases of each of those sites for the tensor's group, all positive.
            base: the tensor before the round.

        Returns:
            float32, the shape of `base`.
        """

    def step(self, base: np.ndarray, mean: np.ndarray, memory: Tensors) -> tuple[np.ndarray, Tensors]:
        """One tensor of the next model, from what the sites made of it, and what the rule remembers for the next round.

        Args:
            base: the tensor before the round.
            mean: what `reduce` made of it, float32.
            memory: what this method gave back in the last round that trained the tensor; empty before the first.

        Returns:
            float32, the shape of `base`; and arrays by names of the rule's own, without a '/'.
        """
        return mean, {}


RULES: dict[str, type[Rule]] = {}


def register(name: str) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator that gives a rule its name in plans; a name can be given once."""

    def add(rule: type[Rule]) -> type[Rule]:
        if name in RULES:
            raise ValueError(f"rule '{name}' is registered twice")
        RULES[name] = rule
        return rule

    return add
