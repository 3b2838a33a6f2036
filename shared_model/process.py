"""A process as a file can name it. Its number alone is used again after a while, or a reboot; with its start, not."""

import os

import psutil

from shared_model.config import Config


class Process(Config):
    """A process of this machine.

    Attributes:
        number: its id.
        started: when it began, seconds since 1970, as the system tells.
    """

    number: int
    started: float

    @classmethod
    def own(cls) -> "Process":
        """The one that asks."""
        return cls(number=os.getpid(), started=psutil.Process().create_time())

    def lives(self) -> bool:
        """Whether it still runs."""
        try:
            return psutil.Process(self.number).create_time() == self.started
        except psutil.Error:
            return False
