"""The doors: parts of messages one at a time, none in memory meanwhile, nobody waits for another's slow link; and no
signature is good twice.
"""

import asyncio
import math
import ssl
import tracemalloc
from asyncio import constants, sslproto
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.registry import Registry
from server.superlink.guard import PULL, AdminDoor, News, PublicDoor, ReplayMemory
from server.superlink.requests import PIECE, Requests
from server.superlink.serve import keep_few_pieces
from shared_model.signing import create_site_key, read_site_key, signed_headers, to_line

PATH = "/v1/runtime/push-object"
SITES = 8


class App:
    """Counts the requests that are worked on, and answers each with what was sent."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        message = await receive()
        assert not message["more_body"]
        await asyncio.sleep(0)
        self.now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(message["body"])})


def admin_door(app: Any, folder: Path) -> AdminDoor:
    return AdminDoor(app, "token", News(), Requests(folder))


async def ask(
    door: AdminDoor | PublicDoor, body: bytes, path: str = PATH, link: asyncio.Event | None = None, headers: Any = ()
) -> list[bytes]:
    """The pieces of an answer; `link` lets the first of them through."""
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]
    answer: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": halves.pop(0), "more_body": bool(halves)}

    async def send(message: Any) -> None:
        if link is not None:
            await link.wait()
        if message["type"] == "http.response.body":
            answer.append(message["body"])

    scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
    await door(scope, receive, send)
    return answer


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])
def test_bodies_arrive_whole_and_answers_leave_in_pieces(size: int, tmp_path: Path) -> None:
    body = bytes(index % 251 for index in range(size))
    pieces = asyncio.run(ask(admin_door(App(), tmp_path), body))
    assert b"".join(pieces) == body and all(len(piece) <= PIECE for piece in pieces)


@pytest.mark.parametrize(("path", "most"), [(PATH, 1), ("/v1/runtime/push-messages", SITES)])
def test_parts_are_worked_on_one_at_a_time(path: str, most: int, tmp_path: Path) -> None:
    async def all_at_once() -> int:
        door = admin_door(app := App(), tmp_path)
        answers = await asyncio.gather(*(ask(door, b"part", path) for _ in range(SITES)))
        assert answers == [[b"part"]] * SITES
        return app.most

    assert asyncio.run(all_at_once()) == most


def test_those_whose_link_is_slow_hold_up_nobody(tmp_path: Path) -> None:
    async def with_slow_ones() -> None:
        door, link = admin_door(App(), tmp_path), asyncio.Event()
        slow = [asyncio.create_task(ask(door, b"slow", link=link)) for _ in range(SITES)]
        assert await asyncio.wait_for(ask(door, b"quick"), 30) == [b"quick"]
        assert not any(task.done() for task in slow)
        link.set()
        assert await asyncio.gather(*slow) == [[b"slow"]] * SITES

    asyncio.run(with_slow_ones())


def test_answers_to_those_whose_link_is_slow_are_not_in_memory(tmp_path: Path) -> None:
    size = 8 << 20

    class Large(App):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(size)})

    waiting = 0

    class Link(asyncio.Event):
        async def wait(self) -> Any:
            nonlocal waiting
            waiting += 1
            return await super().wait()

    async def while_they_wait() -> int:
        door, link = admin_door(Large(), tmp_path), Link()
        tracemalloc.start()
        slow = [asyncio.create_task(ask(door, b"", link=link)) for _ in range(SITES)]
        while waiting < SITES:
            await asyncio.sleep(0)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        link.set()
        assert [sum(map(len, pieces)) for pieces in await asyncio.gather(*slow)] == [size] * SITES
        return held

    assert asyncio.run(while_they_wait()) < size


def test_a_site_that_is_revoked_while_it_waits_for_messages_gets_none(tmp_path: Path) -> None:
    key, registry = create_site_key(tmp_path / "key"), Registry(tmp_path / "sites.json")
    registry.enrol("former", to_line(key))
    waited: list[str] = []

    class Meanwhile(News):
        async def wait(self, site: str) -> None:
            waited.append(site)
            registry.revoke(site)

    door = PublicDoor(App(), App(), registry, lambda who: None, Meanwhile(), Requests(tmp_path))
    headers = signed_headers(read_site_key(tmp_path / "key"), datetime.now(UTC))
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    (answer,) = asyncio.run(ask(door, b"", PULL, headers=lines))
    assert waited == ["former"] and b"was revoked" in answer


def test_a_request_that_fails_ends_its_turn(tmp_path: Path) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def again() -> None:
        door = admin_door(fails, tmp_path)
        for _ in range(2):
            with pytest.raises(ValueError):
                await asyncio.wait_for(ask(door, b"part"), 30)

    asyncio.run(again())


def test_where_the_disk_takes_no_body_a_client_is_asked_to_try_again(tmp_path: Path) -> None:
    async def answered(body: bytes) -> int:
        statuses = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        scope = {"type": "http", "path": PATH, "method": "POST", "headers": []}
        await admin_door(App(), tmp_path / "gone")(scope, receive, send)
        return int(statuses[0])

    assert asyncio.run(answered(b"small")) == 200
    assert asyncio.run(answered(bytes(PIECE + 1))) == 503


@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 3)), max_size=40))
def test_a_signature_is_remembered_as_long_as_it_is_good(steps: list[tuple[float, int]]) -> None:
    memory, now = ReplayMemory(seconds=305), 1.8e9
    first: dict[int, float] = {}
    for passed, number in steps:
        now += passed
        new = memory.is_new(f"key {number}", now)
        assert new or number in first
        assert not new or now - first.get(number, -math.inf) > 305
        if new:
            first[number] = now


def test_a_signature_takes_few_bytes_and_is_forgotten() -> None:
    memory = ReplayMemory(seconds=305)
    tracemalloc.start()
    try:
        for number in range(10_000):
            assert memory.is_new(f"{'key ' * 60}{number}", 1.8e9)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_500_000
    assert memory.is_new("another", 1.8e9 + 306) and memory.is_new("a third", 1.8e9 + 612)
    assert memory.is_new(f"{'key ' * 60}7", 1.8e9 + 612)


def test_of_a_connection_few_pieces_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not document what this sets, and another version may read something else."""
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", sslproto.SSLProtocol.max_size)
    for direction in ("READ", "WRITE"):
        name = f"FLOW_CONTROL_HIGH_WATER_SSL_{direction}"
        monkeypatch.setattr(constants, name, getattr(constants, name))
    keep_few_pieces()

    async def sizes() -> tuple[int, int, int]:
        loop, context = asyncio.get_running_loop(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        protocol: Any = sslproto.SSLProtocol(loop, asyncio.Protocol(), context, loop.create_future(), server_side=True)
        transport = protocol._get_app_transport()
        return (
            len(protocol.get_buffer(-1)),
            transport.get_read_buffer_limits()[1],
            transport.get_write_buffer_limits()[1],
        )

    assert asyncio.run(sizes()) == (PIECE, PIECE, PIECE)
