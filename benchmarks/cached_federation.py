"""A federation in one process over patients in plain arrays: sites that train, rounds that reduce, and no messages."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.cached_cohort import read_patients
from client.data.phantom.cohort import HOSPITALS, TEST
from client.evaluation import measure, predict
from client.training import Job, round_job, train
from server.aggregation import build
from server.aggregation.base import Rule
from shared_model.checkpoint import encode_tensors, write_bytes
from shared_model.compression import CODECS, through
from shared_model.config import Plan
from shared_model.guarantee import Guarantee
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import Tensors, load_shared, shared_state
from shared_model.parts import after_round, before_round
from shared_model.scores import CaseResult

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pooled:
    """Training without a federation, on the patients of some folders together.

    Attributes:
        name: of the job, so that two draw differently.
        seed: of the first weights.
        steps, batch: the optimizer's, with the plan's settings for all else.
    """

    name: str
    seed: int
    steps: int
    batch: int

    def trained(self, path: Path, folders: Sequence[Path], plan: Plan) -> Tensors:
        """The weights; kept in `path` once made."""
        if not path.exists():
            torch.manual_seed(self.seed)
            network = build_network(plan.model, plan.tasks)
            training = plan.training.model_copy(update={"local_steps": self.steps})
            whole = plan.model_copy(update={"rounds": 1, "training": training})
            cases = [case for folder in folders for case in read_patients(folder)]
            train(network, cases, Job(whole, plan.tasks, self.name, 0, self.steps, self.batch), CPU)
            write_bytes(path, encode_tensors(shared_state(network)))
        return load_file(path)


@dataclass(frozen=True)
class Round:
    """What a round made, and took.

    Attributes:
        model: the next one.
        up: bytes that all sites sent.
        down: bytes of the change that each site is sent next.
        seconds: of the slowest site's training, its update's coding, and the reduction.
    """

    model: Tensors
    up: int
    down: int
    seconds: float


def rounds(folder: Path, start: Tensors, plan: Plan, guarantee: Guarantee | None = None) -> Iterator[Round]:
    """The plan's rounds one by one; sites weigh alike, as they have as many patients each.

    Not for a rule that scales whole updates.

    Args:
        folder: with the patients of each hospital of the built-in cohort.
        guarantee: with which each site trains privately; None: plainly.
    """
    codec, rule, model = CODECS[plan.compression], build(plan.aggregation), start
    moments: dict[str, Tensors] = {site: {} for site in HOSPITALS}
    memory: dict[str, Tensors] = {}
    for index in range(1, plan.rounds + 1):
        updates, up, slowest = [], 0, 0.0
        for site, hospital in HOSPITALS.items():
            began = time.perf_counter()
            network = loaded(plan, model)
            tasks = tuple(task for task in plan.tasks if task in hospital.tasks)
            job = round_job(plan, tasks, site, index, rule.settings(), guarantee)
            done = train(network, read_patients(folder / site), job, CPU, moments[site])
            moments[site] = done.moments
            frames, update, _ = through(codec, done.tensors, before_round(model, tasks, plan.training))
            up += sum(frame.nbytes for frame in frames.values())
            updates.append(update)
            slowest = max(slowest, time.perf_counter() - began)
        began = time.perf_counter()
        before = before_round(model, plan.tasks, plan.training)
        made, memory = _reduced(rule, updates, before, memory)
        frames, change, _ = through(codec, made, before)
        model = after_round(model, change, plan, index)
        down = sum(frame.nbytes for frame in frames.values())
        yield Round(model, up, down, slowest + time.perf_counter() - began)


def federated(folder: Path, start: Tensors, plan: Plan, guarantee: Guarantee | None = None) -> tuple[Tensors, int]:
    """The last round's model, and the bytes that all sites sent in all rounds; else as `rounds`."""
    model, sent = start, 0
    for done in rounds(folder, start, plan, guarantee):
        model, sent = done.model, sent + done.up
    return model, sent


def _reduced(
    rule: Rule, updates: list[Tensors], before: Tensors, memory: dict[str, Tensors]
) -> tuple[Tensors, dict[str, Tensors]]:
    made: Tensors = {}
    kept: dict[str, Tensors] = {}
    for name, base in before.items():
        values: list[np.ndarray] = [update[name] for update in updates if name in update]
        mean = rule.reduce(values, [1] * len(values), base)
        made[name], kept[name] = rule.step(base, mean, memory.get(name, {}))
    return made, kept


def loaded(plan: Plan, tensors: Tensors) -> MTSUNet:
    """The plan's network with these weights."""
    network = build_network(plan.model, plan.tasks)
    load_shared(network, tensors)
    return network


def tested(folder: Path, plan: Plan, model: Tensors) -> list[CaseResult]:
    """The model on the common test set, in order of the cases."""
    network = loaded(plan, model).eval()
    cases = read_patients(folder / TEST)
    return [measure(case, predict(network, case, plan.training.crop, plan.tasks)) for case in cases]


def mean_dices(results: list[CaseResult]) -> np.ndarray:
    """(cases,) mean Dice of each test case over the regions that its truth has."""
    rows = [[region for region in result.regions.values() if not region.empty] for result in results]
    return np.array([np.mean([region.dice for region in row]) for row in rows])
