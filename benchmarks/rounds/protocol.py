"""Sites that are no processes: each an enrolled key whose messages are pulled and answered over Flower's fleet API by a
thread of this process. To the server they are as any hospital's node.
"""

import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree, push_objects
from flwr.supernode.fleet_http_connection import http_request_response

from benchmarks.rounds.step import step
from server.coordinator import Coordinator
from shared_model import wire
from shared_model.compression import CODECS, through
from shared_model.config import Plan
from shared_model.flower_message import content, pack, unpack
from shared_model.parameters import GROUPS, Tensors, tasks_of
from shared_model.parts import before_round
from shared_model.scores import SiteScores
from shared_model.signing import SitePrivateKey, create_site_key, read_site_key, to_line

AUDIT = f"0:{'0' * 64}"
LOOK_SECONDS = 0.5
AT_ONCE = 2
"""So many have weights in memory at the same time."""


def said(site: str, asked: wire.Header, tasks: Sequence[str], error: float | None = None) -> wire.Header:
    """A site's header to what it is asked: terms with three cases of each task, an update, or scores of no case."""
    cases = {group: 3 for group in GROUPS if set(tasks_of(group)) & set(tasks)}
    about: dict[str, Any] = {"run": asked.run, "site": site, "audit": AUDIT}
    if isinstance(asked, wire.Opening):
        return wire.Terms(release=wire.RELEASE, tasks=tuple(tasks), cases=cases, minimum_cell=1, **about)
    if isinstance(asked, wire.Closing):
        return wire.Evaluated(evaluation=SiteScores(), **about)
    assert isinstance(asked, wire.Work)
    own = {"round": asked.round, "base": asked.base, "cases": cases, "seconds": 1.0, "error": error}
    return wire.Update(evaluation=SiteScores(), **own, **about)


@dataclass
class Sender:
    """One site, in a thread.

    Attributes:
        stop: set when it is to end.
        turn: held while a message is worked on.
    """

    site: str
    key: SitePrivateKey
    coordinator: Coordinator
    stop: threading.Event
    turn: threading.Semaphore
    plan: Plan | None = field(init=False, default=None)

    def run(self, here: threading.Barrier) -> None:
        """Answer until told to stop.

        Args:
            here: passed when the server knows the site as connected.
        """
        keys, authority = (self.key, self.key.public_key()), str(self.coordinator.authority)
        with http_request_response(self.coordinator.config.address, False, authority, keys) as connection:
            here.wait()
            while not self.stop.wait(LOOK_SECONDS):
                if (received := connection[1]()) is not None:
                    with self.turn:
                        self._answer(connection, *received)

    def _answer(self, connection: Sequence[Any], message: Message, tree: ObjectTree) -> None:
        _, _, send, _, _, pull, push, confirm = connection
        run = message.metadata.run_id
        asked = pull_and_inflate_object_from_tree(
            tree, lambda name: pull(run, name), lambda name: confirm(run, name), return_type=Message
        )
        asked.metadata.__dict__["_message_id"] = tree.object_id
        header, tensors = unpack(asked.content)
        reply = Message(self._reply(wire.decode(header), tensors), reply_to=asked)
        del tensors, asked
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = get_all_nested_objects(reply)
        wanted, session = send(reply, get_object_tree(reply), 1.0)
        push_objects(objects, lambda name, data: push(run, session, name, data), object_ids_to_push=wanted)

    def _reply(self, asked: wire.Header, tensors: Tensors) -> Any:
        if isinstance(asked, wire.Opening):
            self.plan = asked.plan
        assert self.plan is not None
        sent: Mapping[str, Any] = {}
        error = None
        if isinstance(asked, wire.Work):
            before = before_round(tensors, self.plan.tasks, self.plan.training)
            codec = CODECS[self.plan.compression]
            sent, _, lost = through(codec, step(before, zlib.crc32(self.site.encode())), before)
            error = lost if codec.changes else None
        return content(wire.encode(said(self.site, asked, self.plan.tasks, error)), pack(dict(sent)))


@contextmanager
def senders(folder: Path, coordinator: Coordinator, names: Sequence[str]) -> Iterator[None]:
    """Such sites, enrolled and connected, for one round: they keep no weights that a change could be told against."""
    stop, turn, here = threading.Event(), threading.Semaphore(AT_ONCE), threading.Barrier(len(names) + 1, timeout=60)
    with ThreadPoolExecutor(len(names)) as threads:
        try:
            running = []
            for name in names:
                coordinator.registry.enrol(name, to_line(create_site_key(folder / name)))
                sender = Sender(name, read_site_key(folder / name), coordinator, stop, turn)
                running.append(threads.submit(sender.run, here))
            here.wait()
            yield
        finally:
            stop.set()
    for one in running:
        one.result()
