"""What a run's folder tells of its course.

runs/RUN/events.jsonl   what happened, a line each: {"time", "event", ...}
runs/RUN/status.json    {"state": waiting | running | paused | stopped | done, "reason", "process"}
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from shared_model.checkpoint import open_to_append, write_json
from shared_model.config import Config
from shared_model.errors import RunError
from shared_model.process import Process

WAITING, RUNNING, PAUSED, STOPPED, DONE = "waiting", "running", "paused", "stopped", "done"

LATEST = 253402300800.0
"""The year 10,000, which no calendar of ours can tell."""


class _Status(Config):
    """status.json"""

    state: Literal["waiting", "running", "paused", "stopped", "done"]
    reason: str
    process: Process


class Event(BaseModel):
    """What happened, with those of its facts that are told; a line that is none is 'damaged'.

    Attributes:
        time: seconds since 1970.
        sites: whom it is about; of a commit, whose updates the model is made of.
        seconds: that the round took.
    """

    event: str
    time: Annotated[float, Field(ge=0, lt=LATEST)] = 0.0
    round: int = 0
    site: str = ""
    sites: Annotated[list[str], BeforeValidator(lambda value: sorted(value) if isinstance(value, dict) else value)] = []
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Journal:
    """Writes and reads both files of a run's folder."""

    folder: Path

    def note(self, event: str, facts: dict[str, Any]) -> None:
        """Append what happened."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, sort_keys=True)
        with open_to_append(self.folder / "events.jsonl") as file:
            file.write(line.encode() + b"\n")

    def events(self, start: int = 0) -> Iterator[tuple[int, Event]]:
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


def _event(line: bytes) -> Event:
    try:
        return Event.model_validate_json(line)
    except ValidationError:
        return Event(event="damaged")


def asked(events: Iterable[Event]) -> dict[str, float]:
    """Site -> when it was asked for the round in progress, of those that have not answered."""
    waiting: dict[str, float] = {}
    for event in events:
        if event.event == "round":
            waiting = dict.fromkeys(event.sites, event.time)
        elif event.event in ("reply", "refused", "absent"):
            waiting.pop(event.site, None)
        elif event.event == "committed":
            waiting = {}
    return waiting


def told(event: Event, rounds: int) -> str | None:
    """An event of the journal in words; None for what is not worth a line."""
    match event.event:
        case "opened":
            return f"sites: {', '.join(event.sites) or 'none yet'}"
        case "round":
            return f"round {event.round} of {rounds}: asked {', '.join(event.sites) or 'nobody'}"
        case "reply":
            return f"round {event.round}: {event.site} answered"
        case "refused" | "absent" | "flagged":
            return f"{event.event}: {event.site}: {event.reason}"
        case "committed":
            seconds = event.seconds
            left = (rounds - event.round) * seconds / 60
            return f"round {event.round} committed after {seconds:.0f} s; about {left:.0f} min left"
        case "closed":
            return f"closed; the final model was evaluated by {', '.join(event.sites) or 'nobody'}"
    return None
