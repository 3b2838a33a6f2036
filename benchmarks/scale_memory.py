"""What a simulation's own process and its workers have in memory while it runs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from server.simulation.reaper import MARK, marked

LOOK_SECONDS = 1.0


@dataclass
class Memory:
    """What this process and the largest worker have in memory and share with no other, MB, at moments of the run.

    Attributes:
        workers: so many processes serve the sites.
        looks: (time, this process, largest worker).
    """

    workers: int
    looks: list[tuple[float, float, float]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        own, workers = psutil.Process(), list[psutil.Process]()
        while not self._stop.wait(LOOK_SECONDS):
            if len(workers) < self.workers:
                workers = [one for one in marked(os.environ[MARK]) if _is_worker(one)]
            largest = max(map(_own_bytes, workers), default=0)
            self.looks.append((time.time(), _own_bytes(own) / 1e6, largest / 1e6))

    def largest(self, start: float, end: float) -> tuple[float, float]:
        """Of this process and of a worker, between two moments."""
        looks = [look for look in self.looks if start <= look[0] <= end] or self.looks
        return max(look[1] for look in looks), max(look[2] for look in looks)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[0].startswith("ray::ClientAppActor")
    except (psutil.Error, IndexError):
        return False


def _own_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0
