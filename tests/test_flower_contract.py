"""What client/supernode.py and server/superlink/ use of Flower's private parts. A failure names what another Flower
version has changed.
"""

import ast
import dataclasses
import inspect
import subprocess
import sys
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared_model import flower_environment
from shared_model.flower_environment import QUICKER, environment

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_is_one_that_was_read() -> None:
    assert metadata.version("flwr").startswith("1.41."), "read client/supernode.py and server/superlink/link.py again"


def test_the_superlink_is_built_from_these_settings() -> None:
    from flwr.superlink.config_loader import SuperLinkLifespanConfig

    from server.superlink import link

    calls = [node for node in ast.walk(ast.parse(inspect.getsource(link.build))) if isinstance(node, ast.Call)]
    given = next(call for call in calls if ast.unparse(call.func) == "SuperLinkLifespanConfig").keywords
    assert {field.name for field in dataclasses.fields(SuperLinkLifespanConfig)} == {word.arg for word in given}
    assert list(inspect.signature(link.create_app).parameters) == ["config", "superlink_lifespan_class"]


def test_sqlite_waits_as_long_as_we_say() -> None:
    from flwr.supercore import sql_mixin

    source = inspect.getsource(sql_mixin._set_sqlite_pragmas)
    assert "SQLITE_PRAGMAS" in source and dict(sql_mixin.SQLITE_PRAGMAS)["busy_timeout"]


def test_replies_are_pushed_with_node_and_source() -> None:
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.superlink.routers.fleet import router
    from flwr.superlink.servicer.fleet import fleet_handlers

    assert router.fleet_handlers is fleet_handlers
    assert {"node", "messages_list"} <= {field.name for field in PushMessagesRequest.DESCRIPTOR.fields}


def test_a_run_is_looked_up_where_ours_is_put_and_a_node_lets_go_of_one_that_is_over() -> None:
    from flwr.superlink.servicer.fleet import fleet_handlers

    assert list(inspect.signature(fleet_handlers.check_abort).parameters) == ["run_id", "abort_status_list", "state"]
    for name in ("push_messages", "push_object", "pull_object", "confirm_message_received"):
        source = inspect.getsource(inspect.unwrap(getattr(fleet_handlers, name)))
        assert "check_abort(" in source and "FLEET_RUN_STATUS_NOT_ALLOWED" in source, name
    loop = import_module("flwr.supernode.start_client_internal")
    for function in (loop._push_messages, loop._pull_and_store_message):
        assert "except RunNotRunningException:" in inspect.getsource(function)


def test_a_reply_is_handed_out_where_ours_is_held_back_and_an_upload_leaves_no_session_behind() -> None:
    from flwr.supercore.corestate.sql_corestate import SqlCoreState
    from flwr.superlink import main
    from flwr.superlink.servicer.runtime import runtime_handlers

    router = import_module("flwr.supercore.routers.runtime.router")
    assert main.runtime_handlers is runtime_handlers
    assert "handlers.pull_messages(request, state, task)" in inspect.getsource(router)
    pull = inspect.unwrap(runtime_handlers.pull_messages)
    assert list(inspect.signature(pull).parameters) == ["request", "state", "task"]
    store = inspect.getsource(SqlCoreState.store_object)
    assert store.index("if pending_count == 0:") < store.rindex("self._cleanup_push_session(")


def test_requests_and_uploads_may_take_as_long_as_we_say() -> None:
    from flwr.supercore.corestate import sql_corestate

    client = import_module("flwr.supercore.protobuf.client").ProtobufClient
    assert "timeout" in client.__init__.__kwdefaults__
    fleet = import_module("flwr.supernode.fleet_http_client")
    assert issubclass(fleet.FleetHttpClient, client)
    assert "timeout=HEARTBEAT_CALL_TIMEOUT" in inspect.getsource(fleet)
    assert "timeout" not in inspect.getsource(fleet.FleetHttpClient.from_server_address)
    for name in ("start_session", "store_object"):
        source = inspect.getsource(getattr(sql_corestate.SqlCoreState, name))
        assert "OBJECT_PUSH_SESSION_TTL_SECONDS" in source, name


def test_the_node_looks_at_an_app_where_ours_is_put() -> None:
    loop = import_module("flwr.supernode.start_client_internal")
    command = import_module("flwr.supernode.cli.flower_supernode")
    pull = inspect.getsource(loop._pull_and_store_message)
    assert 'verifications.get("valid_license"' in pull
    assert "_verify_fab(fab, trusted_entities)" in pull
    assert "Message(FAB_VERIFICATION_ERROR, reply_to=message)" in pull
    assert pull.index("_verify_fab(") < pull.index("get_fused_config_from_fab(fab.content")
    assert "http_request_response(" in inspect.getsource(loop._init_connection)
    assert "trusted_entities=config.trusted_entities" in inspect.getsource(command.flower_supernode)


def test_the_node_looks_for_messages_where_ours_is_put_and_often_after_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from client import supernode

    source = inspect.getsource(supernode.loop.start_client_internal)
    assert "run_id = _pull_and_store_message(\n                state=state," in source
    assert "if run_id is None:" in source and "time.sleep(3)" in source
    source = inspect.getsource(supernode.loop._pull_and_store_message)
    assert "obj_contents = pull_objects(" in source and "lambda obj_id: pull_object(run_id, obj_id)" in source
    assert "object_store.put(obj_id, obj_contents.pop(obj_id))" in source
    clock, looks = 0.0, []
    kept: dict[str, bytes] = {}
    store = SimpleNamespace(put=kept.__setitem__, preregister=None, delete=None)

    def pull(came: int | None, pull_object: Any, object_store: Any) -> int | None:
        looks.append(clock)
        assert pull_object(1, "part") == b"" and kept.pop("part") == b"content"
        object_store.put("part", b"")
        object_store.put("a refusal", b"whole")
        assert kept.pop("a refusal") == b"whole" and not kept
        return came if round(clock, 6) in (0.0, 2.0) else None

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr(supernode.loop, "_pull_and_store_message", pull)
    monkeypatch.setattr(supernode.loop.pull_objects, "__kwdefaults__", dict(supernode.loop.pull_objects.__kwdefaults__))
    monkeypatch.setattr(supernode.loop, "time", supernode.loop.time)
    monkeypatch.setattr(supernode, "time", SimpleNamespace(monotonic=lambda: clock, sleep=sleep))
    supernode.be_quick()
    look = partial(supernode.loop._pull_and_store_message, pull_object=lambda *_: b"content", object_store=store)
    assert [look(came=7) for _ in range(2)] == [7, 7]
    assert looks == [0.0, 0.0]
    clock = 0.5
    assert look(came=7) == 7
    assert len(looks) == 18 and looks[3] == pytest.approx(0.5 + supernode.LOOK_SECONDS)
    clock = 3.0
    assert look(came=7) is None
    assert clock == pytest.approx(3.0 + supernode.AWAKE_SECONDS)
    assert look(came=7) is None
    assert clock == pytest.approx(3.0 + supernode.AWAKE_SECONDS), "from now on Flower's own pauses"
    assert "while not (reply_messages :=" in inspect.getsource(supernode.loop._push_messages)
    clock = 0.0
    supernode.loop.time.sleep(0.5)
    assert clock == supernode.ANSWER_SECONDS
    supernode.loop.time.sleep(3)
    assert clock == pytest.approx(supernode.ANSWER_SECONDS + 3)


def test_an_object_is_asked_for_again_as_often_as_we_say() -> None:
    utils = import_module("flwr.supercore.inflatable.inflatable_utils")
    assert {"initial_backoff", "backoff_cap", "max_tries_per_object"} <= set(utils.pull_objects.__kwdefaults__)
    assert "if max_tries_per_object is None:" in inspect.getsource(utils.pull_objects)


def test_what_is_quicker_than_flower_itself_is_read_where_ours_is_put(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    executor = import_module("flwr.supercore.superexec.run_superexec")
    look, chunk, _ = QUICKER
    monkeypatch.delenv(look, raising=False)
    monkeypatch.setenv(look, environment(tmp_path)[look])
    assert executor._get_task_poll_interval() == 0.1
    monkeypatch.setenv(look, "0.5")
    assert environment(tmp_path)[look] == "0.5"
    program = "from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as size; print(size)"
    told = subprocess.run([sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, check=True)
    assert int(told.stdout) == int(QUICKER[chunk]) == 8 << 20


def test_an_executor_is_answered_when_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    core = import_module("flwr.supercore.servicer.runtime.runtime_handlers")
    for module in ("flwr.superlink.servicer.runtime", "flwr.supernode.servicer.runtime"):
        handlers = import_module(f"{module}.runtime_handlers")
        assert handlers.core_runtime_handlers is core
        assert "core_runtime_handlers.acquire_task(request, state)" in inspect.getsource(handlers.acquire_task)
    clock, work_from = 0.0, 0.25

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def look(request: object, state: object) -> SimpleNamespace:
        return SimpleNamespace(token="t" if clock >= work_from else "")

    monkeypatch.setattr(core, "acquire_task", look)
    monkeypatch.setattr(flower_environment, "time", SimpleNamespace(monotonic=lambda: clock, sleep=sleep))
    flower_environment.answer_when_there_is_work()
    assert core.acquire_task(None, None).token == "t" and 0.25 <= clock < 0.4
    work_from = 9.0
    began = clock
    assert core.acquire_task(None, None).token == "" and clock - began == pytest.approx(1.0)


def test_the_programs_are_beside_this_python() -> None:
    for name in ("flower-superexec", "flwr-serverapp"):
        assert Path(sys.executable).with_name(name).exists(), name


def test_an_executor_starts_processes_where_ours_is_put(tmp_path: Path) -> None:
    runner = import_module("flwr.supercore.superexec.run_superexec")
    source = inspect.getsource(runner.run_superexec)
    assert "executor = get_executor(" in source and "executor.reconcile()" in source
    command = import_module("flwr.supernode.cli.flwr_clientapp")
    given = inspect.signature(command.run_clientapp).parameters
    assert {"runtime_api_address", "token", "insecure", "parent_pid"} <= set(given)
    pauses = {"initial_backoff", "backoff_cap", "max_tries_per_object"}
    runtime = import_module("flwr.supernode.runtime.run_clientapp")
    assert pauses <= set(runtime.pull_and_inflate_object_from_tree.__kwdefaults__)
    needed = {name for name, one in given.items() if one.default is inspect.Parameter.empty}
    assert needed == {"runtime_api_address", "token", "insecure"}
    told = subprocess.run(
        [sys.executable, "-m", "client.executor", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in ("--insecure", "--runtime-api-address", "--parent-pid", "--superexec-auth-secret-file"):
        assert option in told


def test_what_a_message_reads_beforehand_has_no_torch() -> None:
    """A fork of a process whose torch has begun threads, or CUDA, could wait for ever."""
    from client.executor import READ

    look = f"import sys, {', '.join(READ)}; print('torch' in sys.modules, 'monai' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "False"]


def test_the_supernode_takes_our_options() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "client.supernode", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in ("--superlink", "--root-certificates", "--auth-supernode-private-key", "--isolation", "--host"):
        assert option in told
    assert "--superexec-auth-secret-file" in told and "--port" in told
