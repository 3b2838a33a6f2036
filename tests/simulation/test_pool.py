"""Jobs on other processes: results in order, ticks counted, a failure told."""

import os
from functools import partial

import pytest

from server.simulation.pool import run_jobs, tick
from shared_model.errors import DataError


def square(number: int) -> tuple[int, int]:
    tick()
    return number * number, os.getpid()


def fail() -> tuple[int, int]:
    raise DataError("case 7: broken", "mend it")


def test_results_come_in_the_order_of_the_jobs_from_other_processes() -> None:
    ticks: list[int] = []
    results = run_jobs([partial(square, number) for number in range(5)], 2, lambda: ticks.append(1))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16]
    assert os.getpid() not in {process for _, process in results}
    assert len(ticks) == 5


def test_an_error_of_ours_arrives_whole() -> None:
    with pytest.raises(DataError) as caught:
        run_jobs([partial(square, 1), partial(fail)], 2, lambda: None)
    assert str(caught.value) == "case 7: broken. Mend it."
    assert caught.value.remedy == "mend it"


def test_no_jobs_no_processes() -> None:
    assert run_jobs([], 2, lambda: None) == []
