"""A process as a file can name it. Its number alone is used again after a while, or a reboot; with its start, not."""

import os
import threading
import time

import psutil
from pydantic import Field

from shared_model.config import Config

GRACE_SECONDS = 5.0
LOOK_SECONDS = 1.0


class Process(Config):
    """A process of this machine.

    Attributes:
        number: its id.
        started: when it began, seconds since 1970, as the system tells.
    """

    number: int = Field(ge=0)
    started: float

    @classmethod
    def own(cls) -> "Process":
        """The one that asks."""
        return cls(number=os.getpid(), started=psutil.Process().create_time())

    def lives(self) -> bool:
        """Whether it still runs; one that has ended and that nobody has waited for does not."""
        try:
            process = psutil.Process(self.number)
            return process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def end_with_parent() -> None:
    """From now on end this process soon after the one that started it, whatever it waits for.

    Flower's own watch comes first and lets go of what is open. But it raises its signal in a thread of its own, which
    wakes no main thread that waits for others: one that talks to a killed server would try for ever.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
