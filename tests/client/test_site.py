"""A hospital whose folder grows while a run is in progress."""

from pathlib import Path

import pytest

from client.app import _site, answer
from client.site import Site
from shared_model import wire
from shared_model.config import SiteConfig
from shared_model.parameters import digest
from tests.federation import Cohort, small_simulation, start

PLAN = small_simulation(tasks=("wt", "idh")).plan


@pytest.fixture
def whole(cohort: Cohort, tmp_path: Path) -> SiteConfig:
    return cohort.configs(tmp_path / "sites")[0]


def test_cases_and_tasks_that_came_after_the_opening_do_not_weigh(whole: SiteConfig, tmp_path: Path) -> None:
    store = start(tmp_path / "run", PLAN)
    run, base = store.read()[0], store.model(0)
    names = sorted(path.name for path in whole.data.folder.iterdir() if path.is_dir())
    fewer = whole.data.model_copy(update={"cases": tuple(names[: len(names) // 2])})
    at_first = whole.model_copy(update={"data": fewer, "tasks": ("wt",)})
    opened = wire.decode(answer(at_first, wire.encode(wire.Opening(run=run, release=wire.RELEASE, plan=PLAN)), {})[0])
    assert isinstance(opened, wire.Terms) and opened.tasks == ("wt",)

    _site.cache_clear()  # each message finds a process of its own
    work = wire.Work(run=run, round=1, plan=PLAN.digest(), base=digest(base), settings={})
    text, tensors = answer(whole, wire.encode(work), base)
    update = wire.decode(text)
    assert isinstance(update, wire.Update)
    assert update.cases == opened.cases
    assert not [name for name in tensors if name.startswith("heads.idh")]


def test_a_process_that_serves_many_sites_holds_no_network_of_theirs(whole: SiteConfig, tmp_path: Path) -> None:
    store = start(tmp_path / "run", PLAN)
    run, base = store.read()[0], store.model(0)
    site = Site(whole, PLAN, run)
    site.work(wire.Work(run=run, round=1, plan=PLAN.digest(), base=digest(base), settings={}), base)
    assert not hasattr(site.learner, "network")
    site.close(wire.Closing(run=run, round=1, base=digest(base)), base)
    assert not hasattr(site.learner, "network")


def test_a_run_that_was_never_opened_is_refused(whole: SiteConfig, tmp_path: Path) -> None:
    store = start(tmp_path / "run", PLAN)
    run, base = store.read()[0], store.model(0)
    work = wire.Work(run=run, round=1, plan=PLAN.digest(), base=digest(base), settings={})
    refusal = wire.decode(answer(whole, wire.encode(work), base)[0])
    assert isinstance(refusal, wire.Refusal) and refusal.reason == "the run was not opened at this site"
