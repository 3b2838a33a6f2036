"""A run over the network, in a process of its own: who may take part, how it goes on, and how it ended."""

import fcntl
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from server.aggregation import build
from server.coordinator import Coordinator, from_environment
from server.journal import DONE, PAUSED, RUNNING, Journal, asked
from server.pruning import prune
from server.rounds import Federation, Transport
from server.store import RunStore
from shared_model.checkpoint import open_to_append, write_json
from shared_model.errors import MtsunetError, RunError

_HEADS = TypeAdapter(dict[str, str])


class Heads(MutableMapping[str, str]):
    """Site -> head of its audit log, or of its privacy ledger, kept in the coordinator's folder over all runs, some of
    them at the same time.

    Raises, whatever is done with it:
        RunError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, str]:
        try:
            return _HEADS.validate_json(self._path.read_bytes()) if self._path.exists() else {}
        except (OSError, ValidationError):
            raise RunError(f"{self._path}: cannot be read", "restore it from a backup") from None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        with open_to_append(self._path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            values = self._read()
            yield values
            write_json(self._path, values)

    def __getitem__(self, site: str) -> str:
        return self._read()[site]

    def __setitem__(self, site: str, head: str) -> None:
        with self._changing() as values:
            values[site] = head

    def __delitem__(self, site: str) -> None:
        with self._changing() as values:
            del values[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


Connect = Callable[[int, Callable[[], dict[str, str]]], Transport]
"""Makes a transport from the number of expected nodes and a look-up of the members, node -> site."""


def conduct(run: str, connect: Connect) -> None:
    """Bring a run to its end, or to a pause with a reason.

    Raises:
        MtsunetError: the reason, once it stands in the run's folder.
    """
    coordinator = from_environment()
    store = coordinator.run(run)
    _, plan = store.read()

    def members() -> dict[str, str]:
        enrolled = coordinator.registry.sites()
        return {str(enrolled[site].node): site for site in plan.sites if site in enrolled and enrolled[site].node}

    def note(event: str, facts: dict[str, Any]) -> None:
        journal.note(event, facts)
        if event == "committed":
            prune(store, coordinator.config.keep_rounds)

    journal = Journal(store.folder)
    journal.set(RUNNING)
    try:
        transport = connect(len(plan.sites), members)
        heads = Heads(coordinator.folder / "heads.json")
        ledgers = Heads(coordinator.folder / "ledgers.json")
        Federation(store, build(plan.aggregation), transport, note, heads, ledgers).complete()
    except Exception as error:
        reason = _why(error)
        with suppress(OSError):  # a disk that is full takes no word of it; status() then says what it can
            journal.note("paused", {"reason": reason})
            journal.set(PAUSED, reason)
        raise
    journal.set(DONE)


def _why(error: Exception) -> str:
    """What ended a run, in one line."""
    if isinstance(error, MtsunetError):
        return error.what
    if isinstance(error, OSError):
        return f"the coordinator cannot write or read its folder: {error.strerror or type(error).__name__}"
    return f"the run's process failed ({type(error).__name__}); the server's log tells more"


@dataclass(frozen=True)
class Row:
    """A run in a list."""

    run: str
    plan: str
    state: str
    reason: str
    committed: int
    rounds: int
    waiting: dict[str, float]
    """Site -> since when it is asked and has not answered, seconds since 1970; of a run in progress."""


def overview(coordinator: Coordinator) -> list[Row]:
    """All runs, oldest first."""
    folder = coordinator.folder / "runs"
    stores = [RunStore(path) for path in folder.iterdir()] if folder.exists() else []
    rows = []
    for store in sorted((store for store in stores if store.exists), key=lambda store: store.created):
        run, plan = store.read()
        journal = Journal(store.folder)
        state, reason = journal.status()
        waiting = asked(event for _, event in journal.events()) if state == RUNNING else {}
        rows.append(Row(run, plan.name, state, reason, store.last_round(), plan.rounds, waiting))
    return rows
