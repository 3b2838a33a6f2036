"""A run over the network, in a process of its own: who may take part, how it goes on, and how it ended.

runs/RUN/events.jsonl   what happened, a line each: {"time", "event", ...}
runs/RUN/status.json    {"state": waiting | running | paused | stopped | done, "reason", "process"}
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from server.aggregation import build
from server.coordinator import Coordinator, from_environment
from server.pruning import prune
from server.rounds import Federation, Transport
from server.store import RunStore
from shared_model.checkpoint import open_to_append, write_json
from shared_model.config import Config
from shared_model.errors import MtsunetError, RunError
from shared_model.process import Process

WAITING, RUNNING, PAUSED, STOPPED, DONE = "waiting", "running", "paused", "stopped", "done"


class _Status(Config):
    """status.json"""

    state: Literal["waiting", "running", "paused", "stopped", "done"]
    reason: str
    process: Process


@dataclass
class Journal:
    """What a run's folder tells of its course."""

    folder: Path

    def note(self, event: str, facts: dict[str, Any]) -> None:
        """Append what happened."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, sort_keys=True)
        with open_to_append(self.folder / "events.jsonl") as file:
            file.write(line.encode() + b"\n")

    def events(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Whole lines from a byte on, each with the byte after it; of a damaged one nothing is told."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield start, _event(line)

    def size(self) -> int:
        """Bytes of the journal so far."""
        path = self.folder / "events.jsonl"
        return path.stat().st_size if path.exists() else 0

    def set(self, state: str, reason: str = "") -> None:
        """Write the run's state."""
        process = Process.own().model_dump()
        write_json(self.folder / "status.json", {"state": state, "reason": reason, "process": process})

    def status(self) -> tuple[str, str]:
        """State and reason; a run whose process is gone without a word is paused.

        Raises:
            RunError: the file is damaged.
        """
        path = self.folder / "status.json"
        try:
            kept = _Status.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return WAITING, ""
        except (OSError, ValidationError):
            raise RunError(f"{path}: cannot be read", "remove it; the run goes on from its last round") from None
        if kept.state == RUNNING and not kept.process.lives():
            return PAUSED, "its process ended without a word"
        return kept.state, kept.reason


_HEADS = TypeAdapter(dict[str, str])


class Heads(MutableMapping[str, str]):
    """Site -> head of its audit log, kept in the coordinator's folder over all runs, some of them at the same time.

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


def _event(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    return values if isinstance(values, dict) and "event" in values else {"event": "damaged"}


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
        Federation(store, build(plan.aggregation), transport, note, heads).complete()
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


def asked(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Site -> when it was asked for the round in progress, of those that have not answered."""
    waiting: dict[str, float] = {}
    for event in events:
        if event["event"] == "round":
            waiting = dict.fromkeys(event["sites"], event["time"])
        elif event["event"] in ("reply", "refused", "absent"):
            waiting.pop(event["site"], None)
        elif event["event"] == "committed":
            waiting = {}
    return waiting


def told(event: dict[str, Any], rounds: int) -> str | None:
    """An event of the journal in words; None for what is not worth a line."""
    match event["event"]:
        case "opened":
            return f"sites: {', '.join(event['sites']) or 'none yet'}"
        case "round":
            return f"round {event['round']} of {rounds}: asked {', '.join(event['sites']) or 'nobody'}"
        case "reply":
            return f"round {event['round']}: {event['site']} answered"
        case "refused" | "absent" | "flagged":
            return f"{event['event']}: {event['site']}: {event['reason']}"
        case "committed":
            seconds = event["seconds"]
            left = (rounds - event["round"]) * seconds / 60
            return f"round {event['round']} committed after {seconds:.0f} s; about {left:.0f} min left"
        case "closed":
            return f"closed; the final model was evaluated by {', '.join(event['sites']) or 'nobody'}"
    return None
