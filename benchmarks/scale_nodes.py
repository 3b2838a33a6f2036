"""A Ray cluster of two nodes with one CPU each on this machine, for a simulation that RAY_ADDRESS sends there."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from server.simulation.reaper import MARK, marked

STORE_BYTES = 128 << 20


@contextmanager
def two_nodes() -> Iterator[str]:
    """Start both and give the cluster's address; they end with the block, or with the run that `watch` marked."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        address = f"127.0.0.1:{_free_port()}"
        try:
            _start("--head", f"--port={address.split(':')[1]}", f"--temp-dir={folder}", "--include-dashboard=false")
            _start(f"--address={address}")
            yield address
        finally:
            _end(marked(os.environ[MARK]))


def _start(*arguments: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
    sizes = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={STORE_BYTES}"]
    ports = ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
    done = subprocess.run([*command, *sizes, *ports], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"ray start ended with {done.returncode}: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)
