"""A federation in one process over patients in plain arrays: sites that train, rounds that reduce, and no messages."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.cached_cohort import read_patients
from client.data.phantom.cohort import HOSPITALS, TEST
from client.evaluation import measure, predict
from client.training import round_job, train
from server.aggregation.fedavg import FedAvg
from shared_model.compression import CODECS, through
from shared_model.config import Plan
from shared_model.guarantee import Guarantee
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import Tensors, load_shared
from shared_model.parts import after_round, before_round
from shared_model.scores import CaseResult

CPU = torch.device("cpu")


def federated(folder: Path, start: Tensors, plan: Plan, guarantee: Guarantee | None = None) -> tuple[Tensors, int]:
    """The last round's model, and the bytes that all sites sent; sites weigh alike, as they have as many patients each.

    Args:
        folder: with the patients of each hospital of the built-in cohort.
        guarantee: with which each site trains privately; None: plainly.
    """
    codec = CODECS[plan.compression]
    model, sent = start, 0
    moments: dict[str, Tensors] = {site: {} for site in HOSPITALS}
    for index in range(1, plan.rounds + 1):
        updates = []
        for site, hospital in HOSPITALS.items():
            network = loaded(plan, model)
            tasks = tuple(task for task in plan.tasks if task in hospital.tasks)
            job = round_job(plan, tasks, site, index, {}, guarantee)
            done = train(network, read_patients(folder / site), job, CPU, moments[site])
            moments[site] = done.moments
            frames, update, _ = through(codec, done.tensors, before_round(model, tasks, plan.training))
            sent += sum(frame.nbytes for frame in frames.values())
            updates.append(update)
        before = before_round(model, plan.tasks, plan.training)
        mean = {name: _mean([update[name] for update in updates if name in update], before[name]) for name in before}
        model = after_round(model, through(codec, mean, before)[1], plan, index)
    return model, sent


def _mean(values: list[np.ndarray], before: np.ndarray) -> np.ndarray:
    return FedAvg().reduce(values, [1] * len(values), before)


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
