"""What passes a door: bodies come whole, parts of messages are worked on one at a time, and what waits lies on disk."""

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PART = re.compile(r"/v1/(fleet|runtime)/(push|pull)-object")
"""Requests with a part of a message: its bytes are copied several times on their way to and from the disk."""
PIECE = 1 << 15
"""Bytes of a body that are in memory while others arrive, or leave."""
BODY_LIMIT = 32 << 20
"""Bytes of a request; a message's largest part is 8 MiB."""
_START = "http.response.start"


@dataclass
class Requests:
    """Calls Flower's app for the doors. Memory does not grow with the sites that send or fetch, slow as they may be.

    Attributes:
        folder: where bodies lie meanwhile, in files without a name.
    """

    folder: Path
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def handle(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Call an app with a body that is whole; its 500 becomes a 503 without a word of what went wrong, which
        Flower's clients try again, and so does a disk that is full.

        A 500 is a request that nobody should have made, or a database that was busy for too long; neither may end a
        client. The body is read here, so that one without end never reaches the app. A part's turn begins when it is
        here, and ends before the answer is sent: nobody waits for another's slow link.
        """
        try:
            with self._file() as body:
                if not await _arrived(receive, body):
                    return
                if body.tell() > BODY_LIMIT:
                    await JSONResponse({"detail": "the request is too large"}, 413)(scope, receive, send)
                    return
                call = self._part if PART.fullmatch(scope["path"]) else _other
                good = await call(app, scope, _once(body, receive), send)
        except OSError:
            good = False
        if not good:
            await JSONResponse({"detail": "the request cannot be handled now"}, 503)(scope, receive, send)

    async def _part(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
        """Call an app in turn, and give its answer away piece by piece; whether it is none of 500."""
        start: Message = {}
        with self._file() as answer:

            async def keep(message: Message) -> None:
                if message["type"] == _START:
                    start.update(message)
                else:
                    answer.write(message.get("body", b""))

            async with self._turn:
                await app(scope, receive, keep)
            if not start:  # the client went away
                return True
            if start["status"] == 500:
                return False
            left = answer.tell()
            answer.seek(0)
            await send(start)
            while True:
                piece = answer.read(PIECE)
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                if not left:
                    return True

    def _file(self) -> "SpooledTemporaryFile[bytes]":
        return SpooledTemporaryFile(PIECE, dir=str(self.folder))


async def _other(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
    """Call an app that may answer for a long time; whether it is none of 500."""
    status = 0

    async def watching(message: Message) -> None:
        nonlocal status
        if message["type"] == _START:
            status = message["status"]
        if status != 500:
            await send(message)

    await app(scope, receive, watching)
    return status != 500


async def _arrived(receive: Receive, body: "SpooledTemporaryFile[bytes]") -> bool:
    """Write a request's body, as far as the first piece beyond the limit; False where the client went away."""
    while body.tell() <= BODY_LIMIT:
        message = await receive()
        if message["type"] != "http.request":
            return False
        body.write(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return True


def _once(body: "SpooledTemporaryFile[bytes]", receive: Receive) -> Receive:
    """A body as one message, in memory from when it is asked for; afterwards what else a connection tells."""
    body.seek(0)

    async def received() -> Message:
        if body.closed:
            return await receive()
        with body:
            return {"type": "http.request", "body": body.read(), "more_body": False}

    return received
