"""The clock of this process and of those that it starts is off by the seconds in the file CLOCK, if there is one.

As with a clock of the machine, what waits by the monotonic clock does not notice, and the machine's start moves along.
"""

import datetime as module
import os
import time
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  (its compiled parts take the true datetime, and no other)
import psutil

FILE = Path(os.environ["CLOCK"])
LOOK_SECONDS = 0.1
true_time, true_datetime, true_boot = time.time, module.datetime, psutil._psplatform.boot_time
looked, seconds = 0.0, 0.0


def off() -> float:
    global looked, seconds
    if time.monotonic() - looked > LOOK_SECONDS:
        looked = time.monotonic()
        seconds = float(FILE.read_text()) if FILE.exists() else 0.0
    return seconds


class Kind(type):
    """What the C parts of Python make are datetimes too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, true_datetime)


class Datetime(true_datetime, metaclass=Kind):
    """A datetime whose present is that of this clock."""

    __slots__ = ()

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return true_datetime.now(tz) + module.timedelta(seconds=off())


time.time = lambda: true_time() + off()
module.datetime = Datetime
psutil._psplatform.boot_time = psutil.boot_time = lambda: true_boot() + off()
