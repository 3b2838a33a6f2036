"""The hospital's policy: each bound refuses in its own words, its limit passes; no plan is approved by accident."""

import json
from pathlib import Path
from typing import Any

import pytest

from client.policy import Approvals, check_plan, check_release
from shared_model.config import DataConfig, Plan, SiteConfig, parse_config
from shared_model.errors import ConfigError, RefusedError
from shared_model.wire import RELEASE


def config(**policy: Any) -> SiteConfig:
    data = DataConfig(layout="bids", folder=Path("cases"))
    site = SiteConfig(site="north", data=data, tasks=("wt",), state=Path("state"))
    return site.model_copy(update={"policy": site.policy.model_validate(policy)})


def make_plan(rounds: int = 1, local_steps: int = 1, batch_size: int = 1, **other: Any) -> Plan:
    values = {
        "name": "test",
        "synthetic": True,
        "rounds": rounds,
        "training": {"local_steps": local_steps, "batch_size": batch_size},
    }
    return parse_config(Plan, values | other, "test")


def refusal(site: SiteConfig, plan: Plan, cases: int = 100) -> str | None:
    """Why the site refuses; None if it takes part."""
    try:
        check_plan(site, plan, cases, plan.training.batch_size)
    except RefusedError as error:
        return error.what
    return None


@pytest.mark.parametrize(
    ("policy", "within", "beyond", "words"),
    [
        ({"rounds": 5}, {"rounds": 5}, {"rounds": 6}, "the plan asks 6 rounds, the site's policy allows 5"),
        (
            {"steps_per_round": 30},
            {"local_steps": 30},
            {"local_steps": 31},
            "the plan asks 31 steps per round, the site's policy allows 30",
        ),
        (  # 500 steps of 4 crops pass 20 times over 100 cases
            {"epochs_per_round": 20},
            {"local_steps": 500, "batch_size": 4},
            {"local_steps": 505, "batch_size": 4},
            "the plan asks 20.2 epochs per round, the site's policy allows 20",
        ),
        (
            {"epochs_per_round": 20, "steps_per_round": 3000},
            {"local_steps": 2000},
            {"local_steps": 2001},
            "the plan asks 20.01 epochs per round, the site's policy allows 20",
        ),
        (
            {"epochs_per_round": 0.05},
            {"local_steps": 5},
            {"local_steps": 6},
            "the plan asks 0.06 epochs per round, the site's policy allows 0.05",
        ),
    ],
    ids=["rounds", "steps", "epochs", "a hundredth of an epoch", "less than an epoch"],
)
def test_a_bound_lets_its_limit_pass_and_nothing_more(
    policy: dict[str, Any], within: dict[str, int], beyond: dict[str, int], words: str
) -> None:
    assert refusal(config(**policy), make_plan(**within)) is None
    assert refusal(config(**policy), make_plan(**beyond)) == words


def test_fewer_cases_than_the_sites_own_minimum_are_refused_without_telling_how_many() -> None:
    site = config(minimum_cases=11)
    assert refusal(site, make_plan(), cases=11) is None
    for cases in (10, 0):
        assert refusal(site, make_plan(), cases) == "fewer than 11 training cases, the site's own minimum"


@pytest.mark.parametrize(
    ("releases", "good", "bad"),
    [((), RELEASE, "9.9"), (("9.9", "9.8"), "9.8", RELEASE)],
    ids=["its own by default", "those named"],
)
def test_another_release_is_refused(releases: tuple[str, ...], good: str, bad: str) -> None:
    site = config(releases=releases)
    check_release(site, good)
    with pytest.raises(RefusedError, match=f"release {bad}, this site accepts {', '.join(releases or (RELEASE,))}"):
        check_release(site, bad)


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path)


def edit(approvals: Approvals, kept_plan: Plan, **values: Any) -> None:
    """Change the file that keeps a plan."""
    path = approvals.state / "plans" / f"{kept_plan.digest()}.json"
    kept = json.loads(path.read_bytes())
    path.write_text(json.dumps(kept | values))


def waits(approvals: Approvals, plan: Plan) -> bool:
    try:
        approvals.check(plan)
    except RefusedError as error:
        assert error.what == f"plan {plan.digest()[:12]} waits for the hospital's approval"
        return True
    return False


def test_a_plan_waits_until_it_is_approved_and_no_other_with_it(approvals: Approvals) -> None:
    first, second = make_plan(rounds=1), make_plan(rounds=2)
    assert approvals.rows() == []
    assert waits(approvals, first)
    approvals.keep(first)
    approvals.keep(second)
    assert waits(approvals, first)
    approvals.approve(first)
    assert not waits(approvals, first)
    assert waits(approvals, second)
    approvals.keep(first)
    assert not waits(approvals, first)
    assert sorted(approvals.rows(), key=lambda row: row[0].rounds) == [(first, True), (second, False)]


@pytest.mark.parametrize("approved", [1, "true", "false", None, [True]], ids=repr)
def test_nothing_but_true_is_an_approval(approvals: Approvals, approved: object) -> None:
    plan = make_plan()
    approvals.keep(plan)
    edit(approvals, plan, approved=approved)
    assert waits(approvals, plan)


def test_an_approved_plan_whose_values_were_edited_is_refused(approvals: Approvals) -> None:
    plan, other = make_plan(rounds=1), make_plan(rounds=400)
    approvals.approve(plan)
    edit(approvals, plan, plan=other.model_dump(mode="json"))
    with pytest.raises(ConfigError, match="is not the plan that its name says"):
        approvals.check(plan)
    assert waits(approvals, other)
    with pytest.raises(ConfigError, match="is not the plan that its name says"):
        approvals.find("")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"plan": {}, "approved": true}', "\x00"], ids=repr)
def test_a_damaged_file_approves_nothing(approvals: Approvals, content: str) -> None:
    plan = make_plan()
    approvals.approve(plan)
    path = approvals.state / "plans" / f"{plan.digest()}.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        approvals.check(plan)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_is_found_by_the_beginning_of_its_hash(approvals: Approvals) -> None:
    plans = [make_plan(rounds=rounds) for rounds in range(1, 18)]  # 17 hashes, 16 first digits
    for plan in plans:
        approvals.keep(plan)
    approvals.approve(plans[0])
    digests = [plan.digest() for plan in plans]
    assert approvals.find(digests[0]) == (plans[0], True)
    assert approvals.find(digests[1][:20]) == (plans[1], False)
    shared = next(digest[0] for digest in digests if sum(other[0] == digest[0] for other in digests) > 1)
    with pytest.raises(ConfigError, match=f"several plans here with a hash that begins with '{shared}'"):
        approvals.find(shared)
    for none in ("", "x", digests[0] + "0"):
        with pytest.raises(ConfigError, match=f"no plan here with a hash that begins with '{none}'"):
            approvals.find(none)
