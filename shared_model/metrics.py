"""Measures of agreement and of discrimination, and accumulators of them that add over sites and are finished once.

Two ways to an interval. In a federation a site sends sums alone, so that the interval is from theory: `DiceSum`,
`AucCount`. In a simulation the cases lie on one machine, so that the interval is a percentile bootstrap over cases:
`estimate`, `paired`. A value that the data do not determine is None or NaN, never 0 and never 0.5.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared_model.errors import WireError

Z_95 = 1.959964
"""Half width of a 95 % interval in standard errors."""
RESAMPLES = 1000
CALIBRATION_BINS = 15
MOST_CASES = 10**9
"""A count above this is refused."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights (R, n) of n cases in R resamples -> the R values of the metric; NaN where a resample does not tell it."""


class Record(BaseModel):
    """What is written to disk or sent as JSON: frozen, of exact types, nothing unknown, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: object) -> Self:
        """The record from plain values.

        Raises:
            WireError: a field is unknown, missing, of another type, or contradicts another.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join([cls.__name__, *(str(part) for part in first["loc"])])
            raise WireError(f"{where}: {first['msg']}", "send what this release writes") from None


class Estimate(Record):
    """A value and its 95 % interval; the ends are None where the cases do not tell them."""

    value: float
    low: float | None = None
    high: float | None = None


class DiceSum(Record):
    """Dice over cases as three sums. `a + b` is the sums of both sites' cases."""

    n: int = Field(default=0, ge=0, le=MOST_CASES, strict=True)
    total: float = Field(default=0.0, ge=0)
    squares: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """For values in [0, 1]: total^2 / n <= squares <= total <= n, to rounding."""
        slack = 1e-6 * (self.n + 1)
        if self.total > self.n + slack or self.squares > self.total + slack:
            raise ValueError("these are no sums over n values in [0, 1]")
        if self.total**2 > self.n * (self.squares + slack):
            raise ValueError("the sum of squares is too small for the sum")
        return self

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(n=len(values), total=sum(values), squares=sum(value * value for value in values))

    def __add__(self, other: "DiceSum") -> "DiceSum":
        return DiceSum(n=self.n + other.n, total=self.total + other.total, squares=self.squares + other.squares)

    def finish(self) -> Estimate | None:
        """Mean +- 1.96 s / sqrt(n), s the sample standard deviation, cut to [0, 1].

        Normal theory: rough below about 10 cases or near 0 and 1. No interval where all values are equal.
        """
        if self.n == 0:
            return None
        mean = min(self.total / self.n, 1.0)
        variance = (self.squares - self.total * mean) / (self.n - 1) if self.n > 1 else 0.0
        if variance < 1e-12:
            return Estimate(value=mean)
        half = Z_95 * sqrt(variance / self.n)
        return Estimate(value=mean, low=max(mean - half, 0.0), high=min(mean + half, 1.0))


class Stratum(Record):
    """One site's share of an AUC: over its pairs of a positive and a negative case, 2 for each that is ranked rightly
    and 1 for each tie (twice Mann and Whitney's U, a whole number)."""

    doubled_u: int = Field(ge=0, strict=True)
    positives: int = Field(ge=0, le=MOST_CASES, strict=True)
    negatives: int = Field(ge=0, le=MOST_CASES, strict=True)

    @property
    def pairs(self) -> int:
        return self.positives * self.negatives

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.doubled_u > 2 * self.pairs:
            raise ValueError("doubled_u is more than twice the number of pairs")
        return self

    def variance(self, auc: float) -> float:
        """Hanley & McNeil 1982, Radiology 143:29, equation 2: variance of one site's AUC where the true one is `auc`.

        [A (1 - A) + (n+ - 1)(Q1 - A^2) + (n- - 1)(Q2 - A^2)] / (n+ n-), Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A).
        """
        q1 = auc / (2 - auc)
        q2 = 2 * auc**2 / (1 + auc)
        spread = (self.positives - 1) * (q1 - auc**2) + (self.negatives - 1) * (q2 - auc**2)
        return (auc * (1 - auc) + spread) / self.pairs


class AucCount(Record):
    """An AUC stratified by site: pairs are compared within a site alone, so that no score leaves it.

    `a + b` keeps both sites' strata. The stratified AUC is free of differences in level between sites, and so is not
    the AUC of the pooled scores.
    """

    strata: tuple[Stratum, ...] = ()

    @classmethod
    def of(cls, scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> Self:
        """One site's count: `scores` (n,), higher meaning positive, and which cases are positive (n,)."""
        score, is_positive = _labelled(scores, positive)
        negatives = np.sort(score[~is_positive])
        below = np.searchsorted(negatives, score[is_positive], side="left")
        below_or_tied = np.searchsorted(negatives, score[is_positive], side="right")
        doubled_u = int(below.sum()) + int(below_or_tied.sum())
        return cls(strata=(Stratum(doubled_u=doubled_u, positives=len(below), negatives=len(negatives)),))

    def __add__(self, other: "AucCount") -> "AucCount":
        return AucCount(strata=self.strata + other.strata)

    @property
    def positives(self) -> int:
        return sum(stratum.positives for stratum in self.strata)

    @property
    def negatives(self) -> int:
        return sum(stratum.negatives for stratum in self.strata)

    def finish(self) -> Estimate | None:
        """Sum of U over sum of pairs, +- 1.96 standard errors cut to [0, 1]; None where no site has a pair.

        With w = pairs of a site / all pairs, the variance is the sum of w^2 times the site's (Hanley & McNeil), each
        at the common AUC. At 0 and at 1 that variance is zero, which says nothing: then there is no interval.
        """
        strata = [stratum for stratum in self.strata if stratum.pairs]
        pairs = sum(stratum.pairs for stratum in strata)
        if not pairs:
            return None
        auc = sum(stratum.doubled_u for stratum in strata) / (2 * pairs)
        variance = sum((stratum.pairs / pairs) ** 2 * stratum.variance(auc) for stratum in strata)
        if variance < 1e-12:
            return Estimate(value=auc)
        half = Z_95 * sqrt(variance)
        return Estimate(value=auc, low=max(auc - half, 0.0), high=min(auc + half, 1.0))


def _labelled(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> tuple[np.ndarray, ...]:
    score, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if score.shape != is_positive.shape or score.ndim != 1:
        raise ValueError(f"scores of shape {score.shape} and labels of shape {is_positive.shape} are not (n,) alike")
    if not np.isfinite(score).all():
        raise ValueError("a score is not finite")
    return score, is_positive


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |P and T| / (|P| + |T|) of two masks (D, H, W). Both empty: 1, by convention; one empty: 0."""
    predicted, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    both = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / both if both else 1.0


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> float:
    """95 % Hausdorff distance in mm of two masks (D, H, W) with voxels of `spacing` mm.

    The larger of the two directed ones; each is the 95th percentile, over the surface voxels of one mask, of the
    distance to the nearest surface voxel of the other (the BraTS definition). Both empty: 0. One empty: NaN,
    undefined; count these apart, since leaving them out flatters a model that finds nothing.
    """
    predicted, true = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if not predicted.any() and not true.any():
        return 0.0
    if not predicted.any() or not true.any():
        return float("nan")
    from scipy import ndimage  # here: every process of a message reads this module, and few look at masks

    box = ndimage.find_objects((predicted | true).astype(np.uint8))[0]
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted[box], true[box])]
    far = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    directed = [np.percentile(far[1][surfaces[0]], 95), np.percentile(far[0][surfaces[1]], 95)]
    return float(max(directed))


def auc(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> float | None:
    """Chance that a positive case scores higher than a negative one, a tie counting half; None without both kinds."""
    finished = AucCount.of(scores, positive).finish()
    return None if finished is None else finished.value


def mean_statistic(values: Sequence[float] | np.ndarray) -> Statistic:
    """The mean of `values` (n,)."""
    value = np.asarray(values, dtype=np.float64)
    return lambda weights: weights @ value / weights.sum(axis=1)


def auc_statistic(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> Statistic:
    """The AUC of `scores` (n,), a tie counting half."""
    score, is_positive = _labelled(scores, positive)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])  # (V,) where each distinct score begins

    def value(weights: np.ndarray) -> np.ndarray:
        ranked = weights[:, order]  # (R, n)
        is_positive_ranked = is_positive[order]
        positives = np.add.reduceat(ranked * is_positive_ranked, starts, axis=1)  # (R, V)
        negatives = np.add.reduceat(ranked * ~is_positive_ranked, starts, axis=1)  # (R, V)
        u = (positives * (np.cumsum(negatives, axis=1) - negatives / 2)).sum(axis=1)
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return np.divide(u, pairs, out=np.full(len(u), np.nan), where=pairs > 0)

    return value


def macro_auc_statistic(probabilities: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean over classes of the AUC of one class against the rest; NaN unless every class occurs.

    Args:
        probabilities: (n, C).
        labels: (n,) ints in 0..C-1.
    """
    single = [auc_statistic(column, labels == label) for label, column in enumerate(np.asarray(probabilities).T)]
    return lambda weights: np.mean([value(weights) for value in single], axis=0)


def calibration_statistic(probabilities: np.ndarray, labels: np.ndarray) -> Statistic:
    """Expected calibration error (Guo et al. 2017, equation 5): sum over bins of n_b / n |accuracy_b - confidence_b|.

    A case's confidence is its largest probability, and it is accurate where that class is the true one. 15 bins of
    equal width over (0, 1]; a value on an edge belongs to the lower bin. Biased upwards when there are few cases.

    Args:
        probabilities: (n, C).
        labels: (n,) ints in 0..C-1.
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    gap = (np.asarray(probabilities).argmax(axis=1) == labels) - confidence  # (n,)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(int)
    gap_in_bin = np.eye(CALIBRATION_BINS)[bins] * gap[:, None]  # (n, bins)
    return lambda weights: np.abs(weights @ gap_in_bin).sum(axis=1) / weights.sum(axis=1)


def _resamples(n: int, seed: int) -> np.ndarray:
    """(RESAMPLES, n): how often each of n cases is drawn, with replacement; equal for equal n and seed."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _percentiles(value: float, resampled: np.ndarray) -> Estimate | None:
    if not np.isfinite(value):
        return None
    finite = resampled[np.isfinite(resampled)]
    if len(finite) < len(resampled) / 2:
        return Estimate(value=value)
    low, high = np.percentile(finite, [2.5, 97.5])
    if high - low < 1e-12:
        return Estimate(value=value)
    return Estimate(value=value, low=float(low), high=float(high))


def estimate(statistic: Statistic, n: int, seed: int) -> Estimate | None:
    """The statistic over n cases with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    1000 resamples of the cases. A resample that does not tell the value (no positive case, say) is left out; where
    more than half do not, or there is one case alone, there is no interval; nor where all resamples give one value (an
    AUC of 1, say), which is no certainty. Too narrow below about 20 cases.
    """
    if n == 0:
        return None
    value = float(statistic(np.ones((1, n)))[0])
    resampled = statistic(_resamples(n, seed)) if n > 1 else np.full(RESAMPLES, np.nan)
    return _percentiles(value, resampled)


def paired(first: Statistic, second: Statistic, n: int, seed: int) -> tuple[Estimate | None, Estimate | None]:
    """Difference first - second and ratio first / second over the same n cases, each resample drawn once for both.

    The interval is of the comparison, and narrower than the two single ones suggest, since hard cases are hard twice.
    """
    if n == 0:
        return None, None
    weights = np.concatenate([np.ones((1, n)), _resamples(n, seed)])
    a, b = first(weights), second(weights)
    if n == 1:
        a[1:] = np.nan
    ratio = np.divide(a, b, out=np.full(len(a), np.nan), where=b != 0)
    difference = a - b
    return _percentiles(float(difference[0]), difference[1:]), _percentiles(float(ratio[0]), ratio[1:])
