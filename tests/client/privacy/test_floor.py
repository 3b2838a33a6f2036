"""A plan's privacy against a site's own: what is refused and in which words, and what the site answers."""

from pathlib import Path
from typing import Any

import pytest

from client.privacy.floor import agreed
from shared_model.config import DataConfig, Plan, PolicyConfig, PrivacyPolicy, SiteConfig, parse_config
from shared_model.errors import ConfigError, RefusedError
from shared_model.guarantee import Guarantee

ASKED = {"noise": 1.0, "clip": 0.5, "patients_per_step": 12, "delta": 1e-6}


def site(**privacy: Any) -> SiteConfig:
    data = DataConfig(layout="bids", folder=Path("cases"))
    floor = parse_config(PrivacyPolicy, {"patients": 240, **privacy}, "test") if privacy != {"none": True} else None
    return SiteConfig(site="north", data=data, tasks=("wt",), state=Path("s"), policy=PolicyConfig(privacy=floor))


def make_plan(parts: tuple[str, ...] = ("heads",), **privacy: Any) -> Plan:
    asked = None if privacy == {"none": True} else {**ASKED, **privacy}
    values = {"name": "test", "synthetic": True, "training": {"parts": parts}, "privacy": asked}
    return parse_config(Plan, values, "test")


def test_the_site_answers_with_the_plans_noise_or_its_own_whichever_is_more() -> None:
    assert agreed(site(), make_plan()) == Guarantee(noise=1.0, clip=0.5, rate=0.05, delta=1e-6)
    assert agreed(site(minimum_noise=2.5), make_plan()) == Guarantee(noise=2.5, clip=0.5, rate=0.05, delta=1e-6)


def test_without_a_plan_for_it_only_a_site_that_requires_privacy_declines() -> None:
    for policy in ({"none": True}, {}, {"mode": "never"}):
        assert agreed(site(**policy), make_plan(none=True)) is None
    with pytest.raises(RefusedError, match="no differential privacy, the site's policy demands it"):
        agreed(site(mode="required"), make_plan(none=True))


def test_a_site_that_never_trains_privately_trains_plainly() -> None:
    assert agreed(site(mode="never"), make_plan(noise=0.0)) is None


@pytest.mark.parametrize(
    ("policy", "plan", "words"),
    [
        ({"none": True}, {}, r"the site's policy does not say how"),
        ({}, {"noise": 0.0}, "privacy without noise, which protects nobody"),
        ({}, {"clip": 1.01}, "a clipping norm of 1.01, the site's policy allows 1"),
        ({}, {"delta": 1.1e-5}, "a delta of 1.1e-05, the site's policy allows 1e-05"),
        ({"delta": 1e-7}, {}, "a delta of 1e-06, the site's policy allows 1e-07"),
        ({"patients": 11}, {}, "patients per step of 12, the site's policy allows 11"),
        ({}, {"parts": ("all",)}, "trains 'all' privately, the site's policy allows decoder, adapters, heads"),
        ({"parts": ["heads"]}, {"parts": ("heads", "adapters")}, "trains 'adapters' privately"),
    ],
)
def test_a_plan_beyond_the_floor_is_refused(policy: dict[str, Any], plan: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        agreed(site(**policy), make_plan(**plan))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"patients": 50_000, "delta": 1e-5}, "delta: 1e-05 is above 2e-06"),
        ({"delta": 2e-5}, "delta: 2e-05 is above 1e-05"),
        ({"epsilon_per_run": 4, "epsilon": 3}, "one run cannot cost more than all"),
        ({"minimum_noise": 0}, "minimum_noise"),
        ({"patients": 0}, "patients"),
    ],
)
def test_a_floor_that_protects_nothing_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        site(**values)


def test_the_largest_delta_by_hand() -> None:
    assert PrivacyPolicy(patients=50).largest_delta == 1e-5
    assert PrivacyPolicy(patients=40_000).largest_delta == pytest.approx(2.5e-6)
    assert PrivacyPolicy(patients=50, delta=1e-9).largest_delta == 1e-9
