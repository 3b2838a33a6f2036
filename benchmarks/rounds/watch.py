"""Resident memory of the processes that a way runs in, at its peak, as the system keeps it: no peak is too short.

Reads /proc, which Linux alone has.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "MTSUNET_BENCHMARK"
"""Name in the environment of every process that a way starts, set to the way's own name."""
PAUSE_SECONDS = 0.1
SETTLED_SECONDS = 1.0
"""Age at which a process is what it will be: at first it has the command line of the one that forked it."""
PRESENT_IS_PEAK = "5"
"""Written to a process's clear_refs: its peak is from now on what it has now, man proc_pid_clear_refs."""
PEAK, PRESENT = "VmHWM", "VmRSS"
"""Fields of a process's status, man proc_pid_status."""
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
        idle: kind -> what it was at `begin`; a process that starts later is not there.
    """

    mark: str
    peaks: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    _looks: dict[str, list[int]] = field(default_factory=dict)
    _kinds: dict[psutil.Process, str | None] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
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
        with self._turn:
            self.idle.clear()
            self._looks.clear()
            for kind, process in self._processes():
                with suppress(OSError):  # it has ended
                    Path(f"/proc/{process.pid}/clear_refs").write_text(PRESENT_IS_PEAK)
                    self.idle[kind] = max(self.idle.get(kind, 0), _memory(process)[PEAK])
            self.peaks = dict(self.idle)

    def floor(self, kind: str) -> int:
        """Bytes under which no look found a process of the kind in the later half of the time since `begin`, but for
        the last tenth, in which it may end: what is between two of its peaks. For a kind that has one process.
        """
        looks = self._looks[kind]
        return min(looks[len(looks) // 2 : len(looks) * 9 // 10])

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            with self._turn:
                for kind, process in self._processes():
                    with suppress(OSError):  # it has ended
                        found = _memory(process)
                        self.peaks[kind] = max(self.peaks.get(kind, 0), found[PEAK])
                        self._looks.setdefault(kind, []).append(found[PRESENT])

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        for process in psutil.process_iter():
            kind = self._kinds.get(process)
            with suppress(psutil.Error):
                if process not in self._kinds:
                    kind = self._kind(process)
                    if time.time() - process.create_time() > SETTLED_SECONDS:
                        self._kinds[process] = kind
            if kind:
                yield kind, process

    def _kind(self, process: psutil.Process) -> str | None:
        if process.environ().get(MARK) != self.mark:
            return None
        words = " ".join(process.cmdline())
        return next((kind for name, kind in KINDS.items() if name in words), None)


def _memory(process: psutil.Process) -> dict[str, int]:
    """Its peak and what it has now, in bytes; 0 once it has ended."""
    found = re.findall(rf"({PEAK}|{PRESENT}):\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return {PEAK: 0, PRESENT: 0} | {name: int(size) * 1024 for name, size in found}
