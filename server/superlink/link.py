"""Flower's SuperLink as two listeners over one app. The server's one adapter to Flower's private parts; its contract
test fails clearly on another Flower version.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from fastapi import HTTPException
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin
from flwr.supercore.constant import NodeStatus
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.date import now
from flwr.supercore.object_store import object_store_factory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.state.schema.corestate_models import ObjectPushSession, ObjectPushSessionRoot
from flwr.supercore.state.schema.linkstate_models import MessageRes
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp

from server.coordinator import Coordinator
from server.registry import Enrolment, Registry
from server.superlink.objects import FileObjectStore
from shared_model.errors import RunError

PRAGMAS = {
    "busy_timeout": "60000",  # Flower's own 5 s end a run where several sites push models to a slow disk
    "mmap_size": "0",
    "cache_size": "-256",  # KiB, of each connection in the pool; the system has the file in memory anyway
}
"""SQLite's settings where ours differ from Flower's."""
REMEDY = "look at its rights and the disk's space, or restore it from a backup"
CLEAN_SECONDS = 1.0
"""Between two looks for tasks without a heartbeat, which count as gone after minutes."""
UPLOAD_SECONDS = 1800
"""Between two parts of an upload before it is given up; in Flower's own 180 s a slow uplink may not send one."""


@dataclass
class Link:
    """Flower's app, and what we ask of its state.

    Attributes:
        app: fleet, control and runtime API and /health, all on one app; the doors of guard.py stand before it.
    """

    app: ASGIApp
    _registry: Registry
    _state: Any

    def arrived(self, who: Enrolment) -> None:
        """Make an enrolled key known to Flower, where its state does not know it, and keep the node id that it gets."""
        key = who.pem.encode()
        node = self._state.get_node_id_by_public_key(key)
        if node is None:
            node = self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, HEARTBEAT_DEFAULT_INTERVAL)
        if node != who.node:
            self._registry.give_node(who, node)

    def online(self) -> set[int]:
        """Node ids that are connected, or were until less than a minute ago."""
        nodes = self._state.get_node_info(statuses=[NodeStatus.ONLINE])
        return {node.node_id for node in nodes}


def build(coordinator: Coordinator) -> Link:
    """The SuperLink of a coordinator's folder: SQLite state, process isolation, no listener yet.

    Raises:
        RunError: the state cannot be written, or is damaged.
    """
    config, database = coordinator.config, coordinator.folder / "link.db"
    sql_mixin.SQLITE_PRAGMAS = tuple((dict(sql_mixin.SQLITE_PRAGMAS) | PRAGMAS).items())
    lifespan = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=config.admin_port,
        insecure=True,
        certificates=None,
        superexec_auth_secret=coordinator.secret_file.read_bytes(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(database),
        isolation="process",
        runtime_dependency_install=False,
    )
    object_store_factory.SqlObjectStore = FileObjectStore
    sql_corestate.OBJECT_PUSH_SESSION_TTL_SECONDS = UPLOAD_SECONDS
    if not hasattr(fleet_handlers.push_messages, "__wrapped__"):
        fleet_handlers.push_messages = _own_replies_alone(fleet_handlers.push_messages)
        fleet_handlers.check_abort = _unknown_is_over(fleet_handlers.check_abort)
        runtime_handlers.pull_messages = _whole_replies_alone(runtime_handlers.pull_messages)
        states = SqlLinkState
        states._cleanup_expired_task_tokens = _seldom(states._cleanup_expired_task_tokens)
        states.store_traffic = _uncounted
        translation = ProtobufTranslationMiddleware
        translation.dispatch = _forgotten(translation.dispatch)
    try:
        app = create_app(lifespan, SuperLinkLifespan)
        state = app.state.linkstate_factory.state()
    except DBAPIError as error:
        raise RunError(f"{database}: {error.orig}", REMEDY) from None
    except OSError as error:
        raise RunError(f"{error.filename}: {error.strerror}", REMEDY) from None
    return Link(app, coordinator.registry, state)


def _seldom(clean: Callable[[Any], None]) -> Callable[[Any], None]:
    """Flower looks for tasks without a heartbeat whenever it is asked for a run or a part of a message, each time with
    a transaction that keeps all others from writing.
    """
    due = 0.0

    @wraps(clean)
    def cleaned(state: Any) -> None:
        nonlocal due
        if (present := time.monotonic()) >= due:
            due = present + CLEAN_SECONDS
            clean(state)

    return cleaned


def _uncounted(state: Any, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
    """Flower adds up a run's bytes, with a transaction for each part of a message; ours stand in its record."""


def _forgotten(dispatch: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's requests refer to themselves in circles, and each would keep its bytes, a part of a message twice over,
    until Python looks for garbage: here they go once it is answered.
    """

    @wraps(dispatch)
    async def dispatched(self: Any, request: Any, call_next: Any) -> Any:
        try:
            return await dispatch(self, request, call_next)
        finally:
            request._body = b""
            request.scope.get("state", {}).pop("protobuf_request", None)

    return dispatched


def _own_replies_alone(push: Callable[..., Any]) -> Callable[..., Any]:
    """Flower looks at who sends a message, and not at whose name stands in it: a site must not answer for another."""

    @wraps(push)
    def checked(request: PushMessagesRequest, **others: Any) -> Any:
        if any(message.metadata.src_node_id != request.node.node_id for message in request.messages_list):
            raise HTTPException(403, "a reply in another node's name")
        return push(request=request, **others)

    return checked


def _whole_replies_alone(pull: Callable[..., Any]) -> Callable[..., Any]:
    """Flower hands a reply out once it is announced, and whoever takes it waits for its last part: a site whose upload
    is slow, or never goes on, would hold up the replies of all others. Here it is out once it is whole, or given up.
    """

    @wraps(pull)
    def checked(request: PullAppMessagesRequest, state: Any, task: Any) -> Any:
        on_their_way = (
            select(MessageRes.reply_to_message_id)
            .join(ObjectPushSessionRoot, ObjectPushSessionRoot.root_object_id == MessageRes.message_id)
            .join(ObjectPushSession, ObjectPushSession.session_id == ObjectPushSessionRoot.session_id)
            .where(
                MessageRes.reply_to_message_id.in_(request.message_ids),
                ObjectPushSession.pending_count > 0,
                ObjectPushSession.expires_at > now(),
            )
        )
        with state.session() as session:
            session.connection().exec_driver_sql("begin immediate")  # nothing is announced between look and hand-out
            waiting = set(session.scalars(on_their_way))
            whole = [number for number in request.message_ids if number not in waiting]
            return pull(PullAppMessagesRequest(message_ids=whole), state, task)

    return checked


def _unknown_is_over(check: Callable[..., str | None]) -> Callable[..., str | None]:
    """Flower fails over a run that its state does not know, as after an older backup was put back, and the node of a
    site that has an answer to that run would try again for ever: it is told that the run is over, and goes on.
    """

    @wraps(check)
    def checked(run_id: int, abort_status_list: list[str], state: Any) -> str | None:
        try:
            return check(run_id, abort_status_list, state)
        except KeyError:
            return "no such run"

    return checked
