"""Epsilon against dp-accounting's two accountants and an integral, and what must never lower it.

dp-accounting bounds Renyi moments of fractional order from above, and leaves some out; Opacus sums their series. So the
two are compared at whole orders, and ours with all orders against the integral that defines the moments.
"""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.integrate import quad

from shared_model.accounting import TIGHT_BELOW, Accountant, epsilon, noise_for, noise_to_signal
from shared_model.guarantee import Steps

DELTA = 1e-5
GRID = [
    (patients, batch, noise, rounds)
    for patients, batch in [(100, 8), (300, 8), (300, 32), (500, 4), (50, 50)]
    for noise in (0.7, 1.0, 2.0, 8.0)
    for rounds in (1, 50)
]


def steps_of(patients: int, batch: int, noise: float, rounds: int) -> Steps:
    return Steps(rate=batch / patients, noise=noise, steps=rounds * max(1, patients // batch))


def moment(alpha: float, rate: float, noise: float) -> float:
    """log E[((1 - q) + q exp((2 x - 1) / 2 s^2))^alpha] / (alpha - 1) over x from N(0, s^2), by quadrature."""

    def integrand(x: float) -> float:
        ratio = np.logaddexp(np.log1p(-rate) if rate < 1 else -np.inf, np.log(rate) + (2 * x - 1) / (2 * noise**2))
        return float(np.exp(-(x**2) / (2 * noise**2) + alpha * ratio) / (noise * math.sqrt(2 * math.pi)))

    area, _ = quad(integrand, -12 * noise, alpha + 12 * noise, limit=500, points=[0, alpha], epsrel=1e-10)
    return math.log(area) / (alpha - 1)


@pytest.mark.parametrize("cell", GRID[::4], ids=str)
def test_the_renyi_bound_is_that_of_the_integral(cell: tuple[int, int, float, int]) -> None:
    steps, bounds = steps_of(*cell), {}
    for alpha in (order for order in RDPAccountant.DEFAULT_ALPHAS if order <= 30):
        spent = steps.steps * moment(alpha, steps.rate, steps.noise)
        bounds[alpha] = spent + math.log1p(-1 / alpha) - math.log(DELTA * alpha) / (alpha - 1)
    best = min(bounds, key=lambda alpha: bounds[alpha])
    found = epsilon([steps], DELTA, "rdp")
    assert epsilon([steps], DELTA) <= found <= bounds[best] * (1 + 1e-3)
    if best < max(bounds):  # or an order beyond those integrated is the best
        assert found == pytest.approx(bounds[best], rel=1e-3)


def reference(accountant: PLDAccountant | RdpAccountant, steps: Steps) -> float:
    event = PoissonSampledDpEvent(steps.rate, GaussianDpEvent(steps.noise))
    return float(accountant.compose(SelfComposedDpEvent(event, steps.steps)).get_epsilon(DELTA))


@pytest.mark.parametrize("cell", GRID, ids=str)
def test_epsilon_equals_dp_accountings(cell: tuple[int, int, float, int]) -> None:
    steps = steps_of(*cell)
    orders = list(range(2, 64))
    opacus = RDPAccountant()
    opacus.history = [(steps.noise, steps.rate, steps.steps)]
    renyi = reference(RdpAccountant(orders=orders), steps)
    assert opacus.get_epsilon(DELTA, alphas=orders) == pytest.approx(renyi, rel=1e-3)
    assert epsilon([steps], DELTA, "rdp") <= renyi * (1 + 1e-6)
    tight, found = reference(PLDAccountant(), steps), epsilon([steps], DELTA)
    if found < TIGHT_BELOW * 0.9:
        assert found == pytest.approx(tight, rel=0.02)
    assert found >= tight * 0.999


EVENTS = st.builds(
    Steps,
    rate=st.floats(1e-3, 1.0),
    noise=st.floats(0.6, 20.0),
    steps=st.integers(1, 300),
)


@settings(max_examples=8)
@given(EVENTS, st.sampled_from(["prv", "rdp"]))
def test_more_steps_less_noise_or_a_larger_rate_never_lowers_epsilon(event: Steps, accountant: Accountant) -> None:
    before = epsilon([event], DELTA, accountant)
    for change in (
        {"steps": event.steps + 1 + event.steps // 3},
        {"noise": event.noise * 0.9},
        {"rate": min(1.0, event.rate * 1.2)},
    ):
        assert epsilon([event.model_copy(update=change)], DELTA, accountant) >= before * (1 - 1e-6)


@settings(max_examples=4)
@given(st.lists(EVENTS, min_size=2, max_size=3))
def test_events_count_together_whatever_their_order(events: list[Steps]) -> None:
    whole = epsilon(events, DELTA)
    assert epsilon(events[::-1], DELTA) == whole
    assert all(epsilon([event], DELTA) <= whole * (1 + 1e-6) for event in events)


def test_a_round_in_two_parts_costs_what_it_costs_whole() -> None:
    parts = [Steps(rate=0.05, noise=1.0, steps=steps) for steps in (30, 70)]
    assert epsilon(parts, DELTA) == epsilon([Steps(rate=0.05, noise=1.0, steps=100)], DELTA)


def test_nothing_done_costs_nothing_and_no_noise_costs_all() -> None:
    assert epsilon([], DELTA) == epsilon([Steps(rate=0.1, noise=1, steps=0)], DELTA) == 0
    assert epsilon([Steps(rate=0.1, noise=0, steps=1)], DELTA) == math.inf
    with pytest.raises(ValueError, match="delta"):
        epsilon([], 1.0)


def test_the_noise_for_an_epsilon_is_the_least() -> None:
    noise = noise_for(3.0, DELTA, rate=8 / 300, steps=200)
    found, less = (epsilon([Steps(rate=8 / 300, noise=n, steps=200)], DELTA) for n in (noise, noise * 0.995))
    assert found <= 3.0 < less
    spent = [Steps(rate=8 / 300, noise=noise, steps=100)]
    more = noise_for(3.0, DELTA, rate=8 / 300, steps=200, spent=spent)
    assert more > noise and epsilon([*spent, Steps(rate=8 / 300, noise=more, steps=200)], DELTA) <= 3.0
    with pytest.raises(ValueError, match="already"):
        noise_for(1.0, DELTA, rate=8 / 300, steps=1, spent=spent)


def test_noise_to_signal_by_hand() -> None:
    assert noise_to_signal(0.97, 8, 62_200_000) == pytest.approx(956, rel=0.001)
