"""What a hospital is told of its budget, against accounting by hand."""

from pathlib import Path
from typing import Any

import pytest

from client.privacy.ledger import Budget, Ledger
from client.privacy.report import balance, in_words
from shared_model.accounting import epsilon
from shared_model.config import DataConfig, Plan, PolicyConfig, PrivacyPolicy, SiteConfig, parse_config
from shared_model.errors import ConfigError, RefusedError
from shared_model.guarantee import Steps

ROUND = Steps(rate=0.05, noise=1.0, steps=10)
WIDE = Budget(delta=1e-5, run=100.0, total=100.0)


def site(state: Path, **privacy: Any) -> SiteConfig:
    floor = PrivacyPolicy(patients=200, **privacy)
    data = DataConfig(layout="bids", folder=Path("cases"))
    return SiteConfig(site="north", data=data, tasks=("wt",), state=state, policy=PolicyConfig(privacy=floor))


def make_plan(**changes: Any) -> Plan:
    values = {
        "name": "long",
        "synthetic": True,
        "rounds": 400,
        "training": {"local_steps": 10, "parts": ["heads"]},
        "privacy": {"noise": 1.0, "patients_per_step": 10},
        **changes,
    }
    return parse_config(Plan, values, "test")


def test_spent_and_left_and_the_rounds_that_fit(tmp_path: Path) -> None:
    config = site(tmp_path, epsilon_per_run=2.0, epsilon=3.0)
    ledger = Ledger(tmp_path)
    for index in (1, 2):
        ledger.book(ledger.reserve("patients", "0" * 16, index, ROUND, WIDE), 10)
    found = balance(config, make_plan())
    done = [ROUND, ROUND]
    assert found.spent == pytest.approx(epsilon(done, 1e-5))
    assert found.left == pytest.approx(3.0 - found.spent)
    assert (found.rows, found.limit, found.delta) == (4, 3.0, 1e-5)
    fits = found.rounds
    assert fits is not None and 0 < fits < 400

    def within(rounds: int) -> bool:
        new = ROUND.model_copy(update={"steps": 10 * rounds})
        return epsilon([new], 1e-5) <= 2.0 and epsilon([*done, new], 1e-5) <= 3.0

    assert within(fits) and not within(fits + 1)
    assert in_words(found, make_plan())[-1] == f"of plan long {fits} of 400 rounds would still fit"


def test_no_more_rounds_are_said_to_fit_than_the_plan_has(tmp_path: Path) -> None:
    assert balance(site(tmp_path), make_plan(rounds=3)).rounds == 3


def test_nothing_fits_once_all_is_spent(tmp_path: Path) -> None:
    Ledger(tmp_path).reserve("patients", "0" * 16, 1, Steps(rate=0.5, noise=0.7, steps=50), WIDE)
    found = balance(site(tmp_path, epsilon_per_run=1.0, epsilon=1.0), make_plan())
    assert (found.rounds, found.left) == (0, 0.0)


def test_what_cannot_be_answered_is_said(tmp_path: Path) -> None:
    config = site(tmp_path)
    with pytest.raises(ConfigError, match=r"policy\.privacy: missing"):
        balance(config.model_copy(update={"policy": PolicyConfig()}), None)
    with pytest.raises(ConfigError, match="is not trained privately at this site"):
        balance(config, make_plan(privacy=None))
    with pytest.raises(RefusedError, match="a clipping norm of 3"):
        balance(config, make_plan(privacy={"clip": 3.0}))
