"""One contract for every rule, and the numbers of each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregation import build
from server.aggregation.base import RULES, register
from shared_model.config import AggregationConfig
from shared_model.errors import ConfigError
from shared_model.parameters import Tensors


@pytest.mark.parametrize("name", sorted(RULES))
class TestEveryRule:
    def test_sites_that_agree_are_left_as_they_are(self, name: str) -> None:
        rule = build(AggregationConfig(rule=name))
        value = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        result = rule.reduce([value, value, value], [1, 20, 300], np.zeros_like(value))
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, value)

    def test_one_site_alone_is_returned_to_the_bit(self, name: str) -> None:
        rule = build(AggregationConfig(rule=name))
        value = np.random.default_rng(1).normal(size=1000).astype(np.float32)
        assert rule.reduce([value], [7], np.zeros_like(value)).tobytes() == value.tobytes()

    def test_a_result_lies_between_the_sites(self, name: str) -> None:
        rule = build(AggregationConfig(rule=name))
        values = list(np.random.default_rng(2).normal(size=(5, 50)).astype(np.float32))
        result = rule.reduce(values, [1, 2, 3, 4, 5], values[0])
        assert (result >= np.min(values, axis=0) - 1e-6).all()
        assert (result <= np.max(values, axis=0) + 1e-6).all()

    def test_inputs_are_not_changed(self, name: str) -> None:
        rule = build(AggregationConfig(rule=name))
        values = [np.ones(3, np.float32), np.zeros(3, np.float32)]
        rule.reduce(values, [1, 1], np.zeros(3, np.float32))
        assert values[0].tolist() == [1, 1, 1]
        assert values[1].tolist() == [0, 0, 0]

    def test_a_step_keeps_shape_and_kind_and_changes_nothing_that_it_is_given(self, name: str) -> None:
        rule = build(AggregationConfig(rule=name))
        base, mean = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
        memory: Tensors = {}
        for _ in range(3):
            given = [value.tobytes() for value in (base, mean, *memory.values())]
            result, after = rule.step(base, mean, memory)
            assert [value.tobytes() for value in (base, mean, *memory.values())] == given
            assert all((value.dtype, value.shape) == (np.float32, base.shape) for value in (result, *after.values()))
            memory = after

    def test_sites_that_do_not_move_a_tensor_leave_it_to_the_bit(self, name: str) -> None:
        base = np.random.default_rng(4).normal(size=50).astype(np.float32)
        assert build(AggregationConfig(rule=name)).step(base, base.copy(), {})[0].tobytes() == base.tobytes()

    def test_equal_rounds_make_equal_bytes(self, name: str) -> None:
        base, mean = np.random.default_rng(5).normal(size=(2, 50)).astype(np.float32)
        made = []
        for _ in range(2):
            rule = build(AggregationConfig(rule=name))
            first, memory = rule.step(base, mean, {})
            second, memory = rule.step(first, mean, memory)
            made.append([value.tobytes() for value in (first, second, *memory.values())])
        assert made[0] == made[1]


@pytest.mark.parametrize("name", sorted(set(RULES) - {"fedadam"}))
def test_all_rules_but_one_take_what_the_sites_made_and_remember_nothing(name: str) -> None:
    base, mean = np.random.default_rng(6).normal(size=(2, 5)).astype(np.float32)
    result, memory = build(AggregationConfig(rule=name)).step(base, mean, {})
    assert result.tobytes() == mean.tobytes() and memory == {}


VALUES = [np.array(row, np.float32) for row in ([1, 10], [2, 30], [3, 20], [4, 50], [1000, -1000])]
"""Four sites and an attacker; two coordinates."""
CASES = [1, 1, 1, 1, 10_000]


def test_median_by_hand() -> None:
    rule = build(AggregationConfig(rule="median"))
    assert rule.reduce(VALUES, CASES, np.zeros(2, np.float32)).tolist() == [3, 20]
    assert rule.reduce(VALUES[:4], CASES[:4], np.zeros(2, np.float32)).tolist() == [2.5, 25]


def test_trimmed_mean_by_hand() -> None:
    rule = build(AggregationConfig(rule="trimmed-mean"))
    assert rule.reduce(VALUES, CASES, np.zeros(2, np.float32)).tolist() == [3, 20]
    third = build(AggregationConfig(rule="trimmed-mean", options={"share": 0.1}))  # half a site: nothing is trimmed
    assert third.reduce(VALUES[:4], CASES[:4], np.zeros(2, np.float32)).tolist() == [2.5, 27.5]


@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 0.49))
def test_trimmed_mean_is_that_of_sorted_lists(sites: int, seed: int, share: float) -> None:
    values = list(np.random.default_rng(seed).normal(size=(sites, 6)).astype(np.float32))
    rule = build(AggregationConfig(rule="trimmed-mean", options={"share": share}))
    found = rule.reduce(values, [1] * sites, values[0])
    for coordinate in range(6):
        column = sorted(float(value[coordinate]) for value in values)
        trim = int(share * sites + 1e-9)
        rest = column[trim : sites - trim]
        assert found[coordinate] == pytest.approx(sum(rest) / len(rest), rel=1e-6, abs=1e-7)


def test_clipped_mean_by_hand() -> None:
    assert build(AggregationConfig(rule="clipped-mean")).scales([1.0, 2.0, 50.0]) == [1.0, 1.0, 0.04]
    assert build(AggregationConfig(rule="clipped-mean", options={"bound": 0.5})).scales([1.0, 0.25]) == [0.5, 1.0]
    assert build(AggregationConfig(rule="fedavg")).scales([1.0, 50.0]) == [1.0, 1.0]


def test_fedavg_by_hand() -> None:
    rule = build(AggregationConfig(rule="fedavg"))
    values = [np.array([1, 10], np.float32), np.array([4, 20], np.float32)]
    assert rule.reduce(values, [1, 2], np.zeros(2, np.float32)).tolist() == [3, pytest.approx(50 / 3)]


def test_fedprox_averages_alike_and_tells_the_sites_mu() -> None:
    rule = build(AggregationConfig(rule="fedprox", options={"mu": 0.5}))
    assert rule.settings() == {"mu": 0.5}
    assert build(AggregationConfig(rule="fedavg")).settings() == {}
    values = [np.array([1], np.float32), np.array([4], np.float32)]
    assert rule.reduce(values, [1, 2], np.zeros(1, np.float32)).tolist() == [3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            AggregationConfig(rule="fedsgd"),
            "'fedsgd' is unknown. Known are clipped-mean, fedadam, fedavg, fedprox, median, trimmed-mean",
        ),
        (AggregationConfig(rule="fedavg", options={"mu": 1}), "mu: unknown key"),
        (AggregationConfig(rule="fedprox", options={"mu": -1}), "mu: "),
    ],
)
def test_an_unknown_rule_or_option_is_refused(config: AggregationConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(config)


def test_a_rule_has_its_name_alone() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register("fedavg")(RULES["fedprox"])
