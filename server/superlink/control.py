"""The admin port's client: start, look at and stop Flower's side of a run. Flower's run ids stay in here."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.transport_pb2 import Scalar
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from server.coordinator import Coordinator
from shared_model.errors import RunError
from shared_model.shell import CONTENT, DIGEST

RUN_KEY = "run"
"""The shell's one setting: the id of our run."""
LISTED = 1000
TIMEOUT_SECONDS = 30.0


class _Token:
    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["authorization"] = f"Bearer {self._token}"
        return call_next(context)


class Control:
    """The control API of a coordinator that serves on this machine."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{coordinator.config.admin_port}",
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr"), _Token(coordinator.token)],
        )
        self._client._client = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False)  # the token goes to no proxy

    def start(self, run: str) -> None:
        """Let the executor start a process for our run.

        Raises:
            RunError: the server is not there, or the run is in progress.
        """
        with _explained():
            if self._active(run):
                raise RunError(f"run '{run}' is in progress", "watch it with: mtsunet-server status")
            self._client.StartRun(
                StartRunRequest(
                    fab=Fab(hash_str=DIGEST, content=CONTENT), override_config={RUN_KEY: Scalar(string=run)}
                )
            )

    def stop(self, run: str) -> bool:
        """End the run's process; False if there was none.

        Raises:
            RunError: the server is not there.
        """
        with _explained():
            active = self._active(run)
            for number in active:
                self._client.StopRun(StopRunRequest(run_id=number))
        return bool(active)

    def active(self, run: str) -> bool:
        """Whether Flower still has a process for our run, or is about to start one.

        Raises:
            RunError: the server is not there.
        """
        with _explained():
            return bool(self._active(run))

    def connected(self) -> set[int]:
        """Node ids that are connected, or were until less than a minute ago.

        Raises:
            RunError: the server is not there.
        """
        with _explained():
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {node.node_id for node in nodes if node.status == "online"}

    def _active(self, run: str) -> list[int]:
        runs = self._client.ListRuns(ListRunsRequest(limit=LISTED)).run_dict
        return [
            number
            for number, row in runs.items()
            if row.override_config[RUN_KEY].string == run and row.status.status != "finished"
        ]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise RunError(f"the server answers {error.response.status_code}", "see its log") from None
    except httpx.HTTPError as error:
        what = f"no server on the admin port ({type(error).__name__})"
        raise RunError(what, "start it with: mtsunet-server serve") from None
