"""Rounds over loopback with TLS: our coordinator and two hospitals, beside stock Flower FedAvg in the same run.

Both sides carry the base preset's 62 million weights as float32; local training is a stub of two seconds that adds
0.001. Printed: seconds of each round, and the peak resident memory of each kind of process. NVIDIA FLARE joins with
`--nvflare-venv` and `--nvflare-script` (a script that takes CLIENTS, --params and --rounds, and prints its own table).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.network_ours import run_ours
from benchmarks.network_stock import run_stock

PAUSE_SECONDS = 0.1
KINDS = (
    "flwr-serverapp",
    "flwr-clientapp",
    "client.supernode",
    "flower-supernode",
    "flower-superexec",
    "flower-superlink",
    "server.cli serve",
    "server.cli run",
    "client.cli",
)


@dataclass
class Peaks:
    """Peak resident memory by kind of process, MB; the largest of a kind."""

    mark: str
    of: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at all processes that carry the mark in their environment."""
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
                        self.of[kind] = max(self.of.get(kind, 0.0), process.memory_info().rss / 1e6)
                except psutil.Error:
                    continue

    def _kind(self, process: psutil.Process) -> str | None:
        if process.environ().get("MTSUNET_BENCHMARK") != self.mark:
            return None
        words = " ".join(process.cmdline())
        return next((kind for kind in KINDS if kind in words), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--nvflare-venv", type=Path)
    parser.add_argument("--nvflare-script", type=Path)
    arguments = parser.parse_args()
    for name, run in (("ours", run_ours), ("stock Flower FedAvg", run_stock)):
        os.environ["MTSUNET_BENCHMARK"] = name
        peaks = Peaks(name)
        with tempfile.TemporaryDirectory() as folder, peaks.watching():
            started = time.monotonic()
            seconds = run(Path(folder), arguments.rounds)
        print(
            f"{name}: rounds {', '.join(f'{value:.1f}' for value in seconds)} s, all {time.monotonic() - started:.0f} s"
        )
        for kind, value in sorted(peaks.of.items()):
            print(f"  {kind:<16} {value:6.0f} MB")
        sys.stdout.flush()
    if arguments.nvflare_venv and arguments.nvflare_script:
        command = [
            "bash",
            str(arguments.nvflare_script),
            "2",
            "--params",
            "62000000",
            "--rounds",
            str(arguments.rounds),
        ]
        subprocess.run(command, env={**os.environ, "VENV": str(arguments.nvflare_venv)}, check=True)


if __name__ == "__main__":
    main()
