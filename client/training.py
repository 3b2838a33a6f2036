"""Local training: some optimizer steps from given weights on given cases.

A round is a pure function of weights, optimizer state, cases and seeds; the schedule counts steps over all rounds, and
on a CPU with one thread the same call gives the same bits.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from client.data.batches import TrainingCrops
from client.data.loading import LoadedCase
from shared_model.config import Plan, TrainingConfig
from shared_model.losses import multi_task_loss
from shared_model.network import MTSUNet
from shared_model.parameters import CLASS_TRUNK, Tensors, group_of, trained_names
from shared_model.tasks import TASKS

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter."""
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
        batch_size: crops per step.
        proximal: FedProx' mu, 0 for none.
    """

    plan: Plan
    tasks: tuple[str, ...]
    name: str
    first_step: int
    steps: int
    batch_size: int
    proximal: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What training leaves besides the weights.

    Attributes:
        loss: mean over the steps.
        moments: of AdamW, for the next round; they stay at the site.
    """

    loss: float
    moments: Tensors


def round_job(plan: Plan, tasks: tuple[str, ...], name: str, index: int, settings: dict[str, float]) -> Job:
    """The job of one site in round `index` (from 1)."""
    steps = plan.training.local_steps
    return Job(plan, tasks, name, (index - 1) * steps, steps, plan.training.batch_size, settings.get("mu", 0.0))


def schedule(config: TrainingConfig, step: int, total: int) -> float:
    """Learning rate as a share of its peak: linear warm-up to 1, then cosine to a hundredth.

    Args:
        step: steps done before this one, over all rounds.
        total: steps of the whole run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def train(
    network: MTSUNet,
    cases: Sequence[LoadedCase],
    job: Job,
    device: torch.device,
    moments: Mapping[str, np.ndarray] = MappingProxyType({}),
    on_step: Callable[[], None] = lambda: None,
) -> Trained:
    """Train in place.

    With the moments of the round before, AdamW goes on where it was; without, its first steps have the size of the
    learning rate in every coordinate, whatever the gradient, which at the start of each round undoes the averaging.

    On CUDA the forward pass runs under bfloat16 autocast. On a CPU it never does: there, bfloat16 convolution gradients
    over small volumes are wrong in torch 2.13.
    """
    config = job.plan.training
    seeds = np.random.SeedSequence([job.plan.seed, zlib.crc32(job.name.encode()), job.first_step])
    rng = np.random.default_rng(seeds)
    torch.manual_seed(int(rng.integers(2**63 - 1)))
    crops = TrainingCrops(config.crop, config.modality_dropout)
    total = job.plan.rounds * config.local_steps
    network.to(device).train()
    trained = _freeze_others(network, job.tasks)
    anchors = [value.detach().clone() for value in trained] if job.proximal else []
    optimizer = _optimizer(network, config)
    _restore(optimizer, network, moments)
    order = _endless(len(cases), rng)
    losses = []
    for step in range(job.first_step, job.first_step + job.steps):
        batch = crops.draw([cases[next(order)] for _ in range(job.batch_size)], rng).to(device)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(config, step, total)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(
                batch.images,
                batch.present,
                tumor_mask=batch.tumor_mask,
                mask_known=batch.mask_known,
                forcing=max(0.0, 1.0 - step / (FORCED_SHARE * total)),
                tasks=job.tasks,
            )
        loss = multi_task_loss(logits, batch.targets, config.task_weights)[0].sum() / job.batch_size
        if loss.requires_grad:
            loss.backward()
            if job.proximal:
                _pull_to(anchors, trained, job.proximal)
            nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
        losses.append(loss.detach())
        on_step()
    network.requires_grad_(True).eval()
    return Trained(float(torch.stack(losses).mean()), _moments(optimizer, network))


def _freeze_others(network: MTSUNet, tasks: tuple[str, ...]) -> list[nn.Parameter]:
    """Leave only the tasks' parameters trainable, and list them in order of name."""
    parameters = dict(network.named_parameters())
    names = trained_names(parameters, tasks)
    network.requires_grad_(False)
    for name in names:
        parameters[name].requires_grad_(True)
    return [parameters[name] for name in names]


def _optimizer(network: MTSUNet, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW over what is trainable, the class side with its own peak."""
    sides: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in sorted(network.named_parameters()):
        if parameter.requires_grad:
            group = group_of(name)
            sides[group == CLASS_TRUNK or (group in TASKS and not TASKS[group].is_region)].append(parameter)
    peaks = {False: config.learning_rate, True: config.class_learning_rate}
    groups = [{"params": side, "peak": peaks[classes]} for classes, side in sides.items() if side]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _moments(optimizer: torch.optim.Optimizer, network: MTSUNet) -> Tensors:
    """`<moment>/<parameter>` -> array, for the parameters that have taken a step."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].cpu().numpy()
        for name, parameter in network.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def _restore(optimizer: torch.optim.Optimizer, network: MTSUNet, moments: Mapping[str, np.ndarray]) -> None:
    """The inverse of `_moments`, for the parameters that are trained."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and f"step/{name}" in moments:
            kept = {moment: torch.from_numpy(np.array(moments[f"{moment}/{name}"])) for moment in MOMENTS}
            optimizer.state[parameter] = {
                moment: value if moment == "step" else value.to(parameter.device) for moment, value in kept.items()
            }


def _pull_to(anchors: list[torch.Tensor], trained: list[nn.Parameter], strength: float) -> None:
    """Add the gradient of strength/2 ||w - anchor||^2."""
    for anchor, value in zip(anchors, trained, strict=True):
        if value.grad is not None:
            value.grad.add_(value.detach() - anchor, alpha=strength)


def _endless(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Indices below `count`, in fresh random order again and again."""
    while True:
        yield from rng.permutation(count).tolist()
