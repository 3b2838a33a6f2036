"""A federation on Flower's simulation engine: real ServerApp, ClientApps and messages, on Ray actors.

They run on this machine, or on the Ray cluster that the environment's RAY_ADDRESS names. All its nodes have this
software and the run's folder under the same paths, and as many sites work at the same time as they have CPUs.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.simulation import run_simulation

from client.app import client_app
from server.aggregation import build
from server.app import server_app
from server.rounds import Federation, Notify, Transport
from server.store import RunStore
from shared_model.config import SiteConfig

OBJECT_STORE_BYTES = 256 << 20


def _config_of(configs: Sequence[SiteConfig], context: Context) -> SiteConfig:
    return configs[int(context.node_config["partition-id"])]


def run_federation(store: RunStore, configs: Sequence[SiteConfig], processes: int, notify: Notify) -> None:
    """Run or resume the store's run with one virtual node for each site config.

    Args:
        processes: sites that work at the same time, one CPU each; on a cluster, sites that share a GPU.

    Raises:
        RunError: see Federation.complete.
    """
    rule = build(store.read()[1].aggregation)

    def main(transport: Transport) -> None:
        Federation(store, rule, transport, notify).complete()

    _log_to(store.folder / "flower.log")
    gpus = 1.0 / processes if any(config.device != "cpu" for config in configs) else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=server_app(len(configs), main),
            client_app=client_app(partial(_config_of, tuple(configs))),
            num_supernodes=len(configs),
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": gpus},
                "init_args": ray_arguments(processes, os.environ),
            },
        )


def ray_arguments(processes: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """With what Ray is started, or a cluster joined; one that runs here and was not named is left alone."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if address := environment.get("RAY_ADDRESS"):
        return {"address": address, **quiet}
    return {"address": "local", "num_cpus": processes, "object_store_memory": OBJECT_STORE_BYTES, **quiet}


def _log_to(path: Path) -> None:
    """Flower's messages and tracebacks go to a file instead of the terminal."""
    logger = logging.getLogger("flwr")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
