"""Jobs on several processes of this machine, one thread each, with a progress tick from inside a job."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")

_ticks: "SimpleQueue[None] | None" = None
POLL_SECONDS = 0.2


def _start(ticks: "SimpleQueue[None]") -> None:
    global _ticks
    _ticks = ticks


def tick() -> None:
    """Call inside a job: one unit of its work is done."""
    if _ticks is not None:
        _ticks.put(None)


def run_jobs(jobs: Sequence[Callable[[], Result]], processes: int, on_tick: Callable[[], None]) -> list[Result]:
    """Run all jobs, started in their order; their results in the same order.

    Raises:
        Exception: the first that a job raised; jobs not yet started are dropped.
    """
    context = get_context("spawn")
    ticks: SimpleQueue[None] = context.SimpleQueue()
    with ProcessPoolExecutor(max(1, min(processes, len(jobs))), context, _start, (ticks,)) as pool:
        futures = [pool.submit(job) for job in jobs]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                while not ticks.empty():
                    ticks.get()
                    on_tick()
                for future in done:
                    future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
