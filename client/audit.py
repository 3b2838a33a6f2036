"""The site's audit log: JSON lines, each with the hash of the one before, so that none can be edited, removed or moved
unseen. The coordinator is told the head in each answer and says it back when a run opens, so that a cut tail shows too.

A line is {"n", "time", "event", "facts", "previous", "hash"}; hash = sha256 of the line's canonical JSON without it.
"""

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from shared_model.checkpoint import open_to_append
from shared_model.errors import DataError

START = "0" * 64
"""The hash before the first line."""
TAIL = 1 << 20
"""Bytes in which the last line is looked for. A line has at most half, and lists at most some hundred tensors."""


@dataclass(frozen=True)
class AuditLog:
    """state/audit.jsonl."""

    state: Path

    @property
    def path(self) -> Path:
        return self.state / "audit.jsonl"

    def append(self, event: str, facts: dict[str, Any]) -> str:
        """Write a line, whole and on disk, before what it tells of happens. Returns the new head.

        What a power cut left of a line is dropped: nobody was told its hash.

        Raises:
            DataError: the last line is not one of this log's, the new one is too long, or the file cannot be written
                or is a link; nothing is written.
        """
        with self._open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            number, previous, end = self._last()
            values = {
                "n": number + 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                "facts": facts,
                "previous": previous,
            }
            value = _hash(values)
            line = _canonical({**values, "hash": value}) + b"\n"
            if len(line) > TAIL // 2:
                raise DataError(f"{self.path}: a line of {len(line)} bytes is too long", "look at what was sent")
            file.truncate(end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return f"{number + 1}:{value}"

    def _open(self) -> BinaryIO:
        try:
            return open_to_append(self.path)
        except OSError as error:
            remedy = "look who put a link there" if self.path.is_symlink() else "check its rights"
            raise DataError(f"{self.path}: cannot be written ({type(error).__name__})", remedy) from None

    @property
    def head(self) -> str:
        """Number and hash of the last line."""
        number, value, _ = self._last()
        return f"{number}:{value}"

    def contains(self, head: str) -> bool:
        """Whether this log has the line with that number and hash."""
        number, value = head.split(":")
        if int(number) == 0:
            return value == START
        for index, line in enumerate(self._lines(), start=1):
            if index == int(number):
                return _read(line).get("hash") == value
        return False

    def verify(self) -> str | None:
        """The first fault in words; None if every line is as it was written."""
        previous = START
        for index, line in enumerate(self._lines(), start=1):
            values = _read(line)
            claimed = values.pop("hash", None)
            if line != _canonical({**values, "hash": claimed}) + b"\n" or claimed != _hash(values):
                return f"line {index} was edited"
            if values.get("n") != index or values.get("previous") != previous:
                return f"before line {index} a line was removed or moved"
            previous = claimed
        return None

    def lines(self) -> list[str]:
        """The log as it is, a text per line."""
        return [line.decode(errors="replace").rstrip("\n") for line in self._lines()]

    def _lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []

    def _last(self) -> tuple[int, str, int]:
        """Number and hash of the last whole line, and the byte after it."""
        if not self.path.exists():
            return 0, START, 0
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(max(0, size - TAIL))
            tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        end = size - len(tail) + len(whole)
        if not whole and size <= TAIL:
            return 0, START, 0
        values = _read(whole.splitlines()[-1] if whole else b"")
        claimed, number = values.pop("hash", None), values.get("n")
        if claimed != _hash(values) or type(number) is not int:
            raise DataError(f"{self.path}: its last line is damaged", "see: mtsunet-client audit --verify")
        return number, str(claimed), end


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(values)).hexdigest()


def _read(line: bytes) -> dict[str, Any]:
    """What a line says; nothing if it is none that `_canonical` makes."""
    try:
        values = json.loads(line)
        _canonical(values)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
