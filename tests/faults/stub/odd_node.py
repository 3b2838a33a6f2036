"""A node that announces its replies and sends no part of them, or that sends each three times; UPLOADS says which.

Three times: as it is, and once that is whole, the same once more, and again under another number.
"""

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from halting import FOLDER

loop: Any = import_module("flwr.supernode.start_client_internal")
connect = loop.http_request_response


@contextmanager
def odd(*arguments: Any, **options: Any) -> Iterator[tuple[Any, ...]]:
    with connect(*arguments, **options) as (node, receive, send, get_run, get_fab, pull, push, confirm):
        announced, again = {"announced": _announced, "thrice": _thrice}[os.environ["UPLOADS"]](send, push)
        yield node, receive, announced, get_run, get_fab, pull, again, confirm


loop.http_request_response = odd


def _announced(send: Callable[..., Any], push: Callable[..., None]) -> tuple[Callable[..., Any], Callable[..., None]]:
    def announced(message: Any, tree: Any, seconds: float) -> Any:
        wanted, session = send(message, tree, seconds)
        return (set(), session) if message.metadata.message_type == "train" else (wanted, session)

    return announced, push


def _thrice(send: Callable[..., Any], push: Callable[..., None]) -> tuple[Callable[..., Any], Callable[..., None]]:
    waiting: set[str] = set()
    sent: Any = None

    def announced(*message: Any) -> Any:
        nonlocal sent, waiting
        sent, (wanted, session) = message, send(*message)
        waiting = set(wanted)
        return wanted, session

    def again(run: int, session: str, number: str, part: bytes) -> None:
        push(run, session, number, part)
        waiting.discard(number)
        if not waiting:
            message, tree, seconds = sent
            renumbered, other = copy.deepcopy(message), copy.deepcopy(tree)
            renumbered.metadata.__dict__["_message_id"] = other.object_id = "f" * 64
            for once_more in ((message, tree, seconds), (renumbered, other, seconds)):
                try:
                    said = f"{len(send(*once_more)[0])} parts wanted"
                except Exception as error:
                    said = type(error).__name__
                with (FOLDER / "again.txt").open("a") as file:
                    file.write(f"{said}\n")

    return announced, again
