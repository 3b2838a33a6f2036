"""What the server adds to Flower's state, on a state of its own."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest

from server.coordinator import CoordinatorConfig, init
from server.superlink import link


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
