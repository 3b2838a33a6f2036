"""Where a round's time went, from a journal and audit logs that a reader can check."""

from pathlib import Path

import pytest

from benchmarks.scale import table
from benchmarks.scale_cost import Outcome, RoundCost, round_cost, site_work
from benchmarks.scale_memory import Memory
from benchmarks.scale_run import CELLS
from client.audit import AuditLog

MEMORY = Memory(2, [(99.0, 500.0, 0.0), (103.0, 600.0, 900.0), (108.0, 700.0, 800.0), (120.0, 999.0, 999.0)])
JOURNAL = [
    {"event": "round", "time": 100.5},
    {"event": "admitted", "time": 105.0, "site": "a", "evaluated": 102.0},
    {"event": "reply", "time": 105.5, "site": "a"},
    {"event": "admitted", "time": 107.5, "site": "b", "evaluated": 104.0},
    {"event": "reply", "time": 108.0, "site": "b"},
    {"event": "reduced", "time": 108.3},
    {"event": "committed", "time": 108.5},
]
WORK = {"a": [(101.0, 104.0)], "b": [(101.0, 107.0)]}


def cost() -> RoundCost:
    return round_cost(JOURNAL, WORK, 1, 100.0, MEMORY)


def test_the_phases_of_a_round_add_up_to_it() -> None:
    found = cost()
    assert found.seconds == pytest.approx(8.5)
    assert found.sending == pytest.approx(1.0)
    assert (found.evaluation, found.training) == pytest.approx(((1 + 3) / 2, (2 + 3) / 2))
    assert found.carrying == pytest.approx(7.0 - 2.0 - 2.5)
    assert (found.reduction, found.commit) == pytest.approx((0.3, 0.2))
    assert found.spooling == pytest.approx(1.0)
    assert (found.site_evaluation, found.site_training) == pytest.approx((2.0, 2.5))


def test_memory_is_that_of_the_round() -> None:
    assert (cost().coordinator, cost().worker) == (700.0, 900.0)


def test_a_sites_work_is_between_its_asking_and_its_update(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for event, kind in (("joined", ""), ("sent", "terms"), ("asked to train", ""), ("sent", "update")):
        log.append(event, {"kind": kind})
    [(asked, sent)] = site_work(tmp_path)
    assert asked <= sent


def test_the_table_says_synthetic_and_has_a_row_for_each_cell() -> None:
    outcomes = [
        Outcome(len(cell.sizes), sum(cell.sizes), cell.cluster, 1.0, 2.0, [cost()], 700.0, 900.0)
        for cell in CELLS.values()
    ]
    text = table(outcomes)
    assert "Synthetic" in text
    assert [line.split(" | ")[0] for line in text.splitlines()[4:]] == ["| 4", "| 23", "| 23", "| 100"]
