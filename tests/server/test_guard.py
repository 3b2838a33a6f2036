"""Parts of messages at the doors: few at a time, and nobody waits for another's slow link."""

import asyncio
from typing import Any

import pytest

from server.superlink.guard import PARTS_AT_ONCE, PIECE, AdminDoor, News

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


async def ask(door: AdminDoor, body: bytes, path: str = PATH, link: asyncio.Event | None = None) -> list[bytes]:
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

    scope = {"type": "http", "path": path, "method": "POST", "headers": []}
    await door(scope, receive, send)
    return answer


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])
def test_bodies_arrive_whole_and_answers_leave_in_pieces(size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    pieces = asyncio.run(ask(AdminDoor(App(), "token", News()), body))
    assert b"".join(pieces) == body and all(len(piece) <= PIECE for piece in pieces)


@pytest.mark.parametrize(("path", "most"), [(PATH, PARTS_AT_ONCE), ("/v1/runtime/push-messages", SITES)])
def test_few_parts_are_worked_on_at_a_time(path: str, most: int) -> None:
    async def all_at_once() -> int:
        door = AdminDoor(app := App(), "token", News())
        answers = await asyncio.gather(*(ask(door, b"part", path) for _ in range(SITES)))
        assert answers == [[b"part"]] * SITES
        return app.most

    assert asyncio.run(all_at_once()) == most


def test_those_whose_link_is_slow_hold_up_nobody() -> None:
    async def with_slow_ones() -> None:
        door, link = AdminDoor(App(), "token", News()), asyncio.Event()
        slow = [asyncio.create_task(ask(door, b"slow", link=link)) for _ in range(PARTS_AT_ONCE)]
        assert await asyncio.wait_for(ask(door, b"quick"), 30) == [b"quick"]
        assert not any(task.done() for task in slow)
        link.set()
        assert await asyncio.gather(*slow) == [[b"slow"]] * PARTS_AT_ONCE

    asyncio.run(with_slow_ones())


def test_a_request_that_fails_ends_its_turn() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    async def again() -> None:
        door = AdminDoor(fails, "token", News())
        for _ in range(PARTS_AT_ONCE + 1):
            with pytest.raises(ValueError):
                await asyncio.wait_for(ask(door, b"part"), 30)

    asyncio.run(again())
