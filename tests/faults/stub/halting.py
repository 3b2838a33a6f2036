"""A process halts the first time that the state named by KILL_STATE is reached, and no process does so again.

It writes its number to KILL_FOLDER/reached and goes on, if it still lives, once KILL_FOLDER/hold is gone.
"""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = os.environ["KILL_STATE"]
FOLDER = Path(os.environ["KILL_FOLDER"])
SITE, ROUND = "alder", 2
"""The site that halts, and the round in which it or the loop does."""


def halt(state: str) -> None:
    """Wait here if `state` is the one to be killed in."""
    hold, reached = FOLDER / "hold", FOLDER / "reached"
    if state != STATE or reached.exists() or not hold.exists():
        return
    part = FOLDER / f"reached.{os.getpid()}"
    part.write_text(str(os.getpid()))
    try:
        os.link(part, reached)
    except FileExistsError:
        return
    while hold.exists():
        time.sleep(0.05)


def halt_before(place: Any, name: str, state: str, holds: Callable[..., bool]) -> None:
    """Halt before place.name is called with arguments for which `holds`."""
    original = getattr(place, name)

    @functools.wraps(original)
    def halting(*arguments: Any, **options: Any) -> Any:
        if holds(*arguments, **options):
            halt(state)
        return original(*arguments, **options)

    setattr(place, name, halting)
