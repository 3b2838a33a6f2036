"""Flower's ServerApp: our round loop over its Grid. The server's one Flower file outside the engine."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from server.rounds import Answer, Transport
from shared_model.errors import RunError
from shared_model.parameters import Tensors

HEADER = "header"
TENSORS = "tensors"
POLL_SECONDS = 0.2


class FlowerTransport:
    """Transport over Flower's Grid; a node is a Flower node id in decimal."""

    def __init__(self, grid: Grid, nodes: int, patience: float = 60.0) -> None:
        """Wait for `nodes` nodes to be there, at most `patience` seconds."""
        self._grid = grid
        self._expected = nodes
        self._patience = patience
        self._sent: dict[str, str] = {}

    def nodes(self) -> list[str]:
        """All nodes that are there once the expected number is.

        Raises:
            RunError: fewer nodes after the patience.
        """
        end = time.monotonic() + self._patience
        while len(found := list(self._grid.get_node_ids())) < self._expected:
            if time.monotonic() > end:
                raise RunError(f"{len(found)} of {self._expected} nodes came", "start the missing sites, then resume")
            time.sleep(POLL_SECONDS)
        return sorted(str(node) for node in found)

    def send(self, nodes: list[str], header: str, tensors: Tensors, seconds: float) -> None:
        arrays = ArrayRecord({name: Array(value) for name, value in tensors.items()})
        kind = "train" if tensors else "query"
        messages = [
            Message(RecordDict({HEADER: ConfigRecord({"json": header}), TENSORS: arrays}), int(node), kind, ttl=seconds)
            for node in nodes
        ]
        self._sent = dict(zip(self._grid.push_messages(messages), nodes, strict=True))

    def receive(self, seconds: float) -> Iterator[Answer]:
        end = time.monotonic() + seconds
        while self._sent and time.monotonic() < end:
            replies = list(self._grid.pull_messages(list(self._sent)))
            for reply in replies:
                node = self._sent.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    yield _answer(node, reply)
            if not replies:
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        self._sent = {}


def _answer(node: str, reply: Message) -> Answer:
    """A reply as plain values. What cannot be read is a failure of that node, never of the round."""
    if reply.has_error():
        return Answer(node, failure=f"the site's process failed (Flower error {reply.error.code})")
    try:
        header: Any = reply.content.config_records[HEADER]["json"]
        arrays = reply.content.array_records[TENSORS]
        tensors: dict[str, np.ndarray] = {name: array.numpy() for name, array in arrays.items()}
    except (KeyError, ValueError, TypeError, OSError, EOFError):
        return Answer(node, failure="the reply is not one of this release")
    return Answer(node, header, tensors)


def server_app(nodes: int, main: Callable[[Transport], None]) -> ServerApp:
    """A ServerApp that runs `main` over a transport to `nodes` nodes."""
    app = ServerApp()

    @app.main()
    def run(grid: Grid, context: Context) -> None:
        main(FlowerTransport(grid, nodes))

    return app
