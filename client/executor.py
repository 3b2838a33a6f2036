"""Flower's executor as a hospital runs it: the process of each message is a fork of one that has read Flower and this
release beforehand, but neither torch nor a config nor data. An adapter to Flower's private parts, as supernode.py is.

Run as a module, it takes the options of `flower-superexec`.
"""

import multiprocessing
import sys
from importlib import import_module
from multiprocessing import forkserver
from typing import Any

from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from shared_model.process import end_with_parent

READ = ["client.app", "client.executor", "flwr.supernode.runtime.run_clientapp"]
"""What a process of a message need not read again, most of a second's work."""
RETRY_SECONDS = (0.02, 0.2)
"""First and longest pause before a part of the message is asked for again, which the node has still to fetch."""


class ForkingExecutor(SubprocessExecutor):
    """Starts the process of a message; Python's own fork server has no other threads that a fork could tear."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(READ)
        forkserver.ensure_running()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        self._context.Process(target=work, args=(spec.runtime_api_address, spec.token, spec.parent_pid)).start()
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        multiprocessing.active_children()  # lets go of those that have ended


def work(address: str, token: str, parent: int) -> None:
    """Answer one message, as `flwr-clientapp` does; the node's API is on loopback.

    Args:
        parent: the executor's process; without it, this one ends. The fork server lives as long as its children.
    """
    end_with_parent(parent)  # from the first: it may wait for parts of the message from a node that is gone
    app: Any = import_module("flwr.supernode.runtime.run_clientapp")
    first, longest = RETRY_SECONDS
    pauses = {"initial_backoff": first, "backoff_cap": longest, "max_tries_per_object": None}
    app.pull_and_inflate_object_from_tree.__kwdefaults__.update(pauses)
    app.run_clientapp(runtime_api_address=address, token=token, insecure=True, parent_pid=parent)


def main() -> None:
    runner: Any = import_module("flwr.supercore.superexec.run_superexec")
    command: Any = import_module("flwr.supercore.cli.flower_superexec")
    runner.get_executor = lambda *_, **__: ForkingExecutor()
    sys.argv[0] = "flower-superexec"
    command.flower_superexec()


if __name__ == "__main__":
    import_module("client.executor").main()
