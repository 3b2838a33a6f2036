"""The bounds that the quality benchmark quotes, on numbers that a reader can check."""

import numpy as np
import pytest

from benchmarks.quality import MEAN_LOCAL, bound, difference_of, lines, mean_dice, ratio_of, value_of
from server.summary import FEDERATED, local
from shared_model.metrics import mean_statistic
from shared_model.scores import CaseResult, RegionResult
from shared_model.tasks import REGIONS

LABELS = {"idh": 1, "codeletion": 0, "grade": 2}


def case(name: str, *dices: float | None, idh: float = 0.5, label: int = 1) -> CaseResult:
    """One case with the Dice of WT, TC and ET; None: the truth has no such region."""
    regions = {
        region.name: RegionResult(dice=value or 0.0, hd95=None, empty=value is None)
        for region, value in zip(REGIONS, dices, strict=True)
    }
    return CaseResult(case=name, regions=regions, probabilities={"idh": (1 - idh, idh)}, labels=LABELS | {"idh": label})


RESULTS = {
    FEDERATED: [case("a", 0.9, 0.8, None, idh=0.9), case("b", 0.7, 0.6, 0.5, idh=0.4, label=0)],
    local("x"): [case("a", 0.5, 0.4, None, idh=0.1), case("b", 0.5, 0.4, 0.3, idh=0.4, label=0)],
    local("y"): [case("a", 0.3, 0.0, None, idh=0.9), case("b", 0.1, 0.0, 0.1, idh=0.4, label=0)],
}
TASKS = {"x": ("wt", "tc", "et", "idh"), "y": ("wt", "idh")}
BOTH = np.ones((1, 2))


def test_a_region_that_is_not_there_takes_its_case_out() -> None:
    assert value_of("et", FEDERATED, RESULTS, TASKS)(BOTH) == pytest.approx([0.5])
    assert mean_dice(FEDERATED, RESULTS, TASKS)(BOTH) == pytest.approx([(0.8 + 0.7 + 0.5) / 3])


def test_a_site_counts_for_a_task_only_if_it_has_its_labels() -> None:
    assert value_of("wt", MEAN_LOCAL, RESULTS, TASKS)(BOTH) == pytest.approx([(0.5 + 0.2) / 2])
    assert value_of("tc", MEAN_LOCAL, RESULTS, TASKS)(BOTH) == pytest.approx([0.4])
    assert value_of("idh", MEAN_LOCAL, RESULTS, TASKS)(BOTH) == pytest.approx([(0.0 + 1.0) / 2])


def test_ratio_and_difference_are_paired() -> None:
    def twice(results: object, tasks: object):  # type: ignore[no-untyped-def]
        return mean_statistic([0.2, 0.8])

    def once(results: object, tasks: object):  # type: ignore[no-untyped-def]
        return mean_statistic([0.1, 0.4])

    assert bound([ratio_of(twice, once, RESULTS, TASKS)], [2], seed=0) == pytest.approx((2, 2, 2))
    value, low, high = bound([difference_of(twice, once, RESULTS, TASKS)], [2], seed=0)
    assert (value, low, high) == pytest.approx((0.25, 0.1, 0.4))


def test_seeds_are_averaged() -> None:
    value, low, high = bound([mean_statistic([0.2] * 5), mean_statistic([0.6] * 9)], [5, 9], seed=0)
    assert (value, low, high) == pytest.approx((0.4, 0.4, 0.4))


def test_the_bounds_that_are_asked_for_are_in_the_table() -> None:
    floors = {line.title: line.floor for line in lines() if line.floor is not None}
    assert floors == {
        "mean Dice, federated / centralised": 0.98,
        "wt Dice, federated - mean local": 0.03,
        "tc Dice, federated - mean local": 0.03,
        "et Dice, federated - mean local": 0.03,
        "idh AUC, federated": 0.60,
    }
