"""Local training: some optimizer steps from given weights on given cases.

Without differential privacy a round is a pure function of weights, optimizer state, cases and seeds; the schedule
counts steps over all rounds, and on a CPU with one thread the same call gives the same bits.
"""

import math
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from client.data.batches import Batch, TrainingCrops, ahead, draw_batches
from client.data.loading import LoadedCase
from client.moments import adamw, moments_of, restore
from shared_model.config import Plan, TrainingConfig
from shared_model.guarantee import Guarantee
from shared_model.losses import multi_task_loss
from shared_model.network import MTSUNet
from shared_model.network.adapters import Adapters
from shared_model.parameters import Tensors
from shared_model.parts import dense_names

if TYPE_CHECKING:  # Opacus is imported where it is needed
    from client.privacy.steps import PrivateSteps, SampleLosses

FORCED_SHARE = 0.5
"""Share of all steps over which the gate moves from the true mask to the network's own prediction."""


@dataclass(frozen=True)
class Job:
    """What to train, beside the network and the cases.

    Attributes:
        plan: supplies seed, training settings and the number of rounds.
        tasks: tasks whose heads, and the trunks they need, are trained; all else stays bit for bit.
        name: of the site, so that sites draw differently.
        first_step: steps done before, over all rounds; the schedule goes on from there.
        steps: optimizer steps to do.
        batch_size: crops per step, unless it is private.
        proximal: FedProx' mu, 0 for none.
        privacy: with what it is private; None if it is not.
    """

    plan: Plan
    tasks: tuple[str, ...]
    name: str
    first_step: int
    steps: int
    batch_size: int
    proximal: float = 0.0
    privacy: Guarantee | None = None

    @property
    def round(self) -> int:
        """Index, from 1, of the round that the first step belongs to."""
        return self.first_step // self.plan.training.local_steps + 1


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes:
        tensors: what was trained, as it travels (shared_model/parts.py).
        moments: of AdamW, for the next round; they stay at the site.
        loss: mean over the steps, of this process's crops; None of private ones.
        private_steps: noised steps that were done.
    """

    tensors: Tensors
    moments: Tensors
    loss: float | None
    private_steps: int = 0


class Share:
    """The crops of a step that are this process's: here all of them. See client/together.py.

    Attributes:
        rank: of this process, from 0.
    """

    rank: int = 0

    def of(self, batch: Batch) -> Batch:
        """The part of a batch."""
        return batch

    def add_up(self, trained: Sequence[nn.Parameter]) -> None:
        """Make each gradient the sum over all processes."""


def round_job(
    plan: Plan,
    tasks: tuple[str, ...],
    name: str,
    index: int,
    settings: dict[str, float],
    privacy: Guarantee | None = None,
) -> Job:
    """The job of one site in round `index` (from 1)."""
    steps = plan.training.local_steps
    mu = settings.get("mu", 0.0)
    return Job(plan, tasks, name, (index - 1) * steps, steps, plan.training.batch_size, mu, privacy)


def schedule(config: TrainingConfig, step: int, total: int) -> float:
    """Learning rate as a share of its peak: linear warm-up to 1, then cosine to a hundredth, or 1 to the end.

    Args:
        step: steps done before this one, over all rounds.
        total: steps of the whole run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def train(
    network: MTSUNet,
    cases: Sequence[LoadedCase],
    job: Job,
    device: torch.device,
    moments: Mapping[str, np.ndarray] = MappingProxyType({}),
    on_step: Callable[[], None] = lambda: None,
    share: Share = Share(),  # noqa: B008  (it holds nothing)
) -> Trained:
    """Train in place.

    With the moments of the round before, AdamW goes on where it was; without, its first steps have the size of the
    learning rate in every coordinate, whatever the gradient, which at the start of each round undoes the averaging.
    Adapters begin anew in each round, and so do their moments.

    On CUDA the forward pass runs under bfloat16 autocast, and no step waits for the device. On a CPU it never runs so:
    there, bfloat16 convolution gradients over small volumes are wrong in torch 2.13.
    """
    config = job.plan.training
    seeds = np.random.SeedSequence([job.plan.seed, zlib.crc32(job.name.encode()), job.first_step])
    rng = np.random.default_rng(seeds)
    torch.manual_seed(int(rng.integers(2**63 - 1)) + share.rank)  # for dropout
    network.to(device).train()
    dense, adapters = _trainable(network, job)
    trained = dense | (adapters.parameters if adapters else {})
    anchors = {name: value.detach().clone() for name, value in trained.items()} if job.proximal else {}
    optimizer = adamw(trained, config)
    restore(optimizer, dense, moments)
    crops = TrainingCrops(config.crop, config.modality_dropout)
    private = _private(cases, job, crops, optimizer)
    total = job.plan.rounds * config.local_steps
    losses: list[torch.Tensor] = []
    with closing(training_batches(crops, cases, job, rng, device)) as made:
        for step in range(job.first_step, job.first_step + job.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(config, step, total)
            sample_losses = _sample_losses(network, job, device, max(0.0, 1.0 - step / (FORCED_SHARE * total)))
            if private is not None:
                private.take(sample_losses, lambda: _pull_to(anchors, trained, job.proximal))
            else:
                optimizer.zero_grad(set_to_none=True)
                loss = sample_losses(share.of(next(made))).sum() / job.batch_size
                if loss.requires_grad:
                    loss.backward()
                share.add_up(list(trained.values()))
                if any(value.grad is not None for value in trained.values()):
                    _pull_to(anchors, trained, job.proximal)
                    nn.utils.clip_grad_norm_(trained.values(), config.clip_norm)
                    optimizer.step()
                losses.append(loss.detach())
            on_step()
    tensors = {name: value.detach().cpu().numpy().astype(np.float32) for name, value in trained.items()}
    if adapters:
        adapters.merge()
    network.requires_grad_(True).eval()
    mean = float(torch.stack(losses).mean()) if losses else None
    return Trained(tensors, moments_of(optimizer, dense), mean, private.done if private else 0)


def training_batches(
    crops: TrainingCrops, cases: Sequence[LoadedCase], job: Job, rng: np.random.Generator, device: torch.device
) -> Generator[Batch, None, None]:
    """The batches of a job that is not private, the same on every device.

    For a GPU they are made ahead of the steps. On a CPU a thread would take what it gives from the step itself.
    """
    made = draw_batches(crops, cases, job.batch_size, job.steps, rng)
    return ahead(batch.pinned() for batch in made) if device.type == "cuda" else made


def _trainable(network: MTSUNet, job: Job) -> tuple[dict[str, nn.Parameter], Adapters | None]:
    """The parameters that the job trains as they are, sorted by name, and its adapters; all others are frozen."""
    config, parameters = job.plan.training, dict(network.named_parameters())
    dense = {name: parameters[name] for name in dense_names(parameters, job.tasks, config.parts)}
    network.requires_grad_(False)
    for value in dense.values():
        value.requires_grad_(True)
    wanted = "adapters" in config.parts
    return dense, Adapters(network, config.adapter_rank, job.plan.seed, job.round) if wanted else None


def _private(
    cases: Sequence[LoadedCase], job: Job, crops: TrainingCrops, optimizer: torch.optim.Optimizer
) -> "PrivateSteps | None":
    if job.privacy is None:
        return None
    from client.privacy.steps import PrivateSteps

    asked = job.plan.privacy
    if asked is None:
        raise ValueError("a private job of a plan without privacy")
    return PrivateSteps(cases, crops, asked.crops_per_patient, optimizer, job.privacy, asked.patients_per_step)


def _sample_losses(network: MTSUNet, job: Job, device: torch.device, forcing: float) -> "SampleLosses":
    def losses(drawn: Batch) -> torch.Tensor:
        batch = drawn.to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(
                batch.images,
                batch.present,
                tumor_mask=batch.tumor_mask,
                mask_known=batch.mask_known,
                forcing=forcing,
                tasks=job.tasks,
            )
        return multi_task_loss(logits, batch.targets, job.plan.training.task_weights)[0]

    return losses


def _pull_to(anchors: Mapping[str, torch.Tensor], trained: Mapping[str, nn.Parameter], strength: float) -> None:
    """Add the gradient of strength/2 ||w - anchor||^2, where there are anchors."""
    for name, anchor in anchors.items():
        gradient = trained[name].grad
        if gradient is not None:
            gradient.add_(trained[name].detach() - anchor, alpha=strength)
