"""One contract for every rule, and the numbers of each."""

import numpy as np
import pytest

from server.aggregation import build
from server.aggregation.base import RULES, register
from shared_model.config import AggregationConfig
from shared_model.errors import ConfigError


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
        (AggregationConfig(rule="fedsgd"), "'fedsgd' is unknown. Known are fedavg, fedprox"),
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
