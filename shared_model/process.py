"""A process as a file can name it. Its number alone is used again after a while, or a reboot; with its start, not."""

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import Field

from shared_model.config import Config

T = TypeVar("T")
BOOT = Path("/proc/sys/kernel/random/boot_id")
TICK_SECONDS = 0.005
"""Half of what the system tells the start of a process by."""
GRACE_SECONDS = 5.0
LOOK_SECONDS = 1.0
COLLECT_SECONDS = 5.0
_ARENA_MAX = -8
"""An option of glibc's mallopt."""


class Process(Config):
    """A process of this machine.

    Attributes:
        number: its id.
        started: when it began, seconds after the machine did: a clock that is set anew does not move it.
        boot: the machine's own name of the time since it was started; empty where it has none.
    """

    number: int = Field(ge=0)
    started: float
    boot: str = ""

    @classmethod
    def own(cls) -> "Process":
        """The one that asks."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, number: int) -> "Process":
        """The one that has this number now.

        Raises:
            psutil.Error: none has.
        """
        return cls(number=number, started=_started(psutil.Process(number)), boot=_boot())

    def lives(self) -> bool:
        """Whether it still runs; one that has ended and that nobody has waited for does not."""
        try:
            process = psutil.Process(self.number)
            same = self.boot == _boot() and abs(_started(process) - self.started) < TICK_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def _started(process: psutil.Process) -> float:
    """The system tells both times by its clock of the moment, so that their difference is none of the clock."""
    return process.create_time() - psutil.boot_time()


def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def end_with_parent(other: int | None = None) -> None:
    """From now on end this process soon after the one that started it, or after another, whatever it waits for.

    Flower's own watch comes first and lets go of what is open. But it raises its signal in a thread of its own, which
    wakes no main thread that waits for others: one that talks to a killed server would try for ever.
    """
    parent = os.getppid()
    watched = None if other is None else Process.of(other)

    def watch() -> None:
        while os.getppid() == parent and (watched is None or watched.lives()):
            time.sleep(LOOK_SECONDS)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def collect_often() -> None:
    """From now on look for garbage now and then: Flower's messages and requests refer to themselves in circles, which
    Python looks for the more seldom the more it holds, and the models of rounds past would stay.
    """

    def repeat() -> None:
        gc.collect()
        gc.freeze()  # what is there by now stays, and need not be looked through again
        while True:
            time.sleep(COLLECT_SECONDS)
            gc.collect()

    threading.Thread(target=repeat, daemon=True).start()


def beside(work: Callable[..., T], *given: Any) -> "Future[T]":
    """Do something in a thread of its own while the caller goes on; what it raises comes with the result."""
    thread = ThreadPoolExecutor(1)
    try:
        return thread.submit(work, *given)
    finally:
        thread.shutdown(wait=False)


def begin_again_with(settings: dict[str, str]) -> None:
    """Start this program anew, as the same process, where its environment lacks one of these: the system's allocator
    reads them when a program begins. What already stands there counts.
    """
    if settings.keys() - os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], settings | os.environ)


def allocate_together() -> None:
    """From now on no thread has memory of its own: a server's many, each at times with a part of a message, would keep
    what they let go apart from each other. Nothing where the system's allocator is not glibc's.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(_ARENA_MAX, 1)
