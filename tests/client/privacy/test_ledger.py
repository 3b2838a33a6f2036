"""The ledger: nothing is spent twice or for free, and what was done to its file shows."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.audit import AuditLog
from client.privacy.ledger import Budget, Ledger, replay, spent
from shared_model.accounting import epsilon
from shared_model.errors import DataError, RefusedError
from shared_model.guarantee import Steps

RUN, OTHER = "0" * 16, "1" * 16
ROUND = Steps(rate=0.05, noise=2.0, steps=10)
WIDE = Budget(1e-5, 100.0, 100.0)


def limit(rounds: float) -> Budget:
    """What so many rounds cost, and a hair more."""
    return Budget(1e-5, 1e3, epsilon([ROUND.model_copy(update={"steps": int(10 * rounds)})], 1e-5) + 1e-6)


def fill(ledger: Ledger, rounds: int, budget: Budget = WIDE) -> None:
    for index in range(1, rounds + 1):
        ledger.book(ledger.reserve("cohort", RUN, index, ROUND, budget), ROUND.steps)


def test_a_round_beyond_the_budget_is_refused_with_the_figures(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    fill(ledger, 3, limit(3))
    with pytest.raises(RefusedError, match=r"round 4 could bring the epsilon of this data set from .* hospital allows"):
        ledger.reserve("cohort", OTHER, 4, ROUND, limit(3))
    assert len(ledger.entries()) == 6
    ledger.reserve("another cohort", OTHER, 4, ROUND, limit(3))


def test_the_bound_of_a_run_counts_that_run_alone(tmp_path: Path) -> None:
    ledger, budget = Ledger(tmp_path), Budget(1e-5, limit(2).total, 1e3)
    fill(ledger, 2, budget)
    with pytest.raises(RefusedError, match="of this run"):
        ledger.reserve("cohort", RUN, 3, ROUND, budget)
    ledger.reserve("cohort", OTHER, 1, ROUND, budget)


def test_what_is_not_booked_counts_whole_and_what_is_booked_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first, second = (ledger.reserve("cohort", RUN, index, ROUND, WIDE) for index in (1, 2))
    ledger.book(first, 4)
    assert spent(ledger.entries(), "cohort") == [ROUND.model_copy(update={"steps": 4}), ROUND]
    for reservation, steps in ((first, 4), (second, 11), (second, -1), (99, 1)):
        with pytest.raises(ValueError, match=r"reservation|reserved"):
            ledger.book(reservation, steps)


def _reserve_and_die(state: Path) -> None:
    Ledger(state).reserve("cohort", RUN, 1, ROUND, limit(1))
    os.kill(os.getpid(), signal.SIGKILL)


def test_sigkill_after_a_reservation_gives_nothing_back(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_reserve_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert spent(Ledger(tmp_path).entries(), "cohort") == [ROUND]
    with pytest.raises(RefusedError):
        Ledger(tmp_path).reserve("cohort", RUN, 1, ROUND, limit(1))


def _try(state: Path) -> bool:
    try:
        Ledger(state).reserve("cohort", RUN, 1, ROUND, limit(3))
    except RefusedError:
        return False
    return True


def test_processes_at_the_same_time_spend_the_budget_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        granted = pool.map(_try, [tmp_path] * 12, chunksize=1)
    assert sum(granted) == 3
    assert len(Ledger(tmp_path).entries()) == len(replay(AuditLog(tmp_path))) == 3


def test_a_power_cut_between_row_and_audit_line_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)

    def cut(_: object) -> None:
        raise OSError

    with monkeypatch.context() as during:
        during.setattr(ledger, "_note", cut)
        with pytest.raises(OSError):
            ledger.reserve("cohort", RUN, 1, ROUND, WIDE)
    assert replay(AuditLog(tmp_path)) == []
    assert Ledger(tmp_path).entries() == replay(AuditLog(tmp_path)) != []


@pytest.mark.parametrize(
    "statement",
    [
        "update entries set steps = 1 where n = 1",
        "update entries set noise = 9.0 where n = 3",
        "update entries set data_set = 'other' where n = 1",
        "delete from entries where n = 2",
        "delete from entries where n >= 3",
        "delete from entries",
        "drop table entries",
        "alter table entries drop column noise",
    ],
)
def test_an_edited_ledger_stops_the_site(tmp_path: Path, statement: str) -> None:
    ledger = Ledger(tmp_path)
    fill(ledger, 2)
    with sqlite3.connect(ledger.path) as database:
        database.execute(statement)
    with pytest.raises(DataError, match=r"ledger\.db"):
        ledger.reserve("cohort", RUN, 3, ROUND, WIDE)


@pytest.mark.parametrize("how", ["lost", "older", "garbage", "link"])
def test_a_ledger_that_is_not_the_last_one_stops_the_site(tmp_path: Path, how: str) -> None:
    ledger = Ledger(tmp_path / "state")
    fill(ledger, 1)
    shutil.copy(ledger.path, tmp_path / "older.db")
    fill(ledger, 1)
    head = ledger.head
    ledger.path.unlink()
    if how == "older":
        shutil.copy(tmp_path / "older.db", ledger.path)
    elif how == "garbage":
        ledger.path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    elif how == "link":
        ledger.path.symlink_to(tmp_path / "older.db")
    with pytest.raises(DataError, match=r"ledger\.db"):
        ledger.reserve("cohort", RUN, 3, ROUND, WIDE)
    if how == "older":  # with the audit log of that time the coordinator's word is what shows it
        (tmp_path / "state" / "audit.jsonl").unlink()
        assert not ledger.contains(head) and ledger.contains(ledger.head)


OPERATIONS = st.lists(st.tuples(st.sampled_from(["reserve", "book", "abandon"]), st.integers(0, 10)), max_size=12)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_the_total_is_that_of_the_audit_log_and_never_falls_below_what_was_done(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    state = tmp_path_factory.mktemp("state")
    open_ones: list[int] = []
    certain = 0
    for what, steps in operations:
        ledger = Ledger(state)
        if what == "reserve":
            open_ones.append(ledger.reserve("cohort", RUN, 1, ROUND, WIDE))
            certain += ROUND.steps
        elif what == "book" and open_ones:
            ledger.book(open_ones.pop(), steps)
            certain += steps - ROUND.steps
        elif what == "abandon" and open_ones:
            open_ones.pop()
    entries = Ledger(state).entries()
    assert replay(AuditLog(state)) == entries
    assert sum(event.steps for event in spent(entries, "cohort")) == certain
    assert AuditLog(state).verify() is None
