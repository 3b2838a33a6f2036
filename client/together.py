"""Several GPUs of a site: each step's crops are shared out to processes, one a GPU, and their gradients added up.

All do the same from the same weights, moments and seeds, and draw the same batches; each takes its own crops, so that
gradients alone are exchanged (torch.distributed, by NCCL between GPUs). A step is that of one process but for dropout's
draws and the order of additions. What the first one has in the end is the result. Not for private training, whose noise
is drawn once.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from client.data.batches import Batch
from client.data.cache import CaseCache
from client.data.cases import Case
from client.training import Job, Share, Trained, train
from shared_model.checkpoint import read_tensors, save_tensors
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import load_shared, shared_state
from shared_model.process import end_with_parent

WEIGHTS, MOMENTS, MEETING = "weights.safetensors", "moments.safetensors", "meeting"
PATIENCE = timedelta(minutes=5)
"""For a process that does not come, or comes no more."""


class Shared(Share):
    """The share of process `rank` of `count`, within `_meeting`."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def of(self, batch: Batch) -> Batch:
        return batch.rows(slice(self.rank, None, self.count))

    def add_up(self, trained: Sequence[nn.Parameter]) -> None:
        """A parameter whose gradient no process has keeps none: AdamW leaves it as it is."""
        some = torch.tensor([value.grad is not None for value in trained], dtype=torch.uint8)
        dist.all_reduce(some, dist.ReduceOp.MAX)  # on the CPU, where no GPU has to be waited for
        moved = [value for value, there in zip(trained, some.tolist(), strict=True) if there]
        if not moved:
            return
        parts = [value.grad if value.grad is not None else torch.zeros_like(value) for value in moved]
        flat = torch.cat([part.flatten() for part in parts])  # (numbers of all of them,)
        dist.all_reduce(flat)
        for value, total in zip(moved, flat.split([value.numel() for value in moved]), strict=True):
            value.grad = total.view_as(value)


def train_together(
    devices: Sequence[torch.device],
    network: MTSUNet,
    cache: CaseCache,
    cases: Sequence[Case],
    job: Job,
    moments: Mapping[str, np.ndarray],
    on_step: Callable[[], None] = lambda: None,
) -> Trained:
    """As `train`, in place, over several devices; each is left at least one crop of a step.

    Args:
        cases: read from the cache by each process.

    Raises:
        RuntimeError: another process failed, or did not come within PATIENCE.
    """
    count = min(len(devices), job.batch_size)
    loaded = [cache.get(case) for case in cases]  # the others find them made
    with tempfile.TemporaryDirectory(dir=cache.folder.parent) as name:
        folder = Path(name)
        save_tensors(folder / WEIGHTS, shared_state(network))
        save_tensors(folder / MOMENTS, moments)
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_help, args=(folder, rank, count, devices[rank], cache, cases, job), daemon=True)
            for rank in range(1, count)
        ]
        for process in others:
            process.start()
        try:
            with _meeting(folder, 0, count, devices[0]) as share:
                return train(network, loaded, job, devices[0], moments, on_step, share)
        finally:
            for process in others:
                process.terminate()
                process.join()


def _help(
    folder: Path, rank: int, count: int, device: torch.device, cache: CaseCache, cases: Sequence[Case], job: Job
) -> None:
    """What every process but the first one does."""
    end_with_parent()
    network = build_network(job.plan.model, job.plan.tasks)
    load_shared(network, read_tensors(folder / WEIGHTS))
    with _meeting(folder, rank, count, device) as share:
        loaded = [cache.get(case) for case in cases]
        train(network, loaded, job, device, read_tensors(folder / MOMENTS), share=share)


@contextmanager
def _meeting(folder: Path, rank: int, count: int, device: torch.device) -> Iterator[Shared]:
    """All processes are there, and can exchange tensors; they meet by a file, and talk over loopback."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meet = f"file://{folder.resolve() / MEETING}"
    dist.init_process_group(backend, init_method=meet, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield Shared(rank, count)
    finally:
        dist.destroy_process_group()
