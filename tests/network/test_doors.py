"""What stands open on the public and the admin port of a real coordinator, and what no request can do to it."""

import random
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared_model.signing import read_site_key, signed_headers, to_pem
from tests.network.test_refusals import VALUES
from tests.network.world import World

PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
FLEET = sorted(path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/"))
OTHERS = sorted(path for _, path in PROTOBUF_REQUEST_TYPES if not path.startswith("/v1/fleet/"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("doors"))
    world.serve()
    world.site("north", VALUES)
    yield world
    world.close()


@pytest.fixture(scope="module")
def public(world: World) -> Iterator[httpx.Client]:
    """A stranger with the CA certificate."""
    context = ssl.create_default_context(cafile=str(world.coordinator.authority))
    with httpx.Client(base_url=f"https://{world.coordinator.config.address}", verify=context, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def admin(world: World) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{world.coordinator.config.admin_port}", timeout=60) as client:
        yield client


def signed(world: World) -> dict[str, str]:
    key = read_site_key(world.folder / "north" / "state" / "site.key")
    return PROTOBUF | signed_headers(key, datetime.now(UTC))


def pem(world: World) -> bytes:
    return to_pem(read_site_key(world.folder / "north" / "state" / "site.key").public_key()).encode()


def activation(world: World) -> bytes:
    return ActivateNodeRequest(public_key=pem(world), heartbeat_interval=30).SerializeToString()


@pytest.mark.parametrize("path", [*OTHERS, "/v1/fleet/register-node", "/v1/fleet/unregister-node"])
def test_nothing_but_the_fleet_api_stands_on_the_public_port(world: World, public: httpx.Client, path: str) -> None:
    for headers in (PROTOBUF, signed(world), PROTOBUF | {"authorization": f"Bearer {world.coordinator.token}"}):
        assert public.post(path, headers=headers, content=b"").status_code == 404


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/redoc", "/v1/fleet", "/v1/fleet/", "/v1/fleet/../control"]
)
def test_no_page_stands_on_the_public_port(public: httpx.Client, path: str) -> None:
    assert public.get(path).status_code == 404


def test_a_stranger_finds_health_and_no_more(public: httpx.Client) -> None:
    assert public.get("/health").status_code == 200
    for path in ("/v1/site/hello", "/v1/site/models"):
        assert public.get(path).status_code == 401
    for path in FLEET:
        if "register" not in path:
            assert public.post(path, headers=PROTOBUF, content=b"").status_code == 401, path


def test_the_admin_port_wants_the_token(world: World, admin: httpx.Client) -> None:
    for path in [*OTHERS, *FLEET, "/docs", "/openapi.json", "/health"]:
        if path.startswith("/v1/runtime/"):
            continue
        for headers in (PROTOBUF, PROTOBUF | {"authorization": "Bearer wrong"}):
            assert admin.post(path, headers=headers, content=b"").status_code == 401, path
    right = {"authorization": f"Bearer {world.coordinator.token}"}
    assert admin.get("/health", headers=right).status_code == 200


def test_the_runtime_api_wants_the_executors_secret_or_a_tasks_token(admin: httpx.Client) -> None:
    for path in (path for path in OTHERS if path.startswith("/v1/runtime/")):
        response = admin.post(path, headers=PROTOBUF, content=b"")
        assert response.status_code in (400, 401, 403, 404, 426), (path, response.status_code)
        assert admin.post(path, headers=PROTOBUF | VERSION, content=b"").status_code in (401, 403, 404), path


VERSION = {"flwr-package-name": "flwr", "flwr-package-version": "1.41.0", "flwr-component-name": "flower-superexec"}


def test_a_captured_request_is_not_answered_twice(world: World, public: httpx.Client) -> None:
    for path in ("/v1/site/hello", "/v1/site/models"):
        headers = signed(world)
        assert public.get(path, headers=headers).status_code == 200
        again = public.get(path, headers=headers)
        assert (again.status_code, again.json()["detail"]) == (401, "this request was made before")
    headers = signed(world)
    body = activation(world)
    assert public.post("/v1/fleet/activate-node", headers=headers, content=body).status_code == 200
    assert public.post("/v1/fleet/activate-node", headers=headers, content=body).status_code == 401
    assert public.get("/v1/site/hello", headers=signed(world)).json()["online"] is True


def test_a_reply_in_another_nodes_name_is_turned_away(world: World, public: httpx.Client) -> None:
    public.post("/v1/fleet/activate-node", headers=signed(world), content=activation(world))  # known from here on
    node = world.coordinator.registry.sites()["north"].node
    assert node is not None
    for source, refused in ((node + 1, True), (node, False)):
        message = Message(metadata=Metadata(run_id=1, src_node_id=source, ttl=60, created_at=1.0))
        body = PushMessagesRequest(node=Node(node_id=node), messages_list=[message]).SerializeToString()
        response = public.post("/v1/fleet/push-messages", headers=signed(world), content=body)
        assert ("a reply in another node's name" in response.text) is refused, response.text


def test_a_run_that_nobody_knows_is_over(world: World, public: httpx.Client) -> None:
    """As after an older backup was put back. What is answered with 503 a node tries again for ever."""
    public.post("/v1/fleet/activate-node", headers=signed(world), content=activation(world))
    number = world.coordinator.registry.sites()["north"].node
    assert number is not None
    node = Node(node_id=number)
    for path, asked in (
        ("push-object", PushObjectRequest(node=node, run_id=1, object_id="a" * 64, object_content=b"a")),
        ("pull-object", PullObjectRequest(node=node, run_id=1, object_id="a" * 64)),
        ("confirm-message-received", ConfirmMessageReceivedRequest(node=node, run_id=1, message_object_id="a" * 64)),
        ("get-run", GetRunRequest(node=node, run_id=1)),
    ):
        response = public.post(f"/v1/fleet/{path}", headers=signed(world), content=asked.SerializeToString())
        assert response.status_code == 403, (path, response.text)


def mutated(path: str, key: bytes, draw: random.Random) -> bytes:
    """A request of this path with bytes changed, cut or added; or no request at all."""
    node, metadata = Node(node_id=draw.getrandbits(63)), Metadata(run_id=draw.getrandbits(60), ttl=1e9)
    requests: dict[str, Any] = {
        "/v1/fleet/activate-node": ActivateNodeRequest(public_key=key, heartbeat_interval=draw.choice([-1, 30, 1e300])),
        "/v1/fleet/pull-messages": PullMessagesRequest(node=node),
        "/v1/fleet/push-messages": PushMessagesRequest(
            node=node, messages_list=[Message(metadata=metadata)], message_object_trees=[ObjectTree(object_id="x")]
        ),
        "/v1/fleet/push-object": PushObjectRequest(
            node=node, run_id=1, object_id="a", object_content=draw.randbytes(99)
        ),
        "/v1/fleet/pull-object": PullObjectRequest(node=node, run_id=1, object_id="a" * draw.randrange(300)),
    }
    body = bytearray(requests[path].SerializeToString() if path in requests else b"")
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(body) + 1)
        body[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
    return bytes(body) if draw.random() < 0.8 else draw.randbytes(draw.randrange(2000))


def test_no_body_brings_the_server_down(world: World, public: httpx.Client) -> None:
    draw, key = random.Random(4), pem(world)
    bodies = [(path, mutated(path, key, draw)) for path in FLEET if "register" not in path for _ in range(50)]

    def post(asked: tuple[str, bytes]) -> httpx.Response:
        path, body = asked
        return public.post(path, headers=signed(world), content=body)

    with ThreadPoolExecutor(10) as threads:  # a good question for messages is held for a second
        for response in threads.map(post, bodies):
            assert "Traceback" not in response.text and 'File "' not in response.text
            assert response.status_code != 500, (response.url.path, response.text)
    assert public.get("/health").status_code == 200
    assert world.running[0].process.poll() is None


def test_a_body_without_end_is_cut_off(world: World, public: httpx.Client) -> None:
    chunk = bytes(1 << 20)
    response = public.post("/v1/fleet/push-object", headers=signed(world), content=(chunk for _ in range(40)))
    assert response.status_code == 413


def test_the_health_service_answers_the_standard_question(world: World) -> None:
    assert world.coordinator.config.health_port is not None
    with grpc.insecure_channel(f"127.0.0.1:{world.coordinator.config.health_port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_secrets_are_for_their_owner_alone(world: World) -> None:
    folder = world.coordinator.folder
    for name in ("admin.token", "executor.secret", "release.key", "authority/ca.key", "tls/server.key"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name
    assert Path(world.folder / "north" / "state" / "site.key").stat().st_mode & 0o077 == 0
