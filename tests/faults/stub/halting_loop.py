"""The states of the round loop."""

from typing import Any

from halting import ROUND, halt, halt_before

import server.app
import server.rounds
import server.store
from shared_model import wire

PART = f"{ROUND:04d}"
send = server.app.FlowerTransport.send


def sending(self: Any, headers: dict[str, str], tensors: Any, seconds: float) -> None:
    """Half of the round's messages are out, and nobody has noted their numbers."""
    first = next(iter(headers), None)
    work = wire.decode(headers[first]) if first else None
    if not isinstance(work, wire.Work) or work.round != ROUND or len(headers) < 2:
        return send(self, headers, tensors, seconds)
    send(self, {first: headers[first]}, tensors, seconds)
    sent = self._sent
    halt("sending")
    send(self, {node: text for node, text in headers.items() if node != first}, tensors, seconds)
    self._sent |= sent


server.app.FlowerTransport.send = sending
federation, store = server.rounds.Federation, server.store
halt_before(federation, "_open", "selecting", lambda self: self.store.last_round() == ROUND - 1)
halt_before(server.rounds, "reduce_round", "reducing", lambda rule, base, replies: replies[0].update.round == ROUND)
# written, and without its name yet
halt_before(store, "commit_folder", "admitting", lambda part, folder: folder.parent.parts[-2:] == ("spool", PART))
halt_before(store, "commit_folder", "committing", lambda part, folder: folder.parts[-2:] == ("rounds", PART))
