"""Several processes train as one does; on a CPU by gloo, and on GPUs by NCCL where there are two."""

import multiprocessing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client import together
from client.data.batches import Batch
from client.preflight import machine
from client.site import Site
from client.together import Shared, train_together
from client.training import Job, Share, Trained, train
from shared_model.config import SiteConfig, parse_config
from shared_model.errors import ConfigError
from shared_model.losses import Targets
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state
from tests.federation import Cohort, small_simulation

PLAN = small_simulation().plan
CPU = torch.device("cpu")
TASKS = ("wt", "tc")
"""Without dropout."""
JOB = Job(PLAN, TASKS, "alder", first_step=0, steps=2, batch_size=3)
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices on this machine")


@pytest.fixture(scope="module")
def alder(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(cohort.configs(tmp_path_factory.mktemp("sites"))[0], PLAN, "0123456789abcdef")


def moved(site: Site, job: Job, devices: list[torch.device]) -> tuple[Trained, Tensors]:
    """What training leaves, and the change of each weight."""
    torch.manual_seed(0)
    network = build_network(PLAN.model, PLAN.tasks)
    before, learner = shared_state(network), site.learner
    if len(devices) > 1:
        done = train_together(devices, network, learner._cache, learner._training, job, {})
    else:
        done = train(network, learner.training_cases, job, devices[0])
    return done, {name: value - before[name] for name, value in shared_state(network).items()}


def apart(first: Tensors, second: Tensors) -> float:
    """||first - second|| / ||first||."""
    both = [np.concatenate([change[name].ravel() for name in sorted(change)]) for change in (first, second)]
    return float(np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[0]))


def check_equal(site: Site, device: torch.device, devices: list[torch.device]) -> None:
    """AdamW turns a rounding of a gradient near zero into a whole step, hence a share of the change."""
    (one, alone), (both, shared) = moved(site, JOB, [device]), moved(site, JOB, devices)
    assert apart(alone, shared) < 0.03
    fewer = Job(PLAN, TASKS, "alder", first_step=0, steps=2, batch_size=2)
    assert apart(alone, moved(site, fewer, [device])[1]) > 0.2
    assert {name for name in alone if alone[name].any()} == {name for name in shared if shared[name].any()}
    assert sorted(one.moments) == sorted(both.moments) and sorted(one.tensors) == sorted(both.tensors)
    assert not list(site.config.state.glob("tmp*"))


def test_two_processes_train_as_one_does(alder: Site) -> None:
    check_equal(alder, CPU, [CPU, CPU])


@TWO_GPUS
def test_two_gpus_train_as_one_does(alder: Site) -> None:
    check_equal(alder, torch.device("cuda", 0), [torch.device("cuda", 0), torch.device("cuda", 1)])


def make_layers() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(5, dtype=torch.float64)) for _ in range(3)]


def gradients(*layers: torch.Tensor) -> np.ndarray:
    found = []
    for layer in layers:
        assert layer.grad is not None
        found.append(layer.grad.numpy())
    return np.stack(found)


def add_up(folder: Path, rank: int, values: torch.Tensor) -> None:
    """The second layer has a gradient from one row alone, which is rank 1's; the third from none."""
    first, second, third = make_layers()
    with together._meeting(folder, rank, 2, CPU) as share:
        own = values[rank::2]
        loss = (own @ first).pow(3).sum()
        if rank == 1:
            loss = loss + (own[0] @ second).pow(3)
        loss.backward()
        share.add_up([first, second, third])
    np.save(folder / f"{rank}.npy", gradients(first, second), allow_pickle=False)
    assert third.grad is None


def test_gradients_are_added_up_in_fp64(tmp_path: Path) -> None:
    values = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second, _ = make_layers()
    ((values @ first).pow(3).sum() + (values[1] @ second).pow(3)).backward()
    processes = [
        multiprocessing.get_context("spawn").Process(target=add_up, args=(tmp_path, rank, values)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npy", allow_pickle=False)
        np.testing.assert_allclose(found, gradients(first, second), rtol=1e-13)


def test_shares_are_all_crops_once() -> None:
    targets = Targets(torch.arange(5.0)[:, None], torch.ones(5, 3, dtype=torch.bool), torch.arange(5)[:, None])
    batch = Batch(torch.arange(5.0)[:, None], torch.ones(5, 4, dtype=torch.bool), targets)
    shares = [Shared(rank, 3).of(batch) for rank in range(3)]
    assert [share.images.flatten().tolist() for share in shares] == [[0, 3], [1, 4], [2]]
    assert [share.targets.classes.flatten().tolist() for share in shares] == [[0, 3], [1, 4], [2]]
    assert Share().of(batch) is batch


def test_a_process_that_fails_ends_the_others(alder: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", timedelta(seconds=5))
    with pytest.raises(RuntimeError):
        moved(alder, JOB, [CPU, torch.device("cuda", 99)])
    assert not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_gpus_of_a_site_that_trains_on_none_are_refused() -> None:
    values = {"site": "a", "data": {"folder": "d", "labels": "l"}, "tasks": ["wt"], "state": "s", "gpus": 2}
    with pytest.raises(ConfigError, match="gpus: 2 of them need device: cuda, not cpu"):
        parse_config(SiteConfig, values, "site.yaml")
    assert parse_config(SiteConfig, {**values, "device": "cuda"}, "site.yaml").gpus == 2


def test_check_finds_that_gpus_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    values = {"site": "a", "data": {"folder": "d", "labels": "l"}, "tasks": ["wt"], "state": str(tmp_path)}
    config = parse_config(SiteConfig, {**values, "device": "cuda", "gpus": 2}, "site.yaml")
    _, found = machine(config, 1, "tiny", (64, 32, 32), 1)
    assert [(row.where, row.what) for row in found if row.where == "gpus"] == [("gpus", "1 of 2 GPUs are visible")]
