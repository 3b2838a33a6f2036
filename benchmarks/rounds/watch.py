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
        peaks: kind -> resident memory in bytes, the largest of the kind.
    """

    mark: str
    peaks: dict[str, int] = field(default_factory=dict)
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
        kinds: dict[int, str | None] = {}
        while not self._stop.wait(PAUSE_SECONDS):
            for process in psutil.process_iter():
                try:
                    if process.pid not in kinds:
                        kinds[process.pid] = self._kind(process)
                    if kind := kinds[process.pid]:
                        self.peaks[kind] = max(self.peaks.get(kind, 0), process.memory_info().rss)
                except psutil.Error:
                    continue

    def _kind(self, process: psutil.Process) -> str | None:
        if process.environ().get(MARK) != self.mark:
            return None
        words = " ".join(process.cmdline())
        return next((kind for name, kind in KINDS.items() if name in words), None)
