"""The standard gRPC health service, on loopback alone, for the probes of a hospital's or coordinator's IT."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shared_model.errors import RunError

STOP_SECONDS = 1.0


class HealthServer:
    """NOT_SERVING until told otherwise."""

    def __init__(self, port: int) -> None:
        """Listen on loopback.

        Raises:
            RunError: the port is in use.
        """
        self._service = health.HealthServicer()
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._service, self._server)
        try:
            self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError:
            raise RunError(f"health port {port} is in use", "choose another, or leave it out") from None
        self.set(False)
        self._server.start()

    def set(self, serving: bool) -> None:
        """Say whether the service does its work."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self._service.set("", status)

    def stop(self) -> None:
        """End the service."""
        self._service.enter_graceful_shutdown()
        self._server.stop(STOP_SECONDS).wait()
