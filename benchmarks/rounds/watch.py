"""Resident memory of the processes that a way runs in, at its peak."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

MARK = "MTSUNET_BENCHMARK"
"""Name in the environment of every process that a way starts, set to the way's own name."""
PAUSE_SECONDS = 0.1
SERVER, RUN, NODE = "server", "run's process", "site's node"
KINDS = {
    "flwr-serverapp": RUN,
    "client.supernode": NODE,
    "flower-supernode": NODE,
    "client.worker_process": NODE,
    "server.cli serve": SERVER,
    "flower-superlink": SERVER,
    "server.runner_process": SERVER,
}
"""Words of a command line -> what the process is; of NVIDIA FLARE the processes of the job."""


@dataclass
class Watch:
    """Looks at the processes of one way.

    Attributes:
        peaks: kind -> resident memory in bytes, the largest of the kind, since `begin` or from the first.
        idle: kind -> the same at `begin`; a process that starts later is not there.
    """

    mark: str
    peaks: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    _now: dict[str, int] = field(default_factory=dict)
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

    def begin(self) -> None:
        """Let what came before this moment not count."""
        self.idle = dict(self._now)
        self.peaks.clear()

    def _watch(self) -> None:
        kinds: dict[int, str | None] = {}
        while not self._stop.wait(PAUSE_SECONDS):
            now: dict[str, int] = {}
            for process in psutil.process_iter():
                try:
                    if process.pid not in kinds:
                        kinds[process.pid] = self._kind(process)
                    if kind := kinds[process.pid]:
                        now[kind] = max(now.get(kind, 0), process.memory_info().rss)
                except psutil.Error:
                    continue
            self._now = now
            for kind, size in now.items():
                self.peaks[kind] = max(self.peaks.get(kind, 0), size)

    def _kind(self, process: psutil.Process) -> str | None:
        if process.environ().get(MARK) != self.mark:
            return None
        words = " ".join(process.cmdline())
        return next((kind for name, kind in KINDS.items() if name in words), None)
