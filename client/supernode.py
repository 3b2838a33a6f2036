"""Flower's SuperNode as a hospital runs it: it takes no app but this release's own shell. The client's one adapter to
Flower's private parts; its contract test fails clearly on another Flower version.

Run as a module, this is the process that `mtsunet-client` keeps running; it ends with the process that started it.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from flwr.app import Error
from flwr.common.constant import ErrorCode
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.fab import Fab

from shared_model.flower_environment import answer_when_there_is_work
from shared_model.process import collect_often
from shared_model.shell import fault

loop: Any = import_module("flwr.supernode.start_client_internal")
command: Any = import_module("flwr.supernode.cli.flower_supernode")
http: Any = import_module("flwr.supercore.protobuf.client")
fleet: Any = import_module("flwr.supernode.fleet_http_client")
"""By name, since their packages give the same names to functions in them."""
REQUEST_SECONDS = 600.0
HEARTBEAT_SECONDS = 20.0
"""Sent every 30 s, over the same link as an upload."""
LOOK_SECONDS = 0.1
"""Between two questions for messages; each is answered when there is one, or after seconds."""
AWAKE_SECONDS = 300.0
"""After an answer. A round that waits longer for other sites does not miss the 3 s in which Flower looks."""
ANSWER_SECONDS = 0.05
"""Between two looks for an answer, and for its parts."""
RETRY_SECONDS = (0.05, 0.4)
"""First and longest pause before a part of a message is asked for again, which the coordinator has still to store."""


def guard() -> None:
    """Let Flower look at each app by our rule, before a line of it is imported. Stock Flower can ask for apps that its
    own hub signed, and for nothing else: so each app gets a mark, and the check of marks becomes ours.
    """
    connect: Callable[..., Any] = loop.http_request_response

    @contextmanager
    def marked(*args: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*args, **options) as parts:
            node, receive, send, get_run, get_fab, *others = parts

            def get_marked(digest: str, run: int) -> Fab:
                fab = get_fab(digest, run)
                return Fab(fab.hash_str, fab.content, {"valid_license": "to be looked at"})

            yield node, receive, send, get_run, get_marked, *others

    def is_shell(fab: Fab, _: object) -> bool:
        reason = fault(fab.content)
        if reason is not None:
            loop.FAB_VERIFICATION_ERROR = Error(ErrorCode.INVALID_FAB, reason)
            logging.getLogger("flwr").error("refused: %s", reason)
        return reason is None

    loop.http_request_response = marked
    loop._verify_fab = is_shell
    command.start_client_internal = partial(_with_check, loop.start_client_internal)


def be_patient() -> None:
    """Let a request take as long as a slow uplink needs for its largest part of 8 MiB: a proxy, or the system, took
    the whole part long before it has arrived, and Flower would give up after 30 s and send it again, for ever.
    """
    http.ProtobufClient.__init__.__kwdefaults__["timeout"] = REQUEST_SECONDS
    fleet.HEARTBEAT_CALL_TIMEOUT = HEARTBEAT_SECONDS


def be_quick() -> None:
    """Look often for the message after the one just answered, and for its parts: Flower's own pauses, of 3 s and of up
    to 10 s, are a good part of a short round. A part is there for the message's process at once, not with the last.
    """
    pull: Callable[..., int | None] = loop._pull_and_store_message
    answered = False

    def pull_soon(pull_object: Callable[[int, str], bytes], object_store: Any, **parts: Any) -> int | None:
        nonlocal answered
        passed = set()

        def pass_on(run: int, name: str) -> bytes:
            object_store.put(name, pull_object(run, name))
            passed.add(name)
            return b""

        def put(name: str, content: bytes) -> None:
            if name not in passed:  # the message's process may be done with it, and it is gone again
                object_store.put(name, content)

        store = SimpleNamespace(preregister=object_store.preregister, put=put, delete=object_store.delete)
        end = time.monotonic() + (AWAKE_SECONDS if answered else 0.0)
        while (run := pull(pull_object=pass_on, object_store=store, **parts)) is None and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
        answered = run is not None
        return run

    loop._pull_and_store_message = pull_soon
    loop.time = SimpleNamespace(sleep=_sleep)
    first, longest = RETRY_SECONDS
    loop.pull_objects.__kwdefaults__.update(initial_backoff=first, backoff_cap=longest, max_tries_per_object=None)


def _sleep(seconds: float) -> None:
    """Flower's loop sleeps 3 s where there is nothing to do, and 0.5 s before it looks whether an answer, or its next
    part, is there.
    """
    time.sleep(seconds if seconds > 1 else ANSWER_SECONDS)


def _with_check(start: Callable[..., None], **options: Any) -> None:
    start(**{**options, "trusted_entities": {"shell": "looked at by is_shell"}})


if __name__ == "__main__":
    start_parent_process_monitor(os.getppid())
    guard()
    be_patient()
    be_quick()
    answer_when_there_is_work()
    collect_often()
    sys.argv[0] = "flower-supernode"
    command.flower_supernode()
