"""The two doors before Flower's API: which path is open where, who may pass, and nothing twice.

Stock Flower serves everything on one port and lets any holder of the CA certificate start a run; its nodes sign a
timestamp alone, good for 305 s. Here the public door opens the fleet API to enrolled sites, and remembers signatures
for as long as they are good; the admin door wants the token.
"""

import asyncio
import hashlib
import hmac
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from threading import Lock

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.registry import Enrolment, Registry
from server.superlink.requests import Requests
from shared_model.errors import MtsunetError
from shared_model.signing import AHEAD_SECONDS, BEHIND_SECONDS, CLOCK_REFUSED, verify_headers

FLEET = re.compile(
    r"/v1/fleet/(activate-node|deactivate-node|send-node-heartbeat|pull-messages|push-messages|get-run|get-fab"
    r"|push-object|pull-object|confirm-message-received)"
)
PULL, PUSH = "/v1/fleet/pull-messages", "/v1/runtime/push-messages"
"""Where a site asks for messages, and where a run's process leaves some."""
SITE = re.compile(r"/v1/site/.+")
"""Our own pages for enrolled sites (pages.py)."""


class Refused(IntEnum):
    """Why a request was refused; the number stands beside the words in the answer."""

    UNSIGNED = 9001
    UNKNOWN = 9002
    REVOKED = 9003
    CLOCK = CLOCK_REFUSED
    REPLAYED = 9005


@dataclass
class ReplayMemory:
    """Nonces seen within the time that a signature is good for, and before: once the newer ones have been kept for that
    time, the older ones are forgotten.

    A site that sends makes many requests a second: a nonce is kept as a digest of 16 bytes, without its time.
    """

    seconds: float = AHEAD_SECONDS + BEHIND_SECONDS
    _since: float = -math.inf
    _seen: set[bytes] = field(default_factory=set)
    _before: set[bytes] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def is_new(self, nonce: str, now: float) -> bool:
        """Whether this is the first time; from now on it is not."""
        mark = hashlib.blake2b(nonce.encode(), digest_size=16).digest()
        with self._lock:
            if now - self._since > self.seconds:
                self._since, self._before, self._seen = now, self._seen, set()
            if mark in self._seen or mark in self._before:
                return False
            self._seen.add(mark)
            return True


@dataclass
class News:
    """Lets a site that asks for messages wait for some, rather than ask often: to wait costs no thread here, and a
    message is fetched as soon as it is announced, where each question in vain would be looks into the database.
    """

    seconds: float = 5.0
    _number: int = 0
    _heard: dict[str, int] = field(default_factory=dict)
    _next: asyncio.Event = field(default_factory=asyncio.Event)

    def announce(self) -> None:
        """There are messages for some site, or nobody is to wait any longer."""
        self._number += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, site: str) -> None:
        """Until something was announced since this site last came here, or time is up."""
        if self._heard.get(site) == self._number:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._next.wait(), self.seconds)
        self._heard[site] = self._number


@dataclass
class PublicDoor:
    """ASGI: the fleet API and our pages to enrolled sites, /health to all, 404 for the rest.

    Attributes:
        link: Flower's app.
        pages: our own pages; the site's name stands in scope["site"].
        news, requests: shared with the admin door.
        arrived: called with an enrolment before it connects, in a thread of its own.
        clock: the present time.
    """

    link: ASGIApp
    pages: ASGIApp
    registry: Registry
    arrived: Callable[[Enrolment], None]
    news: News
    requests: Requests
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    memory: ReplayMemory = field(default_factory=ReplayMemory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path == "/health" and method in ("GET", "HEAD"):
            await self.link(scope, receive, send)
        elif SITE.fullmatch(path) and method == "GET":
            await self._signed(self.pages, scope, receive, send)
        elif FLEET.fullmatch(path) and method == "POST":
            await self._signed(self.link, scope, receive, send)
        else:
            await _not_found(scope, receive, send)

    async def _signed(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        who = self._identify(HTTPConnection(scope))
        if isinstance(who, Enrolment) and scope["path"] == PULL:
            await self.news.wait(who.site)
            who = self._enrolled(who.pem)  # it may have been revoked meanwhile
        if isinstance(who, Response):
            await who(scope, receive, send)
            return
        if who.node is None or scope["path"].endswith("/activate-node"):
            await run_in_threadpool(self.arrived, who)
        await self.requests.handle(app, {**scope, "site": who.site}, receive, send)

    def _identify(self, connection: HTTPConnection) -> Enrolment | Response:
        now = self.clock()
        signed = verify_headers(connection.headers, now)
        if signed is None:
            return refusal(401, Refused.UNSIGNED, "the request is not signed by a site's key")
        who = self._enrolled(signed.key)
        if isinstance(who, Response):
            return who
        if not -BEHIND_SECONDS < signed.ahead < AHEAD_SECONDS:
            off = f"{abs(signed.ahead):.0f} s {'ahead of' if signed.ahead > 0 else 'behind'}"
            return refusal(401, Refused.CLOCK, f"the site's clock is {off} the coordinator's")
        if not self.memory.is_new(f"{who.key} {signed.nonce}", now.timestamp()):
            return refusal(401, Refused.REPLAYED, "this request was made before")
        return who

    def _enrolled(self, key: str) -> Enrolment | Response:
        try:
            who = self.registry.of_key(key)
        except MtsunetError:
            return refusal(503, Refused.UNKNOWN, "the coordinator's list of sites cannot be read")
        if who is None:
            return refusal(401, Refused.UNKNOWN, "this key is not enrolled here")
        if who.revoked is not None:
            return refusal(401, Refused.REVOKED, f"the enrolment of '{who.site}' was revoked")
        return who


@dataclass
class AdminDoor:
    """ASGI: everything that carries the token. The runtime API has secrets of its own."""

    link: ASGIApp
    token: str
    news: News
    requests: Requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.link(scope, receive, send)
            return
        if not scope["path"].startswith("/v1/runtime/"):
            given = HTTPConnection(scope).headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                await JSONResponse({"detail": "the admin token is needed"}, 401)(scope, receive, send)
                return
        await self.requests.handle(self.link, scope, receive, send)
        if scope["path"] == PUSH:
            self.news.announce()


def refusal(status: int, code: Refused, words: str) -> Response:
    """A refusal in the form in which Flower's clients read errors."""
    return JSONResponse({"code": int(code), "detail": words}, status)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
