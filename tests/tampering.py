"""What a faulty or hostile site may answer, and the words by which it is refused or flagged."""

from collections.abc import Callable

import numpy as np

from shared_model import wire
from shared_model.parameters import Tensors

Change = Callable[[wire.Update, Tensors, Tensors], tuple[wire.Update, Tensors]]
"""(update, its tensors, the round's base) -> what is sent instead."""


def poisoned(value: float) -> Change:
    """One number of one tensor is another."""

    def change(update: wire.Update, tensors: Tensors, base: Tensors) -> tuple[wire.Update, Tensors]:
        name = sorted(tensors)[0]
        spoiled = tensors[name].copy()
        spoiled.flat[0] = value
        return update, {**tensors, name: spoiled}

    return change


def moved(times: float) -> Change:
    """An update that goes so many times as far from the base as it did."""

    def change(update: wire.Update, tensors: Tensors, base: Tensors) -> tuple[wire.Update, Tensors]:
        return update, {
            name: (base[name] + times * (value - base[name])).astype(np.float32) for name, value in tensors.items()
        }

    return change


def claiming(count: int) -> Change:
    """As many cases with any label."""
    return lambda update, tensors, base: (
        update.model_copy(update={"cases": {**update.cases, "trunk": count}}),
        tensors,
    )


def reshaped(update: wire.Update, tensors: Tensors, base: Tensors) -> tuple[wire.Update, Tensors]:
    """One tensor has a number more."""
    name = sorted(tensors)[0]
    return update, {**tensors, name: np.append(tensors[name].ravel(), np.float32(0))}


REFUSED: dict[str, tuple[Change, str]] = {
    "NaN": (poisoned(float("nan")), "NaN or infinity"),
    "infinity": (poisoned(float("inf")), "NaN or infinity"),
    "another shape": (reshaped, "has shape"),
    "another dtype": (lambda u, t, b: (u, {name: value.astype(np.float64) for name, value in t.items()}), "float64"),
    "a tensor more": (lambda u, t, b: (u, {**t, "backdoor": np.zeros(1, np.float32)}), "backdoor"),
    "a tensor less": (lambda u, t, b: (u, dict(list(t.items())[1:])), "is missing"),
    "a weight of 1e9 cases": (claiming(10**9), "1000000000 cases"),
    "a weight of -450 cases": (claiming(-450), "-450 cases"),
    "a stale round": (lambda u, t, b: (u.model_copy(update={"round": 0}), t), "another base"),
    "another site's name": (lambda u, t, b: (u.model_copy(update={"site": "birch"}), t), "signs as 'birch'"),
    "100 times the update": (moved(100), "more than 10 times the usual"),
    "-100 times the update": (moved(-100), "more than 10 times the usual"),
    "the base sent back": (moved(0), "nothing was trained"),
}
FLAGGED: dict[str, tuple[Change, str]] = {
    "a thousandth of the update": (moved(0.001), "less than 1/10 of the usual"),
}
"""These count, and are named."""
