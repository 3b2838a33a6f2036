"""What a plan's privacy is said to cost, against accounting and counts by hand."""

from typing import Any

import pytest

from shared_model.accounting import epsilon
from shared_model.config import Plan, parse_config
from shared_model.errors import ConfigError
from shared_model.guarantee import Steps
from shared_model.planning import costs, lines, size, verdict


def make_plan(parts: tuple[str, ...] = ("adapters", "heads"), preset: str = "tiny", **privacy: Any) -> Plan:
    values = {
        "name": "test",
        "synthetic": True,
        "rounds": 5,
        "model": {"preset": preset},
        "training": {"local_steps": 10, "parts": parts},
        "privacy": {"noise": 1.0, "patients_per_step": 8, **privacy},
    }
    return parse_config(Plan, values, "test")


def test_costs_are_the_accountants() -> None:
    small, large = costs(make_plan(), [100, 40_000], None)
    assert small.epsilon == epsilon([Steps(rate=0.08, noise=1.0, steps=50)], 1e-5)
    assert (large.rate, large.delta) == (0.0002, pytest.approx(2.5e-6))
    assert small.noise is None


def test_the_noise_for_a_wanted_epsilon_gives_it() -> None:
    (row,) = costs(make_plan(), [300], 3.0)
    assert row.noise is not None
    reached = epsilon([Steps(rate=8 / 300, noise=row.noise, steps=50)], 1e-5)
    assert 2.9 <= reached <= 3.0


@pytest.mark.parametrize(("preset", "numbers"), [("tiny", 4_125_123), ("base", 62_542_791)])
def test_everything_is_the_whole_network(preset: str, numbers: int) -> None:
    assert size(make_plan(("all",), preset)) == numbers


def test_the_verdict_is_honest() -> None:
    """sqrt(62,542,791) / 8 = 988.6."""
    said = verdict(make_plan(("all",), "base"), 1.0)
    assert "62542791 numbers are trained; noise to signal at most 989 : 1" in said
    assert "this trains noise" in said
    assert "this trains noise" not in verdict(make_plan(("adapters",), patients_per_step=128), 1.0)


def test_the_table_has_a_line_for_each_size() -> None:
    said = lines(make_plan(), [100, 300], 4.0)
    assert said[0] == "plan test: 5 rounds of 10 steps, noise 1"
    assert [line.split()[0] for line in said[2:4]] == ["100", "300"]
    assert said[-2].startswith("noise 1: ") and said[-1].startswith("noise 1.0")


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="has no differential privacy"):
        costs(make_plan().model_copy(update={"privacy": None}), [100], None)
    with pytest.raises(ConfigError, match="8 cannot be drawn of 7 patients"):
        costs(make_plan(), [7], None)
