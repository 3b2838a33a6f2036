"""Flower's ServerApp: our round loop over its Grid. The server's one Flower file outside superlink/ and the engine."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from server.rounds import Answer, Transport
from shared_model.errors import WireError
from shared_model.flower_message import content, pack, unpack
from shared_model.parameters import Tensors
from shared_model.process import end_with_parent

POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0
POLL_GROWTH = 1.02
"""From one pause to the next: a reply lies there for a hundredth of the time that it was waited for, on average."""
APP_REFUSED = 7
"""Flower's error code for an app that a site did not accept."""
ABSENCES = {
    3: "no whole answer before the deadline",
    4: "no answer before the deadline",
    5: "it went away, and gave no sign of life for a minute",
}
"""Flower's error codes for a message that expired or a reply that was cut off, a reply that expired, and a node that is
gone."""
REASON_LIMIT = 300


class FlowerTransport:
    """Transport over Flower's Grid; a node is a Flower node id in decimal."""

    def __init__(
        self,
        grid: Grid,
        expected: int,
        members: Callable[[], dict[str, str]] | None = None,
        patience: float = 60.0,
    ) -> None:
        """Over the nodes that are there.

        Args:
            expected: number of nodes for which the first look waits, at most `patience` seconds, and the look after a
                node was lost: Flower says so about when it would let that node in again.
            members: node -> site of those that may take part, asked anew at each look; None: all may, and their terms
                tell who they are.
        """
        self._grid = grid
        self._expected = expected
        self._members = members
        self._patience = patience
        self._waits = True
        self._sent: dict[str, str] = {}

    def nodes(self) -> dict[str, str | None]:
        end = time.monotonic() + (self._patience if self._waits else 0.0)
        while len(found := self._there()) < self._expected and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        self._waits = False
        return found

    def _there(self) -> dict[str, str | None]:
        there = sorted(str(node) for node in self._grid.get_node_ids())
        if self._members is None:
            return dict.fromkeys(there)
        members = self._members()
        return {node: members[node] for node in there if node in members}

    def send(self, messages: Mapping[str, tuple[str, Tensors]], seconds: float) -> None:
        packed = {id(tensors): tensors for _, tensors in messages.values()}
        records = {number: pack(tensors) for number, tensors in packed.items()}
        made = [
            Message(content(text, records[id(tensors)]), int(node), "train" if tensors else "query", ttl=seconds)
            for node, (text, tensors) in messages.items()
        ]
        sent = self._grid.push_messages(made)
        self._sent = {number: node for number, node in zip(sent, messages, strict=True) if number}

    def receive(self, seconds: float) -> Iterator[Answer]:
        end, pause = time.monotonic() + seconds, POLL_SECONDS
        while self._sent and time.monotonic() < end:
            came = False
            for number in list(self._sent):
                for reply in self._grid.pull_messages([number]):  # one at a time: a reply is as large as the model
                    came, pause = True, POLL_SECONDS
                    self._waits = self._waits or reply.has_error()
                    yield _answer(self._sent.pop(number), reply)
            if not came:
                time.sleep(pause)
                pause = min(POLL_GROWTH * pause, LONGEST_POLL_SECONDS)

    def close(self) -> None:
        self._sent = {}


def _answer(node: str, reply: Message) -> Answer:
    """A reply as plain values. What cannot be read is a failure of that node, never of the round."""
    if reply.has_error():
        if reply.error.code == APP_REFUSED:
            return Answer(node, failure=f"the site refuses the app: {reply.error.reason[:REASON_LIMIT]}")
        if reply.error.code in ABSENCES:
            return Answer(node, absence=ABSENCES[reply.error.code])
        return Answer(node, failure=f"the site's process failed (Flower error {reply.error.code})")
    try:
        return Answer(node, *unpack(reply.content))
    except WireError as error:
        return Answer(node, failure=error.what)


def server_app(nodes: int, main: Callable[[Transport], None]) -> ServerApp:
    """A ServerApp that runs `main` over a transport to `nodes` nodes."""
    app = ServerApp()

    @app.main()
    def run(grid: Grid, context: Context) -> None:
        main(FlowerTransport(grid, nodes))

    return app


app = ServerApp()
"""What the shell names: a run of the coordinator whose folder stands in the environment."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run that the shell's setting names."""
    from server.conduct import conduct

    end_with_parent()
    conduct(str(context.run_config["run"]), partial(FlowerTransport, grid))
