"""What a site's data sets have spent of their privacy: state/ledger.db, SQLite, to which rows are added and no more.

A row is an event: so many steps at a sampling rate and a noise, reserved before a round and booked after it. Epsilon is
computed from all events of a data set when it is asked for, and never kept. A reservation without a booking counts
whole, so that no crash gives budget back. Each row has the hash of the one before, and its number and hash are the
ledger's head. Every row stands in the audit log too: a ledger that was edited, cut, copied back or lost is refused.
"""

import fcntl
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from client.audit import START, AuditLog
from shared_model.accounting import epsilon
from shared_model.checkpoint import open_to_append
from shared_model.errors import DataError, RefusedError
from shared_model.guarantee import Steps

RESTORE = "restore the newest backup of the state folder"
EVENT = "ledger"
"""The event under which the audit log holds each row."""
_TABLE = """
create table if not exists entries (
    n integer primary key, data_set text not null, reservation integer, run text not null, round integer not null,
    rate real not null, noise real not null, steps integer not null, hash text not null
) strict
"""


class Entry(NamedTuple):
    """A row; `reservation` is None where it is one, and the number of the one that it books otherwise."""

    n: int
    data_set: str
    reservation: int | None
    run: str
    round: int
    rate: float
    noise: float
    steps: int
    hash: str

    @property
    def event(self) -> Steps:
        return Steps(rate=self.rate, noise=self.noise, steps=self.steps)

    def digest(self, previous: str) -> str:
        """sha256 over the row and the hash of the one before."""
        return hashlib.sha256(json.dumps([previous, *self[:-1]]).encode()).hexdigest()


@dataclass(frozen=True)
class Budget:
    """What a hospital lets its data set spend.

    Attributes:
        delta: of all epsilons.
        run: largest epsilon of one run.
        total: largest epsilon of all runs together.
    """

    delta: float
    run: float
    total: float


def spent(entries: Sequence[Entry], data_set: str, run: str | None = None) -> list[Steps]:
    """The events of a data set, in all runs or in one: reservations, and in their place what was booked."""
    booked = {entry.reservation: entry for entry in entries if entry.reservation is not None}
    reserved = [entry for entry in entries if entry.reservation is None and entry.data_set == data_set]
    return [booked.get(entry.n, entry).event for entry in reserved if run in (None, entry.run)]


def _refuse_beyond(entries: Sequence[Entry], data_set: str, run: str, wanted: Steps, budget: Budget, what: str) -> None:
    for whose, scope, limit in (("of this run", run, budget.run), ("of this data set", None, budget.total)):
        before = spent(entries, data_set, scope)
        if (would := epsilon([*before, wanted], budget.delta)) > limit:
            now = epsilon(before, budget.delta)
            reason = f"{what} could bring the epsilon {whose} from {now:.3g} to {would:.3g}"
            raise RefusedError(f"{reason}; the hospital allows {limit:g}", "ask the hospital, or plan for less")


class Ledger:
    """The ledger of a site."""

    def __init__(self, state: Path) -> None:
        self.path = state / "ledger.db"
        self.audit = AuditLog(state)

    def entries(self) -> list[Entry]:
        """All rows, oldest first.

        Raises:
            DataError: the ledger was edited, cut or copied back, or cannot be read.
        """
        with self._locked() as database:
            return self._checked(database)

    @property
    def head(self) -> str:
        """Number and hash of the last row."""
        entries = self.entries()
        return f"{len(entries)}:{entries[-1].hash if entries else START}"

    def contains(self, head: str) -> bool:
        """Whether this ledger has the row with that number and hash."""
        number, value = head.split(":")
        known = [START, *(entry.hash for entry in self.entries())]
        return int(number) < len(known) and known[int(number)] == value

    def reserve(self, data_set: str, run: str, index: int, wanted: Steps, budget: Budget) -> int:
        """Set aside what round `index` could spend; the reservation's number. Two processes cannot spend the same.

        Raises:
            RefusedError: it could spend more than the budget; nothing is reserved.
            DataError: as `entries`.
        """
        with self._locked() as database:
            entries = self._checked(database)
            _refuse_beyond(entries, data_set, run, wanted, budget, f"round {index}")
            return self._add(database, entries, data_set, None, run, index, wanted)

    def check(self, data_set: str, run: str, wanted: Steps, budget: Budget) -> None:
        """Refuse a whole run that could spend more than the budget; nothing is reserved.

        Raises:
            RefusedError, DataError: as `reserve`.
        """
        _refuse_beyond(self.entries(), data_set, run, wanted, budget, "the run")

    def book(self, reservation: int, steps: int) -> None:
        """What was done of a reservation.

        Raises:
            ValueError: more than was reserved, there is no such reservation, or it is booked.
            DataError: as `entries`.
        """
        with self._locked() as database:
            entries = self._checked(database)
            reserved = {entry.n: entry for entry in entries if entry.reservation is None}
            if reservation not in reserved or reservation in {entry.reservation for entry in entries}:
                raise ValueError(f"{reservation} is no open reservation")
            entry = reserved[reservation]
            if not 0 <= steps <= entry.steps:
                raise ValueError(f"{steps} steps were done where {entry.steps} were reserved")
            done = entry.event.model_copy(update={"steps": steps})
            self._add(database, entries, entry.data_set, reservation, entry.run, entry.round, done)

    def _add(
        self,
        database: sqlite3.Connection,
        entries: list[Entry],
        data_set: str,
        reservation: int | None,
        run: str,
        index: int,
        event: Steps,
    ) -> int:
        number, previous = len(entries) + 1, entries[-1].hash if entries else START
        row = Entry(number, data_set, reservation, run, index, event.rate, event.noise, event.steps, "")
        entry = row._replace(hash=row.digest(previous))
        database.execute(f"insert into entries values ({', '.join('?' * len(entry))})", entry)
        database.commit()
        self._note(entry)
        return number

    def _note(self, entry: Entry) -> None:
        self.audit.append(EVENT, entry._asdict())

    def _checked(self, database: sqlite3.Connection) -> list[Entry]:
        """All rows, whose chain is whole and goes as far as the audit log says.

        A row that is not in the audit log, because the power went between the two, is written there now.
        """
        entries = [Entry(*row) for row in database.execute("select * from entries order by n")]
        previous = START
        for number, entry in enumerate(entries, start=1):
            if entry.n != number or entry.hash != entry.digest(previous):
                raise DataError(f"{self.path}: was edited at row {number}", RESTORE)
            previous = entry.hash
        noted = replay(self.audit)
        if noted != entries[: len(noted)]:
            raise DataError(f"{self.path}: lacks rows that the audit log has", RESTORE)
        for entry in entries[len(noted) :]:
            self._note(entry)
        return entries

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        """The database, which no other process reads or writes until it is closed.

        The lock is a file's: it holds from the commit to the line in the audit log, and who waits for it is woken.
        """
        if self.path.is_symlink():
            raise DataError(f"{self.path}: is a link", "remove it, and see who put it there")
        try:
            lock = open_to_append(self.path.with_suffix(".lock"))
        except OSError as error:
            raise DataError(f"{self.path}: cannot be locked ({type(error).__name__})", "check its rights") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                with closing(sqlite3.connect(self.path)) as database, database:
                    database.execute("pragma synchronous = extra")
                    database.execute(_TABLE)
                    yield database
            except (sqlite3.Error, TypeError) as error:
                raise DataError(f"{self.path}: cannot be used ({type(error).__name__})", RESTORE) from None


def replay(audit: AuditLog) -> list[Entry]:
    """The ledger's rows as the audit log has them.

    Raises:
        DataError: a line is none of the ledger's.
    """
    lines = [json.loads(line) for line in audit.lines() if f'"event":"{EVENT}"' in line]
    try:
        return [Entry(**line["facts"]) for line in lines if line["event"] == EVENT]
    except (TypeError, KeyError):
        remedy = "see: mtsunet-client audit --verify"
        raise DataError(f"{audit.path}: a line of the ledger is damaged", remedy) from None
