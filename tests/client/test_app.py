"""The site's door: what it answers, what it refuses, and that a refusal names no file."""

from pathlib import Path

import pytest

from client.app import answer
from shared_model import wire
from shared_model.config import SiteConfig
from shared_model.errors import WireError
from tests.federation import Cohort, small_simulation, start

PLAN = small_simulation(rounds=1).plan
RUN = "0123456789abcdef"


def opening(**change: object) -> str:
    return wire.encode(wire.Opening(run=RUN, release=wire.RELEASE, plan=PLAN).model_copy(update=change))


@pytest.fixture
def birch(cohort: Cohort, tmp_path: Path) -> SiteConfig:
    return next(config for config in cohort.configs(tmp_path / "sites") if config.site == "birch")


def reason(config: SiteConfig, header: str) -> str:
    text, tensors = answer(config, header, {})
    refusal = wire.decode(text)
    assert isinstance(refusal, wire.Refusal)
    assert tensors == {}
    assert str(config.state) not in refusal.reason
    assert "synthetic-" not in refusal.reason
    return refusal.reason


def test_terms_tell_the_declared_tasks_and_labelled_cases(birch: SiteConfig) -> None:
    terms = wire.decode(answer(birch, opening(), {})[0])
    assert isinstance(terms, wire.Terms)
    assert terms.tasks == ("wt", "tc", "et", "idh", "grade")
    assert "codeletion" not in terms.cases
    assert terms.cases["trunk"] == 5  # 6 patients, one of them held out
    assert terms.cases["class-trunk"] <= 5


def test_counts_are_rounded_down_and_a_small_task_is_not_trained(birch: SiteConfig) -> None:
    coarse = birch.model_copy(update={"minimum_cell": 2})
    terms = wire.decode(answer(coarse, opening(), {})[0])
    assert isinstance(terms, wire.Terms)
    assert set(terms.cases.values()) == {4}
    none = birch.model_copy(update={"minimum_cell": 11})
    assert reason(none, opening()).startswith("fewer than 1 training cases")


def test_another_release_is_refused(birch: SiteConfig) -> None:
    assert "release 9.9" in reason(birch, opening(release="9.9"))


def test_work_before_an_opening_is_refused(birch: SiteConfig) -> None:
    work = wire.Work(run=RUN, round=1, plan=PLAN.digest(), base="0" * 64, settings={})
    assert "not opened at this site" in reason(birch, wire.encode(work))


def test_another_plan_or_other_weights_are_refused(birch: SiteConfig, tmp_path: Path) -> None:
    answer(birch, opening(), {})
    work = wire.Work(run=RUN, round=1, plan="0" * 64, base="0" * 64, settings={})
    assert "the plan is not the one" in reason(birch, wire.encode(work))
    work = work.model_copy(update={"plan": PLAN.digest()})
    base = start(tmp_path / "run", PLAN).model(0)
    refusal = wire.decode(answer(birch, wire.encode(work), base)[0])
    assert isinstance(refusal, wire.Refusal)
    assert "not those that the message names" in refusal.reason


def test_a_fault_in_the_data_is_told_by_kind_alone_and_logged_at_the_site(birch: SiteConfig) -> None:
    lost = birch.model_copy(update={"data": birch.data.model_copy(update={"labels": birch.state / "lost.csv"})})
    assert reason(lost, opening()).startswith("DataError at the site")
    log = (birch.state / "logs" / "errors.log").read_text()
    assert "DataError" in log
    assert "client/data/reading.py" in log
    assert "lost.csv" not in log


def test_what_no_coordinator_sends_is_refused(birch: SiteConfig) -> None:
    assert "not sent 'refusal'" in reason(birch, wire.encode(wire.Refusal(run=RUN, site="x", reason="y")))
    with pytest.raises(WireError):
        answer(birch, "garbage", {})
