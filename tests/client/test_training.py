"""Local training: reproducible to the bit, on schedule, and moving nothing that it must not."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from client import training
from client.data.batches import ahead
from client.site import Site
from client.training import Job, round_job, schedule, train
from shared_model.config import TrainingConfig
from shared_model.network import build_network
from shared_model.parameters import Tensors, digest, load_shared, shared_state, trained_names
from tests.federation import Cohort, small_simulation

PLAN = small_simulation().plan
CPU = torch.device("cpu")
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(scope="module")
def alder(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(cohort.configs(tmp_path_factory.mktemp("sites"))[0], PLAN, "0123456789abcdef")


def trained(site: Site, job: Job) -> tuple[Tensors, Tensors]:
    """Weights before and after."""
    torch.manual_seed(0)
    network = build_network(PLAN.model, PLAN.tasks)
    before = shared_state(network)
    train(network, site.learner.training_cases, job, CPU)
    return before, shared_state(network)


def test_the_same_seeds_give_the_same_bits_and_others_do_not(alder: Site) -> None:
    job = round_job(PLAN, PLAN.tasks, "alder", 1, {})
    first = digest(trained(alder, job)[1])
    torch.rand(7)
    np.random.rand(7)
    assert digest(trained(alder, job)[1]) == first
    assert digest(trained(alder, round_job(PLAN, PLAN.tasks, "birch", 1, {}))[1]) != first
    assert digest(trained(alder, round_job(PLAN, PLAN.tasks, "alder", 2, {}))[1]) != first


def test_only_the_tasks_parameters_move(alder: Site) -> None:
    before, after = trained(alder, round_job(PLAN, ("wt", "idh"), "alder", 1, {}))
    names = trained_names(before, ("wt", "idh"))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved <= set(names)
    assert {"heads.wt.weight", "backbone.encoder1.layer.conv1.conv.weight"} <= moved
    assert not {name for name in moved if name.startswith(("heads.codeletion", "heads.grade", "heads.tc", "heads.et"))}


def test_a_strong_proximal_term_holds_the_weights_back(alder: Site) -> None:
    def distance(mu: float) -> float:
        job = Job(PLAN, ("wt",), "alder", first_step=0, steps=3, batch_size=1, proximal=mu)
        before, after = trained(alder, job)
        return float(np.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before)))

    assert distance(1000.0) < 0.9 * distance(0.0)


def test_the_schedule_by_hand() -> None:
    config = TrainingConfig(warmup_steps=4)
    assert [schedule(config, step, 104) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert schedule(config, 54, 104) == pytest.approx(0.01 + 0.99 / 2)
    assert schedule(config, 104, 104) == pytest.approx(0.01)
    constant = TrainingConfig(warmup_steps=4, schedule="constant")
    assert [schedule(constant, step, 104) for step in (1, 3, 54, 104)] == [0.5, 1.0, 1.0, 1.0]


def test_rounds_continue_one_schedule() -> None:
    job = round_job(PLAN, ("wt",), "alder", 3, {"mu": 0.5})
    assert (job.first_step, job.steps, job.proximal) == (2 * PLAN.training.local_steps, PLAN.training.local_steps, 0.5)


def test_moments_are_taken_up_and_calm_the_first_steps_of_a_round(alder: Site) -> None:
    torch.manual_seed(0)
    network = build_network(PLAN.model, PLAN.tasks)
    first = train(network, alder.learner.training_cases, round_job(PLAN, ("wt",), "alder", 1, {}), CPU)
    middle = shared_state(network)
    steps = {value.item() for name, value in first.moments.items() if name.startswith("step/")}
    assert steps == {PLAN.training.local_steps}
    job = round_job(PLAN, ("wt",), "alder", 2, {})

    def moved(moments: Tensors) -> Tensors:
        load_shared(network, middle)
        train(network, alder.learner.training_cases, job, CPU, moments)
        after = shared_state(network)
        return {name: after[name] - middle[name] for name in after}

    name = "backbone.encoder1.layer.conv1.conv.weight"
    assert digest(moved(first.moments)) == digest(moved(first.moments))
    assert np.abs(moved(first.moments)[name]).mean() < np.abs(moved({})[name]).mean()


def test_every_step_ticks(alder: Site) -> None:
    ticks: list[int] = []
    network = build_network(PLAN.model, PLAN.tasks)
    job = Job(PLAN, ("wt",), "alder", first_step=0, steps=3, batch_size=1)
    train(network, alder.learner.training_cases, job, CPU, on_step=lambda: ticks.append(1))
    assert len(ticks) == 3


def test_batches_made_ahead_train_to_the_same_bits(alder: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(PLAN, ("wt",), "alder", first_step=0, steps=3, batch_size=2)
    wanted, made = digest(trained(alder, job)[1]), training.training_batches
    monkeypatch.setattr(training, "training_batches", lambda *arguments: ahead(made(*arguments)))
    assert digest(trained(alder, job)[1]) == wanted


def test_a_step_that_fails_leaves_no_thread(alder: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job, made = Job(PLAN, ("wt",), "alder", first_step=0, steps=3, batch_size=1), training.training_batches
    monkeypatch.setattr(training, "training_batches", lambda *arguments: ahead(made(*arguments)))

    def fail() -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        train(build_network(PLAN.model, PLAN.tasks), alder.learner.training_cases, job, CPU, on_step=fail)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@ON_CUDA
def test_no_step_on_cuda_waits_for_the_device(alder: Site) -> None:
    steps = 4

    def watch(done: list[int]) -> None:
        done.append(1)
        torch.cuda.set_sync_debug_mode("default" if len(done) == steps else "error")

    done: list[int] = []
    network = build_network(PLAN.model, PLAN.tasks)
    job = Job(PLAN, PLAN.tasks, "alder", first_step=0, steps=steps, batch_size=2)
    try:
        train(network, alder.learner.training_cases, job, torch.device("cuda"), on_step=lambda: watch(done))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(done) == steps


@ON_CUDA
def test_moments_of_the_fused_optimizer_go_on(alder: Site) -> None:
    network = build_network(PLAN.model, PLAN.tasks)
    device, cases = torch.device("cuda"), alder.learner.training_cases
    first = train(network, cases, round_job(PLAN, ("wt",), "alder", 1, {}), device)
    second = train(network, cases, round_job(PLAN, ("wt",), "alder", 2, {}), device, first.moments)
    steps = {value.item() for name, value in second.moments.items() if name.startswith("step/")}
    assert steps == {2 * PLAN.training.local_steps}


@ON_CUDA
def test_training_on_cuda_lowers_the_loss_under_mixed_precision(alder: Site) -> None:
    network = build_network(PLAN.model, PLAN.tasks)
    device = torch.device("cuda")
    first = train(network, alder.learner.training_cases, Job(PLAN, ("wt",), "alder", 0, 2, 2), device)
    last = train(network, alder.learner.training_cases, Job(PLAN, ("wt",), "alder", 0, 20, 2), device)
    assert last.loss is not None and first.loss is not None and last.loss < first.loss


def test_the_split_is_by_patient_stable_and_keeps_both_parts(alder: Site, tmp_path: Path) -> None:
    training, held_out = alder.cases
    assert not {case.patient for case in training} & {case.patient for case in held_out}
    assert len(held_out) == round(0.2 * 8)
    again = Site(alder.config, PLAN, "f" * 16).cases
    assert [case.id for case in again[1]] == [case.id for case in held_out]
