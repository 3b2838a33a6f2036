"""When the round loop waits for a site that is not connected."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from server.app import FlowerTransport


class Grid:
    """Flower's Grid with nodes that come and go as the test says; each message is answered by an error."""

    there = (1, 2)

    def get_node_ids(self) -> tuple[int, ...]:
        return self.there

    def push_messages(self, messages: list[Any]) -> list[str]:
        return [str(index) for index, _ in enumerate(messages)]

    def pull_messages(self, numbers: list[str]) -> list[Any]:
        lost = SimpleNamespace(has_error=lambda: True, error=SimpleNamespace(code=5, reason="lost"))
        return [lost for _ in numbers]


def seconds_of_a_look(transport: FlowerTransport) -> float:
    started = time.monotonic()
    transport.nodes()
    return time.monotonic() - started


def test_it_waits_at_first_and_after_a_node_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.app.Message", lambda *_, **__: None)
    grid: Any = Grid()
    transport = FlowerTransport(grid, expected=2, patience=0.5)
    assert seconds_of_a_look(transport) < 0.3
    grid.there = (1,)
    assert seconds_of_a_look(transport) < 0.3
    transport.send({"1": ("{}", {})}, 5)
    assert len(list(transport.receive(5))) == 1
    assert seconds_of_a_look(transport) >= 0.5
    assert seconds_of_a_look(transport) < 0.3
