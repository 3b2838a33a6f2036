"""A run over the network, in a process of its own: who may take part, how it goes on, and how it ended.

runs/RUN/events.jsonl   what happened, a line each: {"time", "event", ...}
runs/RUN/status.json    {"state": waiting | running | paused | stopped | done, "reason", "process"}
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.aggregation import build
from server.coordinator import Coordinator, from_environment
from server.rounds import Federation, Transport
from server.store import RunStore
from shared_model.checkpoint import write_json
from shared_model.errors import MtsunetError
from shared_model.process import Process

WAITING, RUNNING, PAUSED, STOPPED, DONE = "waiting", "running", "paused", "stopped", "done"


@dataclass
class Journal:
    """What a run's folder tells of its course."""

    folder: Path

    def note(self, event: str, facts: dict[str, Any]) -> None:
        """Append what happened."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, sort_keys=True)
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def events(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Whole lines from a byte on, each with the byte after it."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield start, json.loads(line)

    def size(self) -> int:
        """Bytes of the journal so far."""
        path = self.folder / "events.jsonl"
        return path.stat().st_size if path.exists() else 0

    def set(self, state: str, reason: str = "") -> None:
        """Write the run's state."""
        process = Process.own().model_dump()
        write_json(self.folder / "status.json", {"state": state, "reason": reason, "process": process})

    def status(self) -> tuple[str, str]:
        """State and reason; a run whose process is gone without a word is paused."""
        try:
            values = json.loads((self.folder / "status.json").read_bytes())
        except FileNotFoundError:
            return WAITING, ""
        if values["state"] == RUNNING and not Process.model_validate(values["process"]).lives():
            return PAUSED, "its process ended without a word"
        return values["state"], values["reason"]


class Heads(MutableMapping[str, str]):
    """Site -> head of its audit log, kept in the coordinator's folder over all runs, some of them at the same time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, str]:
        return dict(json.loads(self._path.read_bytes())) if self._path.exists() else {}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, str]]:
        with self._path.with_suffix(".lock").open("w") as lock:
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

    journal = Journal(store.folder)
    journal.set(RUNNING)
    try:
        transport = connect(len(plan.sites), members)
        heads = Heads(coordinator.folder / "heads.json")
        Federation(store, build(plan.aggregation), transport, journal.note, heads).complete()
    except MtsunetError as error:
        journal.note("paused", {"reason": error.what})
        journal.set(PAUSED, error.what)
        raise
    except Exception as error:
        reason = f"the run's process failed ({type(error).__name__}); the server's log tells more"
        journal.note("paused", {"reason": reason})
        journal.set(PAUSED, reason)
        raise
    journal.set(DONE)


@dataclass(frozen=True)
class Row:
    """A run in a list."""

    run: str
    plan: str
    state: str
    reason: str
    committed: int
    rounds: int


def overview(coordinator: Coordinator) -> list[Row]:
    """All runs, oldest first."""
    folder = coordinator.folder / "runs"
    stores = [RunStore(path) for path in folder.iterdir()] if folder.exists() else []
    rows = []
    for store in sorted((store for store in stores if store.exists), key=lambda store: store.created):
        run, plan = store.read()
        state, reason = Journal(store.folder).status()
        rows.append(Row(run, plan.name, state, reason, store.last_round(), plan.rounds))
    return rows


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
