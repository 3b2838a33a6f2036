"""Counts what a site's node sends and receives by TLS, that is, to and from the server and nobody else."""

import os
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

COUNTS = "MTSUNET_COUNTS"
"""Name in the environment: the folder of the counts, a file for each process."""
PAUSE_SECONDS = 0.1


class Span(NamedTuple):
    """A round in seconds since 1970."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Count(NamedTuple):
    """Bytes so far."""

    time: float
    received: int
    sent: int


def count() -> None:
    """Count in this process from now on, before TLS encrypts and after it decrypts."""
    file = (Path(os.environ[COUNTS]) / str(os.getpid())).open("w")
    received = sent = 0
    receive, send = ssl.SSLSocket.recv, ssl.SSLSocket.send

    def recv(self: ssl.SSLSocket, *arguments: Any) -> bytes:
        nonlocal received
        data = receive(self, *arguments)
        received += len(data)
        return data

    def sending(self: ssl.SSLSocket, *arguments: Any) -> int:
        nonlocal sent
        size = send(self, *arguments)
        sent += size
        return size

    def write() -> None:
        while True:
            print(time.time(), received, sent, file=file, flush=True)
            time.sleep(PAUSE_SECONDS)

    ssl.SSLSocket.recv, ssl.SSLSocket.send = recv, sending  # type: ignore[method-assign,assignment]
    threading.Thread(target=write, daemon=True).start()


def read_counts(folder: Path) -> dict[str, list[Count]]:
    """Process -> its counts, in the order of time."""
    return {path.name: [_count(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}


def _count(line: str) -> Count:
    at, received, sent = line.split()
    return Count(float(at), int(received), int(sent))


def traffic(counts: Mapping[str, Iterable[Count]], span: Span) -> tuple[float, float]:
    """Bytes that a node received and sent in a round, the mean of the nodes."""
    down = up = 0
    for rows in counts.values():
        for before, after in pairwise(rows):
            if span.began < after.time <= span.ended:
                down += after.received - before.received
                up += after.sent - before.sent
    return down / max(1, len(counts)), up / max(1, len(counts))
