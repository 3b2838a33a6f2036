"""The states of the round loop."""

from typing import Any

from halting import ROUND, halt, halt_before

import server.app
import server.rounds
import server.store
from shared_model import wire

PART = f"{ROUND:04d}"
send = server.app.FlowerTransport.send


def sending(self: Any, messages: dict[str, tuple[str, Any]], seconds: float) -> None:
    """Half of the round's messages are out, and nobody has noted their numbers."""
    first = next(iter(messages), None)
    work = wire.decode(messages[first][0]) if first else None
    if not isinstance(work, wire.Work) or work.round != ROUND or len(messages) < 2:
        return send(self, messages, seconds)
    send(self, {first: messages[first]}, seconds)
    sent = self._sent
    halt("sending")
    send(self, {node: message for node, message in messages.items() if node != first}, seconds)
    self._sent |= sent


server.app.FlowerTransport.send = sending
federation, store = server.rounds.Federation, server.store
halt_before(federation, "_round", "selecting", lambda self, index: index == ROUND)
halt_before(server.rounds, "reduce_round", "reducing", lambda rule, base, replies, *_: replies[0].update.round == ROUND)
# written, and without its name yet
halt_before(store, "commit_folder", "admitting", lambda part, folder: folder.parent.parts[-2:] == ("spool", PART))
halt_before(store, "commit_folder", "committing", lambda part, folder: folder.parts[-2:] == ("rounds", PART))
