"""A patient withdraws in the middle of a run: everything that holds him goes, and nothing tells of him."""

import csv
import json
from pathlib import Path

import pytest

from client.app import answer
from client.data.cases import Case
from client.data.identity import patient_hash
from client.data.reading import read_cases
from client.withdrawal import Withdrawals
from server.store import RunStore
from shared_model import wire
from shared_model.config import Plan, SiteConfig
from shared_model.errors import DataError
from shared_model.parameters import Tensors, digest
from tests.federation import Cohort, small_simulation, start

PLAN: Plan = small_simulation(rounds=3).plan


@pytest.fixture
def site(cohort: Cohort, tmp_path: Path) -> SiteConfig:
    """A site with a cache of its own and an exclusion list that is still empty."""
    config = next(config for config in cohort.configs(tmp_path / "sites") if config.site == "birch")
    (config.state / "cache").unlink()
    exclude = tmp_path / "withdrawn.txt"
    exclude.write_text("# nobody yet\n")
    data = config.data.model_copy(update={"exclude": exclude})
    return config.model_copy(update={"data": data, "minimum_cell": 1})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return start(tmp_path / "run", PLAN)


def send(site: SiteConfig, message: wire.Header, tensors: Tensors | None = None) -> wire.Header:
    return wire.decode(answer(site, wire.encode(message), tensors or {})[0])


def work(store: RunStore, index: int, base: Tensors) -> wire.Work:
    return wire.Work(run=store.read()[0], round=index, plan=PLAN.digest(), base=digest(base), settings={})


def withdraw(site: SiteConfig, *cases: Case) -> None:
    assert site.data.exclude is not None
    with site.data.exclude.open("a") as file:
        file.writelines(f"{case.patient}\n" for case in cases)


def test_the_effects(site: SiteConfig, store: RunStore) -> None:
    run, base = store.read()[0], store.model(0)
    opened = send(site, wire.Opening(run=run, release=wire.RELEASE, plan=PLAN))
    first = send(site, work(store, 1, base), base)
    assert isinstance(opened, wire.Terms) and isinstance(first, wire.Update) and first.evaluation.dice
    everybody = read_cases(site.data, PLAN.grade_edition)
    entries = list((site.state / "cache" / "cases").iterdir())
    assert len(entries) == len(everybody)

    gone = everybody[0]
    withdraw(site, gone)
    again = send(site, work(store, 1, base), base)
    assert isinstance(again, wire.Refusal) and "withdrew" in again.reason and gone.patient not in again.reason
    assert len(list((site.state / "cache" / "cases").iterdir())) == len(everybody) - 1
    assert not (site.state / "answers" / run).exists()  # nor the moments

    coarse = site.model_copy(update={"minimum_cell": 2})
    second = send(coarse, work(store, 2, base), base)
    assert isinstance(second, wire.Update)
    assert second.evaluation.dice == {} and second.evaluation.auc == {}
    assert all(0 < count <= opened.cases[group] for group, count in second.cases.items())
    assert gone.id not in [case.id for case in read_cases(site.data, PLAN.grade_edition)]

    closed = send(coarse, wire.Closing(run=run, round=3, base=digest(base)), base)
    assert isinstance(closed, wire.Evaluated) and closed.evaluation.dice == {}
    kept = json.loads((site.state / "withdrawals.json").read_bytes())
    assert kept == {"patients": {patient_hash(gone.patient): [run]}, "changed": {}, "declined": {}}
    assert gone.patient not in (site.state / "withdrawals.json").read_text()


def test_the_evaluation_is_free_again_when_enough_have_gone(site: SiteConfig, store: RunStore) -> None:
    run, base = store.read()[0], store.model(0)
    send(site, wire.Opening(run=run, release=wire.RELEASE, plan=PLAN))
    send(site, work(store, 1, base), base)
    everybody = read_cases(site.data, PLAN.grade_edition)
    withdraw(site, everybody[0])
    Withdrawals(site.state).notice(site)
    assert Withdrawals(site.state).suppresses(run, 2)
    withdraw(site, everybody[1])
    Withdrawals(site.state).notice(site)
    assert not Withdrawals(site.state).suppresses(run, 2)


def test_who_never_took_part_changes_nothing(site: SiteConfig, store: RunStore) -> None:
    run, base = store.read()[0], store.model(0)
    send(site, wire.Opening(run=run, release=wire.RELEASE, plan=PLAN))
    first = send(site, work(store, 1, base), base)
    assert site.data.exclude is not None
    site.data.exclude.write_text("somebody else\n")
    assert send(site, work(store, 1, base), base) == first
    assert Withdrawals(site.state).patients == {patient_hash("somebody else"): []}


def test_a_torn_record_stops_the_site(site: SiteConfig) -> None:
    (site.state / "withdrawals.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Withdrawals(site.state)


def test_a_list_may_name_the_case_instead_of_the_patient(site: SiteConfig, store: RunStore, tmp_path: Path) -> None:
    assert site.data.labels is not None
    rows = list(csv.DictReader(site.data.labels.open()))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"patient": f"person {index}"} for index, row in enumerate(rows))
    site = site.model_copy(update={"data": site.data.model_copy(update={"labels": tmp_path / "labels.csv"})})
    run, base = store.read()[0], store.model(0)
    send(site, wire.Opening(run=run, release=wire.RELEASE, plan=PLAN))
    send(site, work(store, 1, base), base)
    entries = len(list((site.state / "cache" / "cases").iterdir()))
    assert site.data.exclude is not None
    site.data.exclude.write_text(f"{rows[0]['case']}\n")
    again = send(site, work(store, 1, base), base)
    assert isinstance(again, wire.Refusal) and "withdrew" in again.reason
    assert len(list((site.state / "cache" / "cases").iterdir())) == entries - 1
    assert Withdrawals(site.state).changed == {run: 1}
