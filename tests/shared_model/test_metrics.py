"""Metrics and scores against numbers worked by hand, slow truths and each other."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from torch import from_numpy

from shared_model.errors import WireError
from shared_model.inference import Prediction
from shared_model.metrics import (
    AucCount,
    DiceSum,
    Record,
    auc,
    auc_statistic,
    calibration_statistic,
    dice,
    estimate,
    hd95,
    macro_auc_statistic,
    mean_statistic,
    paired,
)
from shared_model.scores import CaseResult, RegionResult, Row, SiteScores, case_result, compare, score
from shared_model.tasks import MISSING

SCORES_AND_LABELS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)
UNIT = st.floats(0, 1, allow_subnormal=False)


def box(*corner_and_size: int) -> np.ndarray:
    """A mask (16, 16, 16) with one cube: three corners, and the edge."""
    *corner, edge = corner_and_size
    mask = np.zeros((16, 16, 16), dtype=bool)
    mask[tuple(slice(start, start + edge) for start in corner)] = True
    return mask


def slow_auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    return sum(pairs) / len(pairs) if pairs else None


def case(name: str, **known: Any) -> CaseResult:
    labels = {"idh": MISSING, "codeletion": MISSING, "grade": MISSING}
    regions, probabilities = {}, {}
    for key, value in known.items():
        if key in ("wt", "tc", "et"):
            regions[key] = value
        else:
            labels[key], values = value
            if values is not None:
                probabilities[key] = (1 - values, values) if isinstance(values, float) else values
    return CaseResult(case=name, regions=regions, probabilities=probabilities, labels=labels)


def found(rows: tuple[Row, ...], task: str, metric: str) -> Row:
    return next(row for row in rows if (row.task, row.metric) == (task, metric))


def test_dice_by_hand() -> None:
    assert dice(box(0, 0, 0, 2), box(0, 0, 1, 2)) == 2 * 4 / 16
    assert dice(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1
    assert dice(box(0, 0, 0, 2), box(0, 0, 0, 0)) == 0
    assert dice(box(0, 0, 0, 0), box(0, 0, 0, 2)) == 0


def test_hd95_of_one_voxel_each_is_their_distance() -> None:
    assert hd95(box(1, 1, 1, 1), box(4, 5, 1, 1), (1.0, 1.0, 1.0)) == 5
    assert hd95(box(1, 1, 1, 1), box(4, 1, 1, 1), (2.0, 1.0, 1.0)) == 6


def test_hd95_of_empty_masks() -> None:
    empty = box(0, 0, 0, 0)
    assert hd95(empty, empty, (1.0, 1.0, 1.0)) == 0
    assert math.isnan(hd95(empty, box(1, 1, 1, 2), (1.0, 1.0, 1.0)))
    assert math.isnan(hd95(box(1, 1, 1, 2), empty, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("seed", range(3))
def test_hd95_agrees_with_monai(seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = box(2, 3, 4, 7) & (generator.random((2, 16, 16, 16)) < 0.7)
    spacing = (1.0, 2.0, 3.0)
    first, second = (from_numpy(mask[None, None]) for mask in masks)
    theirs = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing)
    assert hd95(masks[0], masks[1], spacing) == pytest.approx(float(theirs), abs=1e-4)


def test_auc_by_hand() -> None:
    # positives .9, .4; negatives .4, .1: pairs 1, 1, tie, 1
    assert auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False]) == 3.5 / 4
    assert auc([0.3, 0.2], [True, True]) is None
    assert auc([], []) is None


@given(SCORES_AND_LABELS)
def test_both_aucs_are_the_slow_pair_count(cases: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([c[0] for c in cases]) / 5, np.array([c[1] for c in cases])
    truth = slow_auc(scores, positive)
    weighted = auc_statistic(scores, positive)(np.ones((1, len(cases))))[0]
    if truth is None:
        assert auc(scores, positive) is None
        assert math.isnan(weighted)
    else:
        assert auc(scores, positive) == truth
        assert weighted == pytest.approx(truth, abs=1e-12)


def test_weights_of_the_auc_are_repeated_cases() -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    weights = np.array([[1.0, 2, 0, 1], [2, 1, 3, 0]])
    for row in weights:
        index = np.repeat(np.arange(4), row.astype(int))
        assert auc_statistic(scores, positive)(row[None])[0] == slow_auc(scores[index], positive[index])


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        auc([0.1, float("nan")], [True, False])


def test_hanley_and_mcneil_s_own_example() -> None:
    """Radiology 143:29, 1982: an area of .893 with 51 abnormal and 58 normal cases has a standard error of .032."""
    count = AucCount.from_json(
        {"strata": [{"doubled_u": round(2 * 0.893 * 51 * 58), "positives": 51, "negatives": 58}]}
    )
    finished = count.finish()
    assert finished is not None and finished.low is not None and finished.high is not None
    assert finished.value == pytest.approx(0.893, abs=1e-4)
    assert (finished.value - finished.low) / 1.96 == pytest.approx(0.0325, abs=5e-4)
    assert finished.high == pytest.approx(0.957, abs=1e-3)


def test_auc_over_sites_compares_within_sites_alone() -> None:
    a = AucCount.of([0.9, 0.8], [True, False])
    b = AucCount.of([0.2, 0.1, 0.05], [True, False, True])
    lonely = AucCount.of([0.99], [False])
    total = a + b + lonely
    finished = total.finish()
    assert finished is not None and finished.value == 2 / 3  # pairs: 1 of 1 and 1 of 2
    assert (total.positives, total.negatives) == (3, 3)
    assert lonely.finish() is None
    assert AucCount().finish() is None


def test_a_perfect_auc_has_no_interval() -> None:
    finished = AucCount.of([0.9, 0.8, 0.1], [True, True, False]).finish()
    assert finished is not None and (finished.value, finished.low, finished.high) == (1, None, None)
    scores, positive = [0.9, 0.8, 0.1, 0.2], [True, True, False, False]
    resampled = estimate(auc_statistic(scores, positive), 4, seed=0)
    assert resampled is not None and (resampled.value, resampled.low) == (1, None)


def test_dice_sum_by_hand() -> None:
    finished = DiceSum.of([0.6, 0.8, 1.0]).finish()
    assert finished is not None and finished.value == pytest.approx(0.8)
    half = 1.959964 * 0.2 / math.sqrt(3)  # s = 0.2
    assert finished.low == pytest.approx(0.8 - half)
    assert finished.high == 1.0  # 0.8 + .226, cut
    assert DiceSum().finish() is None
    one = DiceSum.of([0.5]).finish()
    assert one is not None and (one.value, one.low) == (0.5, None)


@given(st.lists(st.lists(UNIT, max_size=8), max_size=5))
def test_dice_over_sites_is_dice_over_all_cases(sites: list[list[float]]) -> None:
    total = sum((DiceSum.of(values) for values in sites), DiceSum())
    pooled = DiceSum.of([value for values in sites for value in values])
    assert total.n == pooled.n
    assert total.total == pytest.approx(pooled.total)
    assert total.squares == pytest.approx(pooled.squares)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (DiceSum, {"n": 2, "total": 3.0, "squares": 1.0}),
        (DiceSum, {"n": 2, "total": 1.0, "squares": 1.5}),
        (DiceSum, {"n": 2, "total": 1.8, "squares": 0.1}),
        (DiceSum, {"n": -1, "total": 0.0, "squares": 0.0}),
        (DiceSum, {"n": 2.0, "total": 1.0, "squares": 0.5}),
        (DiceSum, {"n": 1, "total": float("nan"), "squares": 0.0}),
        (DiceSum, {"n": 1, "total": 1.0, "squares": 1.0, "name": "x"}),
        (DiceSum, [1, 2, 3]),
        (AucCount, {"strata": [{"doubled_u": 9, "positives": 2, "negatives": 2}]}),
        (AucCount, {"strata": [{"doubled_u": 1, "positives": 2, "negatives": -2}]}),
        (AucCount, {"strata": [{"doubled_u": 1, "positives": 2}]}),
        (AucCount, {"strata": [{"doubled_u": 1, "positives": 10**400, "negatives": 1}]}),
        (SiteScores, {"dice": {"idh": {"n": 1, "total": 1.0, "squares": 1.0}}}),
        (SiteScores, {"auc": {"wt": {"strata": []}}}),
    ],
)
def test_impossible_sums_are_refused(kind: type[Record], values: object) -> None:
    with pytest.raises(WireError):
        kind.from_json(values)


def test_accumulators_survive_json() -> None:
    for record in (DiceSum.of([0.25, 1.0]), AucCount.of([0.1, 0.9], [False, True]) + AucCount.of([0.5], [True])):
        assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_calibration_by_hand() -> None:
    # bin (.533, .6]: confidences .6 and .55, one right: |.5 - .575|, twice; .9, right: .1; .8, wrong: .8
    probabilities = np.array([[0.6, 0.4], [0.45, 0.55], [0.1, 0.9], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 0])
    value = calibration_statistic(probabilities, labels)(np.ones((1, 4)))[0]
    assert value == pytest.approx((2 * 0.075 + 0.1 + 0.8) / 4)
    sure = calibration_statistic(np.array([[1.0, 0.0]]), np.array([0]))(np.ones((1, 1)))[0]
    assert sure == 0


def test_macro_auc_needs_every_class() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1]])
    labels = np.array([0, 1, 2, 1])
    # one against rest: 0 over {.2, .1, .5}: 1; 1 in {.7, .4} over {.1, .3}: 1; 2: 1
    assert macro_auc_statistic(probabilities, labels)(np.ones((1, 4)))[0] == 1
    labels[2] = 1
    assert estimate(macro_auc_statistic(probabilities, labels), 4, seed=0) is None


def test_bootstrap_is_deterministic_near_theory_and_fast() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.7, 0.1, 200)
    first, again, other = (estimate(mean_statistic(values), 200, seed) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first is not None and first.low is not None and first.high is not None
    assert first.high - first.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.1)
    start = time.process_time()
    positive = generator.random(200) < 0.4
    estimate(auc_statistic(generator.random(200), positive), 200, seed=0)
    assert time.process_time() - start < 1


def test_bootstrap_without_support() -> None:
    assert estimate(mean_statistic([]), 0, seed=0) is None
    one = estimate(mean_statistic([0.5]), 1, seed=0)
    assert one is not None and (one.value, one.low) == (0.5, None)


def test_paired_bootstrap_sees_a_constant_difference() -> None:
    values = np.random.default_rng(0).uniform(0.4, 0.8, 50)
    difference, ratio = paired(mean_statistic(values + 0.1), mean_statistic(values), 50, seed=0)
    assert difference is not None and difference.value == pytest.approx(0.1)
    assert difference.low is None  # the same in every resample
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert ratio.value == pytest.approx(1 + 0.1 / values.mean())
    assert ratio.low < ratio.value < ratio.high
    assert paired(mean_statistic([]), mean_statistic([]), 0, seed=0) == (None, None)


def test_case_result_measures_what_is_known() -> None:
    truth = np.stack([box(2, 2, 2, 6), box(2, 2, 2, 3), box(0, 0, 0, 0)])
    prediction = Prediction(truth.astype(np.float32), {"idh": np.array([0.25, 0.75], dtype=np.float32)}, ("wt", "et"))
    result = case_result("c1", prediction, truth, (True, True, True), (1, MISSING, 2), (1.0, 1.0, 1.0))
    assert result.regions == {
        "wt": RegionResult(dice=1, hd95=0, empty=False),
        "et": RegionResult(dice=1, hd95=0, empty=True),
    }
    assert result.probabilities == {"idh": (0.25, 0.75)}
    assert result.labels == {"idh": 1, "codeletion": MISSING, "grade": 2}
    assert CaseResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    whole_only = case_result("c2", prediction, truth, (True, False, False), (1, MISSING, 2), (1.0, 1.0, 1.0))
    assert set(whole_only.regions) == {"wt"}


def test_a_region_that_is_absent_in_truth_is_scored_apart() -> None:
    rows = score(
        [
            case("a", et=RegionResult(dice=0.8, hd95=2.0, empty=False)),
            case("b", et=RegionResult(dice=0.0, hd95=None, empty=False)),
            case("c", et=RegionResult(dice=1.0, hd95=0.0, empty=True)),
            case("d", et=RegionResult(dice=0.0, hd95=None, empty=True)),
            case("e", et=RegionResult(dice=1.0, hd95=0.0, empty=True)),
        ],
        seed=0,
    )
    assert found(rows, "et", "dice").value == pytest.approx(0.4)
    assert found(rows, "et", "dice").n == 2
    distance = found(rows, "et", "hd95")
    assert (distance.value, distance.n, distance.undefined) == (2.0, 1, 1)
    left = found(rows, "et", "left_empty")
    assert left.value == pytest.approx(2 / 3) and left.n == 3
    assert {row.task for row in rows} == {"et"}


def test_class_scores_and_their_strata() -> None:
    cases = [
        case("a", idh=(1, 0.9), codeletion=(1, 0.8), grade=(0, (0.7, 0.2, 0.1))),
        case("b", idh=(1, 0.4), codeletion=(0, 0.3), grade=(1, (0.3, 0.6, 0.1))),
        case("c", idh=(0, 0.5), codeletion=(0, 0.9), grade=(1, (0.3, 0.3, 0.4))),
        case("d", idh=(0, 0.1), codeletion=(MISSING, 0.5), grade=(2, (0.1, 0.1, 0.8))),
        case("e", idh=(MISSING, 0.2), grade=(MISSING, None)),
    ]
    rows = score(cases, seed=0)
    overall = found(rows, "idh", "auc")
    assert (overall.value, overall.n, overall.positives) == (3 / 4, 4, 2)
    lower = found(rows, "idh", "auc_lower_grade")
    assert (lower.value, lower.n, lower.positives) == (1 / 2, 3, 2)
    codeletion = found(rows, "codeletion", "auc")
    assert (codeletion.value, codeletion.n, codeletion.positives) == (1 / 2, 3, 1)
    mutant = found(rows, "codeletion", "auc_idh_mutant")
    assert (mutant.value, mutant.n, mutant.positives) == (1, 2, 1)
    assert found(rows, "grade", "auc_grade_4").value == 1
    # 2: 1 of {.7 > .3, .3, .1}; 3: {.6, .3} over {.2, .1}: 1; 4: 1
    assert found(rows, "grade", "auc_macro").value == pytest.approx(1)
    assert found(rows, "grade", "auc_macro").positives is None
    without_mutants = score([case("x", codeletion=(1, 0.8), idh=(0, None))], seed=0)
    nothing = found(without_mutants, "codeletion", "auc_idh_mutant")
    assert (nothing.value, nothing.n, nothing.positives) == (None, 0, 0)


def test_comparison_is_over_the_cases_that_count_in_both() -> None:
    first = [case(str(i), wt=RegionResult(dice=0.5 + i / 20, hd95=1.0, empty=False)) for i in range(6)]
    second = [case(str(i), wt=RegionResult(dice=0.4 + i / 40, hd95=1.0, empty=False)) for i in (4, 2, 0, 9)]
    rows = compare({"a": first, "b": second}, "a", "b", seed=0)
    row = next(row for row in rows if row.metric == "dice")
    assert row.n == 3 and row.difference is not None and row.ratio is not None
    assert row.difference.value == pytest.approx(0.1 + 2 / 40)
    assert row.ratio.value == pytest.approx(0.6 / 0.45)


def test_site_scores_add_up() -> None:
    north = [
        case("a", wt=RegionResult(dice=0.5, hd95=1.0, empty=False), idh=(1, 0.9)),
        case("b", et=RegionResult(dice=1.0, hd95=0.0, empty=True), idh=(0, 0.2)),
    ]
    south = [case("c", wt=RegionResult(dice=0.7, hd95=1.0, empty=False), grade=(2, (0.1, 0.2, 0.7)))]
    total = SiteScores.of(north) + SiteScores.of(south)
    rows = total.rows()
    assert found(rows, "wt", "dice").value == pytest.approx(0.6)
    assert (found(rows, "idh", "auc").value, found(rows, "idh", "auc").positives) == (1, 1)
    assert found(rows, "grade", "auc_grade_4").value is None
    assert {row.task for row in rows} == {"wt", "idh", "grade"}
    assert SiteScores.from_json(json.loads(json.dumps(total.to_json()))) == total


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"idh": 2, "codeletion": 0, "grade": 0}},
        {"labels": {"idh": 1}},
        {"probabilities": {"idh": [1.0]}},
        {"probabilities": {"wt": [0.5, 0.5]}},
        {"regions": {"idh": {"dice": 1, "hd95": 0, "empty": False}}},
        {"patient": "x"},
    ],
)
def test_a_malformed_case_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(WireError):
        CaseResult.from_json({**case("a").to_json(), **change})
