"""What the server adds to Flower's state, on a state of its own."""

import asyncio
import gc
import sqlite3
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest

from server.coordinator import CoordinatorConfig, init
from server.superlink import link
from server.superlink.guard import News


def test_nothing_is_announced_between_the_look_and_the_hand_out(tmp_path: Path) -> None:
    """Or a reply that is announced in between is handed out, and its reader waits for its last part for ever."""
    made = init(tmp_path / "coordinator", CoordinatorConfig(names=("localhost",), port=8443, admin_port=8444))
    state = link.build(made)._state
    other = sqlite3.connect(made.folder / "link.db", timeout=0, isolation_level=None)

    def pull(request: PullAppMessagesRequest, state: Any, task: object) -> list[str]:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("begin immediate")
        with state.session() as session:  # as Flower's own does, within ours
            assert session.in_transaction()
        return list(request.message_ids)

    request = PullAppMessagesRequest(message_ids=["one", "two"])
    assert link._whole_replies_alone(pull)(request, state, None) == ["one", "two"]
    other.execute("begin immediate")


def test_flowers_bookkeeping_is_done_once_a_second_and_a_runs_bytes_are_not_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 5.0
    cleaned: list[Any] = []
    monkeypatch.setattr(link, "time", SimpleNamespace(monotonic=lambda: clock))
    clean = link._seldom(cleaned.append)
    for clock in (5.0, 5.5, 5.9, 6.1, 6.2):
        clean(clock)
    assert cleaned == [5.0, 6.1]
    made = init(tmp_path / "coordinator", CoordinatorConfig(names=("localhost",), port=8443, admin_port=8444))
    state = link.build(made)._state
    other = sqlite3.connect(made.folder / "link.db", timeout=0, isolation_level=None)
    other.execute("begin immediate")
    state.store_traffic(1, bytes_sent=5, bytes_recv=0)  # would wait for the other, and then miss the run


def test_a_request_that_is_answered_leaves_nothing_in_memory(tmp_path: Path) -> None:
    """Not until Python looks for garbage, which it does not for long."""
    made = init(tmp_path / "coordinator", CoordinatorConfig(names=("localhost",), port=8443, admin_port=8444))
    body = PushObjectRequest(object_content=bytes(4 << 20)).SerializeToString()

    async def held() -> int:
        transport = httpx.ASGITransport(link.build(made).app)
        headers = {"content-type": "application/protobuf"}
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            for number in range(9):
                answer = await client.post("/v1/fleet/push-object", content=body, headers=headers)
                assert answer.status_code == 401
                if number == 0:
                    tracemalloc.start()
        return tracemalloc.get_traced_memory()[0]

    gc.disable()
    try:
        assert asyncio.run(held()) < len(body)
    finally:
        gc.enable()
        tracemalloc.stop()


def test_a_site_that_asks_waits_for_news_and_gets_them_at_once() -> None:
    async def scenario() -> list[float]:
        news, took = News(seconds=0.3), []

        async def ask(site: str) -> None:
            began = time.monotonic()
            await news.wait(site)
            took.append(time.monotonic() - began)

        await ask("a")  # never heard: what was left before the server started may wait for it
        await ask("a")
        waiting = asyncio.create_task(ask("a"))
        await asyncio.sleep(0.05)
        news.announce()
        await waiting
        news.announce()
        await ask("a")  # announced while nobody waited
        await ask("b")
        return took

    first, idle, woken, missed, other = asyncio.run(scenario())
    assert max(first, missed, other) < 0.04 < woken < 0.29 < idle
