"""Batches that a thread makes ahead: the same in the same order, one and no more, and nothing that hangs."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from client.data.batches import TrainingCrops, ahead, draw_batches
from client.data.loading import load_case
from client.data.reading import read_cases
from tests.federation import Cohort


def test_the_same_batches_in_the_same_order(cohort: Cohort) -> None:
    cases = [load_case(case) for case in read_cases(cohort.sites[0].data, "who2021")[:3]]
    crops = TrainingCrops((32, 32, 32), 0.5)
    plain = list(draw_batches(crops, cases, 2, 4, np.random.default_rng(5)))
    made = list(ahead(draw_batches(crops, cases, 2, 4, np.random.default_rng(5))))
    assert len(plain) == len(made) == 4
    for one, other in zip(plain, made, strict=True):
        for name in ("images", "present", "tumor_mask", "mask_known"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.targets.classes, other.targets.classes)


def test_one_is_made_ahead_and_no_more() -> None:
    started = threading.Semaphore(0)
    made = []

    def items() -> Iterator[int]:
        for item in range(5):
            made.append(item)
            started.release()
            yield item

    stream = ahead(items())
    assert next(stream) == 0
    for _ in range(2):
        assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.05)
    assert made == [0, 1]
    assert list(stream) == [1, 2, 3, 4]


def test_what_fails_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    stream = ahead(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    stream = ahead(iter(range(5)))
    assert next(stream) == 0
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before
