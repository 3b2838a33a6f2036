"""Bounds on what a decoder may take: time by an alarm, memory by a limit on the process's address space."""

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from hypothesis import HealthCheck, given, settings

from tests.hostile.payloads import Payloads

MEBIBYTE = 1 << 20
MOST_MEMORY = 512 * MEBIBYTE
"""More than any payload here may make a process grow."""
SLOWEST = 5.0
"""Seconds of the processor that one payload may take; the typical one takes less than a thousandth of it."""


@dataclass(frozen=True)
class Decoder:
    """What reads bytes from outside.

    Attributes:
        decode: called with an empty folder of its own for each decoder, and a payload. Uses what it has read as the
            product would, so that a value which is accepted and cannot be used is a fault too.
        refusal: the errors that its documentation names.
        examples: payloads it is given.
    """

    decode: Callable[[Path, bytes], object]
    refusal: type[Exception] | tuple[type[Exception], ...]
    payloads: Payloads
    examples: int


@contextmanager
def bounded(seconds: int, memory: int = MOST_MEMORY) -> Iterator[None]:
    """Let nothing in the block take longer, or so many more bytes.

    Raises:
        TimeoutError, MemoryError: it did.
    """

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + memory, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def attack(decoder: Decoder, folder: Path) -> None:
    """Give a decoder its payloads.

    Raises:
        whatever is not `decoder.refusal`, with the smallest payload that brings it about.
    """
    taken = given_in_all = 0
    slowest = 0.0

    @settings(max_examples=decoder.examples, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(decoder.payloads)
    def one(payload: bytes) -> None:
        nonlocal taken, given_in_all, slowest
        started = time.process_time()
        given_in_all += 1
        try:
            decoder.decode(folder, payload)
            taken += 1
        except decoder.refusal as error:
            assert "\n" not in str(error)
        slowest = max(slowest, time.process_time() - started)

    with bounded(300):
        one()
    assert given_in_all >= decoder.examples
    assert taken > 0  # else nothing behind the first check was reached
    assert slowest < SLOWEST
