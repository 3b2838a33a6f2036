"""No process outlives a run: a small watcher that ends whatever the run's process left behind, however it ended.

The run's process gives all its children a mark in their environment and holds the watcher's standard input open. When
that closes, by a clean end or by SIGKILL, the watcher kills every process that carries the mark. Ray's own agents would
otherwise live on for a minute.
"""

import os
import secrets
import subprocess
import sys

import psutil

MARK = "MTSUNET_RUN_MARK"
SWEEPS = 50
PAUSE_SECONDS = 0.1


def watch() -> None:
    """Mark this process's future children, and start their watcher."""
    mark = secrets.token_hex(16)
    subprocess.Popen(
        [sys.executable, "-m", "server.simulation.reaper", mark], stdin=subprocess.PIPE, start_new_session=True
    )
    os.environ[MARK] = mark


def marked(mark: str) -> list[psutil.Process]:
    """The processes whose environment holds the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def main(mark: str) -> None:
    """Wait for the end of the run's process, then kill until nothing marked is left."""
    sys.stdin.buffer.read()
    for _ in range(SWEEPS):
        left = marked(mark)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if not left:
            return
        psutil.wait_procs(left, timeout=PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
