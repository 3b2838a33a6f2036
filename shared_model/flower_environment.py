"""What every process of Flower's finds in its environment: nothing called home, nothing installed, our own folder."""

import os
import sys
from pathlib import Path

LOOK = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
"""Seconds between two looks of an executor for work. Half of Flower's own 1 s takes about 4 % of a core, 0.1 s 13 %."""


def environment(home: Path) -> dict[str, str]:
    """The environment of a child process.

    Args:
        home: Flower's own folder. Its programs are found by name, so this Python's come first in PATH; traffic on
            loopback never goes through a proxy.
    """
    home.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = ",".join(part for part in (before, "127.0.0.1,localhost") if part)
    return {
        LOOK: "0.5",
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
