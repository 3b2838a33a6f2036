"""What the client is doing now: whether it runs, what it last said, and how far training is. No case, no path.

client.json     what `mtsunet-client --site` last said; client/join.py writes it
progress.json   how far a round's training is; gone when the training is over
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from shared_model.checkpoint import write_json
from shared_model.config import SiteConfig
from shared_model.errors import DataError
from shared_model.metrics import Record
from shared_model.process import Process

PROGRESS = "progress.json"
WRITE_SECONDS = 1.0
"""Between two writes of it."""


Moment = Annotated[float, Field(ge=0, lt=2**32)]
"""Seconds since 1970."""


class Said(Record):
    """What the client said, when, and in which process."""

    said: str
    time: Moment
    process: Process


class Progress(Record):
    """How far the training of a round is."""

    run: str
    round: int
    step: int
    """Steps done."""
    steps: int
    """Steps of the round."""
    process: Process
    """The one that trains."""
    time: Moment
    """When it began to."""


class Status(Record):
    """What the client is doing now."""

    site: str
    running: bool
    last: Said | None
    """None: no client has run here yet."""
    training: Progress | None


AnyRecord = TypeVar("AnyRecord", bound=Record)


@contextmanager
def progress(
    state: Path, run: str, index: int, steps: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], None]]:
    """Keep progress.json while round `index` is trained.

    Yields:
        What to call after each step.
    """
    path = state / PROGRESS
    first = Progress(run=run, round=index, step=0, steps=steps, process=Process.own(), time=time.time())
    step, written = 0, clock()

    def done() -> None:
        nonlocal step, written
        step += 1
        if clock() - written >= WRITE_SECONDS:
            write_json(path, first.model_copy(update={"step": step}).to_json())
            written = clock()

    write_json(path, first.to_json())
    try:
        yield done
    finally:
        path.unlink(missing_ok=True)


def read_status(config: SiteConfig) -> Status:
    """What the client of a site is doing now.

    Raises:
        DataError: a file in the state folder cannot be read.
    """
    last = _read(Said, config.state / "client.json")
    training = _read(Progress, config.state / PROGRESS)
    return Status(
        site=config.site,
        running=last is not None and last.process.lives(),
        last=last,
        training=training if training is not None and training.process.lives() else None,
    )


def in_words(status: Status) -> list[str]:
    """The status, a line each."""
    if status.last is None:
        lines = [f"site '{status.site}': no client has run here yet"]
    else:
        runs = f"runs (process {status.last.process.number})" if status.running else "does not run"
        lines = [f"site '{status.site}': the client {runs}", f"{_moment(status.last.time)}: {status.last.said}"]
    if (now := status.training) is None:
        return [*lines, "no training now"]
    where = f"run {now.run}, round {now.round}, step {now.step} of {now.steps}"
    return [*lines, f"training {where}, since {_moment(now.time)}"]


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def _read(kind: type[AnyRecord], path: Path) -> AnyRecord | None:
    """A record; None where there is none."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        remedy = "ask as the user that the client runs as"
        raise DataError(f"{path}: cannot be read ({type(error).__name__})", remedy) from None
