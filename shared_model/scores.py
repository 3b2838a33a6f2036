"""From results of single cases to a table: what is measured for each task, over which cases, with which support.

`CaseResult` is what a worker writes for one case of a test set; it never leaves a hospital. `score` makes the table of
one model, `compare` sets two models side by side over the same cases, `SiteScores` is the part that adds over sites.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from shared_model.metrics import (
    AucCount,
    DiceSum,
    Estimate,
    Record,
    Statistic,
    auc_statistic,
    calibration_statistic,
    dice,
    estimate,
    hd95,
    macro_auc_statistic,
    mean_statistic,
    paired,
)
from shared_model.tasks import CLASSES, GRADE_4, MISSING, REGIONS, TASKS

if TYPE_CHECKING:  # reports read tables, and need not wait for MONAI
    from shared_model.inference import Prediction

METRICS: dict[str, str] = {
    "dice": "Dice",
    "hd95": "HD95 (mm)",
    "left_empty": "share left empty",
    "auc": "AUC",
    "auc_lower_grade": "AUC within grade 2 and 3",
    "auc_idh_mutant": "AUC within IDH-mutant",
    "auc_macro": "AUC, mean of one against rest",
    "auc_grade_4": "AUC, grade 4 against 2 and 3",
    "ece": "calibration error",
}
"""Metrics and how reports name them. docs/summary.md says over which cases each is taken."""

_BINARY = {"idh": "auc", "codeletion": "auc", "grade": "auc_grade_4"}
"""The metric that is one AUC of two groups, for each class task: what sites may send."""


class RegionResult(Record):
    """One region of one case."""

    dice: float = Field(ge=0, le=1)
    hd95: float | None = Field(ge=0)
    """In mm; None: undefined, as one of the two masks is empty."""
    empty: bool
    """The true mask is empty: the tumour has no such part."""


class CaseResult(Record):
    """One case under one model. What the case's mask or the model does not tell has no entry."""

    case: str
    regions: dict[str, RegionResult] = Field(default_factory=dict)
    probabilities: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """For each class task that the model knows, one probability per class."""
    labels: dict[str, int]
    """For every class task the true class, or MISSING."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(name not in TASKS or not TASKS[name].is_region for name in self.regions):
            raise ValueError("regions holds what is no region")
        if set(self.labels) != {task.name for task in CLASSES}:
            raise ValueError("labels needs exactly one entry for each class task")
        for task in CLASSES:
            if not MISSING <= self.labels[task.name] < len(task.classes):
                raise ValueError(f"labels: {self.labels[task.name]} is no class of {task.name}")
        for name, values in self.probabilities.items():
            if name not in self.labels or len(values) != len(TASKS[name].classes):
                raise ValueError(f"probabilities: {name} has {len(values)} values")
        return self


def case_result(
    case: str,
    prediction: "Prediction",
    regions: np.ndarray,
    region_known: Sequence[bool] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    spacing: Sequence[float],
) -> CaseResult:
    """Measure one prediction. A region's mask is its probability > 0.5.

    Args:
        regions: (3, D, H, W) true masks in the order of REGIONS.
        region_known: (3,) False where the case's mask does not tell that region.
        labels: (3,) in the order of CLASSES, MISSING where unknown.
        spacing: edges of a voxel in mm.
    """
    measured = {}
    for region, probability, truth, known in zip(REGIONS, prediction.probabilities, regions, region_known, strict=True):
        if known and region.name in prediction.regions:
            mask = probability > 0.5
            distance = hd95(mask, truth, spacing)
            measured[region.name] = RegionResult(
                dice=dice(mask, truth), hd95=None if np.isnan(distance) else distance, empty=not np.any(truth)
            )
    return CaseResult(
        case=case,
        regions=measured,
        probabilities={name: tuple(map(float, values)) for name, values in prediction.classes.items()},
        labels={task.name: int(label) for task, label in zip(CLASSES, labels, strict=True)},
    )


class Row(Record):
    """One metric of one task for one model."""

    task: str
    metric: str
    value: float | None
    """None: the cases do not tell it, e.g. an AUC without a positive case."""
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    """Cases that the value stands on."""
    positives: int | None = Field(default=None, ge=0)
    """Of these, the positive ones, where the metric sets two groups against each other."""
    undefined: int = Field(default=0, ge=0)
    """Cases left out of an HD95, since nothing was predicted: a low distance beside a high count is no good result."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"'{name}' is no task")
        return name

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(f"'{name}' is no metric; known are {', '.join(METRICS)}")
        return name


def _row(task: str, metric: str, found: Estimate | None, n: int, positives: int | None = None) -> Row:
    if found is None:
        return Row(task=task, metric=metric, value=None, n=n, positives=positives)
    return Row(task=task, metric=metric, value=found.value, low=found.low, high=found.high, n=n, positives=positives)


class _Support:
    """The cases that one metric of one task stands on, and their numbers."""

    def __init__(self, task: str, metric: str, cases: Sequence[CaseResult]) -> None:
        self.task, self.metric = task, metric
        self.cases = [case for case in cases if self._counts(case)]

    def _counts(self, case: CaseResult) -> bool:
        if TASKS[self.task].is_region:
            result = case.regions.get(self.task)
            if result is None or result.empty != (self.metric == "left_empty"):
                return False
            return self.metric != "hd95" or result.hd95 is not None
        if self.task not in case.probabilities or case.labels[self.task] == MISSING:
            return False
        if self.metric == "auc_lower_grade":
            return case.labels["grade"] not in (MISSING, GRADE_4)
        return self.metric != "auc_idh_mutant" or case.labels["idh"] == 1

    def statistic(self) -> Statistic:
        """Undefined without a case."""
        if TASKS[self.task].is_region:
            results = [case.regions[self.task] for case in self.cases]
            if self.metric == "hd95":
                return mean_statistic([result.hd95 for result in results if result.hd95 is not None])
            return mean_statistic([result.dice for result in results])
        probabilities = np.array([case.probabilities[self.task] for case in self.cases])  # (n, C)
        if self.metric == "ece":
            return calibration_statistic(probabilities, self._labels())
        if self.metric == "auc_macro":
            return macro_auc_statistic(probabilities, self._labels())
        return auc_statistic(probabilities[:, -1], self.positive())

    def _labels(self) -> np.ndarray:
        return np.array([case.labels[self.task] for case in self.cases], dtype=int)

    def positive(self) -> np.ndarray:
        """(n,) bool: mutant, codeleted, or grade 4; in each task the last class."""
        return self._labels() == len(TASKS[self.task].classes) - 1

    def positives(self) -> int | None:
        sets_two_apart = self.metric.startswith("auc") and self.metric != "auc_macro"
        return int(self.positive().sum()) if sets_two_apart else None


def _metrics_of(cases: Sequence[CaseResult]) -> Iterator[tuple[str, str]]:
    """Every task that some case tells, with its metrics."""
    for region in REGIONS:
        told = [case.regions[region.name] for case in cases if region.name in case.regions]
        if told:
            yield from ((region.name, metric) for metric in ("dice", "hd95"))
        if any(result.empty for result in told):
            yield region.name, "left_empty"
    own = {"idh": ("auc", "auc_lower_grade"), "codeletion": ("auc", "auc_idh_mutant")}
    for task in CLASSES:
        if any(task.name in case.probabilities for case in cases):
            yield from ((task.name, metric) for metric in own.get(task.name, ("auc_macro", "auc_grade_4")))
            yield task.name, "ece"


def score(cases: Sequence[CaseResult], seed: int) -> tuple[Row, ...]:
    """The table of one model, with percentile bootstrap intervals over cases.

    Dice and HD95 are over the cases that have the region in truth (many lower-grade gliomas enhance nowhere, and a
    Dice of 1 or 0 for those would drown the rest); `left_empty` is over the others, the share in which nothing was
    predicted either. A label that is missing takes its case out of that task alone.
    """
    rows = []
    for task, metric in _metrics_of(cases):
        support = _Support(task, metric, cases)
        n = len(support.cases)
        found = estimate(support.statistic(), n, seed) if n else None
        row = _row(task, metric, found, n, support.positives())
        if metric == "hd95":
            row = row.model_copy(update={"undefined": len(_Support(task, "dice", cases).cases) - n})
        rows.append(row)
    return tuple(rows)


class Comparison(Record):
    """One metric under two models over the same cases."""

    task: str
    metric: str
    first: str
    second: str
    n: int = Field(ge=1)
    difference: Estimate | None
    """first - second."""
    ratio: Estimate | None
    """first / second."""


def compare(models: Mapping[str, Sequence[CaseResult]], first: str, second: str, seed: int) -> tuple[Comparison, ...]:
    """Paired bootstrap of two models: metrics that both have, over the cases that count in both."""
    rows = []
    of_second = set(_metrics_of(models[second]))
    for task, metric in _metrics_of(models[first]):
        if (task, metric) not in of_second:
            continue
        supports = [_Support(task, metric, models[name]) for name in (first, second)]
        shared = set.intersection(*({case.case for case in support.cases} for support in supports))
        if not shared:
            continue
        for support in supports:
            support.cases = sorted((case for case in support.cases if case.case in shared), key=lambda case: case.case)
        difference, ratio = paired(supports[0].statistic(), supports[1].statistic(), len(shared), seed)
        rows.append(
            Comparison(
                task=task,
                metric=metric,
                first=first,
                second=second,
                n=len(shared),
                difference=difference,
                ratio=ratio,
            )
        )
    return tuple(rows)


class SiteScores(Record):
    """What adds over sites: Dice sums by region, AUC counts by class task. No entry: unknown, which is not 0."""

    dice: dict[str, DiceSum] = Field(default_factory=dict)
    auc: dict[str, AucCount] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_tasks(self) -> Self:
        if not set(self.dice) <= {region.name for region in REGIONS} or not set(self.auc) <= set(_BINARY):
            raise ValueError("dice is by region and auc by class task, and nothing else")
        return self

    @classmethod
    def of(cls, cases: Sequence[CaseResult]) -> Self:
        """One site's cases: Dice where the region exists, AUC of mutant, of codeleted, of grade 4 against 2 and 3."""
        dices, aucs = {}, {}
        for region in REGIONS:
            if counted := _Support(region.name, "dice", cases).cases:
                dices[region.name] = DiceSum.of([case.regions[region.name].dice for case in counted])
        for task, metric in _BINARY.items():
            support = _Support(task, metric, cases)
            if support.cases:
                scores = [case.probabilities[task][-1] for case in support.cases]
                aucs[task] = AucCount.of(scores, support.positive())
        return cls(dice=dices, auc=aucs)

    def __add__(self, other: "SiteScores") -> "SiteScores":
        return SiteScores(
            dice={
                name: self.dice.get(name, DiceSum()) + other.dice.get(name, DiceSum())
                for name in {**self.dice, **other.dice}
            },
            auc={
                name: self.auc.get(name, AucCount()) + other.auc.get(name, AucCount())
                for name in {**self.auc, **other.auc}
            },
        )

    def rows(self) -> tuple[Row, ...]:
        """The sums, finished."""
        finished = [_row(task, "dice", total.finish(), total.n) for task, total in self.dice.items()]
        for task, count in self.auc.items():
            n = count.positives + count.negatives
            finished.append(_row(task, _BINARY[task], count.finish(), n, count.positives))
        return tuple(finished)
