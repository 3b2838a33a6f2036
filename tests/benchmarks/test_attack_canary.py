"""The audit finds what is broken, and no fault where there is none; its bound on numbers that a reader can check."""

from math import exp, log

import numpy as np
import pytest

from benchmarks import attack_canary
from benchmarks.attack_canary import CLAIM, Audit, audit, guess, lower_bound, p_value, released, table
from client.privacy.dp_sgd import PrivateOptimizer

SMALL = {"width": 32, "classes": 16, "steps": 1}
"""512 canaries."""


def test_without_delta_the_chance_is_a_binomial_tail() -> None:
    assert p_value(3, 3, 2, claim=0.0, delta=0.0) == pytest.approx(4 / 8)  # 3 ways to two heads, 1 to three
    assert p_value(10, 10, 10, claim=log(3), delta=0.0) == pytest.approx(0.75**10)
    assert p_value(100, 3, 1, claim=log(3), delta=0.0) == pytest.approx(1 - 0.25**3)
    assert p_value(5, 4, 0, claim=2.0, delta=0.1) == 1


def test_delta_adds_the_steepest_part_below() -> None:
    # one right guess below two has 3/8, and up to two below have (3/8 + 1/8) / 2
    assert p_value(3, 3, 2, claim=0.0, delta=0.01) == pytest.approx(4 / 8 + 2 * 3 * 0.01 * 3 / 8)
    # of four guesses with all right: 4/16, (4 + 6)/16/2, (4 + 6 + 4)/16/3, 15/16/4
    assert p_value(8, 4, 4, claim=0.0, delta=0.01) == pytest.approx(1 / 16 + 2 * 8 * 0.01 * 5 / 16)


def test_the_bound_is_where_the_chance_reaches_the_level() -> None:
    # all of n right: q^n = 0.001
    chance = 0.001 ** (1 / 500)
    assert lower_bound(500, 500, 500, 0.0, 0.999) == pytest.approx(log(chance / (1 - chance)), abs=1e-3)
    assert lower_bound(500, 500, 500, 1e-5, 0.999) < lower_bound(500, 500, 500, 0.0, 0.999)
    found = lower_bound(1000, 400, 330, 1e-5, 0.999)
    assert p_value(1000, 400, 330, found, 1e-5) <= 0.001 < p_value(1000, 400, 330, found + 2e-4, 1e-5)
    assert lower_bound(1000, 1000, 500, 1e-5, 0.999) == 0


def test_the_bound_keeps_below_a_mechanism_whose_epsilon_is_known() -> None:
    """Randomised response tells each coin with probability 1 / (1 + e^-1): its epsilon is 1."""
    rights = np.random.default_rng(5).binomial(2000, 1 / (1 + exp(-1)), size=100)
    bounds = [lower_bound(2000, 2000, int(right), 0.0, 0.999) for right in rights]
    assert max(bounds) <= 1
    assert np.mean(bounds) > 0.8


def test_the_surest_are_guessed() -> None:
    assert guess(np.array([1.4, 0.4, -3.0, 0.6]), 2).tolist() == [1, 0, -1, 0]
    assert guess(np.array([1.4, 0.4, -3.0, 0.6]), 4).tolist() == [1, -1, -1, 1]


def test_a_canary_moves_its_own_weight_by_the_clip_whatever_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = np.random.default_rng(1).random(512) < 0.5
    assert released(taken, 0.0, 32, 3) == pytest.approx(taken.astype(float), abs=1e-5)
    monkeypatch.setattr(attack_canary, "LENGTH", 1000.0)
    assert released(taken, 0.0, 32, 3) == pytest.approx(taken.astype(float), abs=1e-5)


def test_the_claim_stands_with_the_due_noise_and_is_refuted_without() -> None:
    shipped, broken = audit("as shipped", 1, **SMALL), audit("no noise", 1, **SMALL)
    assert not shipped.refuted and shipped.epsilon == pytest.approx(CLAIM, abs=2e-3)
    assert shipped.right < 0.7
    assert broken.refuted and broken.bounds[0] > 4 * CLAIM and broken.right == 1 and broken.epsilon is None


def test_lost_clipping_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unclipped(PrivateOptimizer):
        max_grad_norm: float

        def clip_and_accumulate(self) -> None:
            kept = self.max_grad_norm
            self.max_grad_norm = 1e9
            super().clip_and_accumulate()
            self.max_grad_norm = kept

    monkeypatch.setattr(attack_canary, "PrivateOptimizer", Unclipped)
    monkeypatch.setattr(attack_canary, "LENGTH", 30.0)
    assert audit("as shipped", 1, **SMALL).refuted


def test_the_table_says_which_claim_is_refuted() -> None:
    rows = [
        Audit("as shipped", 512, 3.75, 1.0, 0.55, (0.1, 0.0)),
        Audit("no noise", 512, 0.0, None, 1.0, (4.1, 3.4)),
    ]
    lines = table(rows).splitlines()
    assert lines[-2] == "| as shipped | 3.75 | 1.00 | 0.550 | 0.10 | 0.00 | stands |"
    assert lines[-1] == "| no noise | 0.00 | none holds | 1.000 | 4.10 | 3.40 | **refuted** |"
