"""Rounds in one process are what the aggregation rules say, and a way's cost is told as it was counted."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cached_cohort import write_patients
from benchmarks.cached_federation import rounds
from benchmarks.time_to_accuracy import Way, plan_of, table
from client.data.phantom.cohort import HOSPITALS
from server.aggregation.fedadam import FedAdam
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state
from shared_model.parts import before_round

SHORT = {"local_steps": 1, "batch_size": 1, "warmup_steps": 1, "parts": ("heads",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("patients")
    with ThreadPoolExecutor(2) as workers:
        for site in HOSPITALS:
            write_patients(place / site, site, 1, 5, workers)
    return place


@pytest.fixture(scope="module")
def start() -> Tensors:
    torch.manual_seed(0)
    plan = plan_of(Way())
    return shared_state(build_network(plan.model, plan.tasks))


def test_a_rule_that_remembers_takes_its_step_along_the_mean(
    folder: Path, start: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged = next(rounds(folder, start, plan_of(Way(SHORT))))
    given: list[Tensors] = []
    step = FedAdam.step

    def watched(rule: FedAdam, base: np.ndarray, mean: np.ndarray, memory: Tensors) -> tuple[np.ndarray, Tensors]:
        given.append(memory)
        return step(rule, base, mean, memory)

    monkeypatch.setattr(FedAdam, "step", watched)
    adapted = rounds(folder, start, plan_of(Way(SHORT, {"rule": "fedadam"})))
    first = next(adapted)
    names = list(before_round(start, plan_of(Way()).tasks, plan_of(Way(SHORT)).training))
    kept = {}
    for name in names:
        wanted, kept[name] = step(FedAdam(), start[name], averaged.model[name], {})
        assert np.array_equal(first.model[name], wanted), name
    assert given == [{}] * len(names)
    next(adapted)
    for name, memory in zip(names, given[len(names) :], strict=True):
        assert all(np.array_equal(memory[part], kept[name][part]) for part in ("m", "v")), name


def test_bytes_are_those_that_travel(folder: Path, start: Tensors) -> None:
    plan = plan_of(Way(SHORT))
    plain = next(rounds(folder, start, plan))
    assert plain.down == sum(value.nbytes for value in before_round(start, plan.tasks, plan.training).values())
    own = [tuple(task for task in plan.tasks if task in hospital.tasks) for hospital in HOSPITALS.values()]
    sent = [before_round(start, tasks, plan.training) for tasks in own]
    assert plain.up == sum(value.nbytes for tensors in sent for value in tensors.values())
    coded = next(rounds(folder, start, plan_of(Way(SHORT, compression="int8"))))
    assert coded.up < 0.4 * plain.up
    assert coded.down < 0.4 * plain.down


def test_the_table_says_what_was_not_reached_and_adds_the_link() -> None:
    row = {"way": "a", "dices": [0.1, 0.5, 0.8], "reached": True, "up": 2e6, "down": 3e6, "seconds": 6.0}
    text = table(0.8, [row, {**row, "way": "b", "reached": False}])
    assert "Synthetic" in text
    assert "| a | 0.100 | 2 | 0.800 | 3.0 | 2.0 | 6 | 10 |" in text
    assert "| b | 0.100 | not in 2 | 0.800 |" in text
