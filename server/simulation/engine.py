"""A federation on Flower's simulation engine: real ServerApp, ClientApps and messages, on Ray actors of one machine."""

import logging
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

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
        processes: sites that work at the same time, one CPU each.

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
                "init_args": {
                    "num_cpus": processes,
                    "object_store_memory": OBJECT_STORE_BYTES,
                    "include_dashboard": False,
                    "log_to_driver": False,
                    "logging_level": logging.ERROR,
                },
            },
        )


def _log_to(path: Path) -> None:
    """Flower's messages and tracebacks go to a file instead of the terminal."""
    logger = logging.getLogger("flwr")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
