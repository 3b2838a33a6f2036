"""What every process of Flower's finds in its environment: nothing called home, nothing installed, our own folder; and
how an executor comes by its work.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

QUICKER = {
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # s between an answer that there is no work and the next question
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(8 << 20),  # bytes of a message's part, each a request on every hop
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # a part's pages are cleared 512 at a time
}
"""Where Flower's own settings, 1 s and 5 MiB, or the system's cost a round seconds; what already stands in the
environment counts."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""In the environment of the server, and so of a run's process: an array, or a part of a message, of more than 1 MiB
goes back to the system once it is let go. Else the allocator keeps such memory in pieces that fit no other, and the
process grows with the sites (docs/benchmarks.md).
"""
ANSWER_SECONDS, PAUSE_SECONDS = 1.0, 0.1
"""How long an executor waits for an answer when there is no work, and between two looks for some meanwhile."""


def answer_when_there_is_work() -> None:
    """In a process that executors ask for work: let it come at once, where an executor of Flower's own looks for it
    each second; to ask as often would take a tenth of a core.
    """
    handlers: Any = import_module("flwr.supercore.servicer.runtime.runtime_handlers")
    look: Callable[[Any, Any], Any] = handlers.acquire_task

    def acquire(request: Any, state: Any) -> Any:
        end = time.monotonic() + ANSWER_SECONDS
        while not (found := look(request, state)).token and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)
        return found

    handlers.acquire_task = acquire


def environment(home: Path) -> dict[str, str]:
    """The environment of a child process.

    Args:
        home: Flower's own folder. Its programs are found by name, so this Python's come first in PATH; traffic on
            loopback never goes through a proxy.
    """
    home.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = ",".join(part for part in (before, "127.0.0.1,localhost") if part)
    return {
        **QUICKER,
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
