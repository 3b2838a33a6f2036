"""Membership inference: who has a model and a patient's data asks whether he was among those that trained it.

Two attacks on the loss of a patient: a threshold on it (Yeom et al. 2018), and a likelihood ratio against models that
the attacker trained himself, half of them with the patient (LiRA, Carlini et al. 2022; here few of them, with one
variance for all patients). Each model is attacked in turn, with the others as its shadows.

The attacker has everything else: the starting weights, the other patients, the very crops. The setting invites leaking:
few patients, fixed crops, many steps. Trained are TAFE and the class heads, on the features of a trunk and a CMD
that stay as they were drawn; so a patient's features are made once, and a model costs seconds.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.attack_data import CROP, patients
from client.data.batches import TrainingCrops
from client.data.loading import LoadedCase
from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.accounting import noise_for
from shared_model.config import ModelConfig, TrainingConfig
from shared_model.losses import Targets, multi_task_loss
from shared_model.metrics import Estimate, Statistic, auc_statistic, estimate
from shared_model.network import MTSUNet, build_network
from shared_model.network.tumor_aware import LEVELS, TumorAwarePooling, tumor_pool
from shared_model.tasks import CLASSES, MISSING, TASKS

PATIENTS, MODELS, CROPS, STEPS, RATE = 48, 24, 2, 100, 0.5
CLIP, LEARNING_RATE = 1.0, 1e-3
UNCLIPPED = 1e9
SEED, DELTA, FPR = 7, 1e-5, 0.1
EPSILONS = (None, 8.0, 1.0)
"""Of the trainings; None has neither clipping of each patient nor noise."""
WEIGHTS = TrainingConfig.model_validate({}).task_weights


@dataclass(frozen=True)
class Record:
    """What a patient is to the part that is trained: of K crops, the pooled features of LEVELS, the CMD vector, labels.

    Attributes:
        pooled: for each level (K, C).
        cross: (K, width).
        targets: of which the class labels are used.
    """

    pooled: list[torch.Tensor]
    cross: torch.Tensor
    targets: Targets


@dataclass(frozen=True)
class Membership:
    """What the attacks find of one way of training.

    Attributes:
        start: mean loss of a patient before training.
        losses: mean over models, of a patient who trained the model, and of one who did not.
        threshold: AUC, and true positives at FPR, of the threshold on the loss.
        ratio: the same of the likelihood ratio.
    """

    epsilon: float | None
    noise: float
    start: float
    losses: tuple[float, float]
    threshold: tuple[Estimate | None, Estimate | None]
    ratio: tuple[Estimate | None, Estimate | None]


class ClassSide(nn.Module):
    """TAFE's projections and the class heads of a network, on what was kept of its other parts."""

    def __init__(self, network: MTSUNet) -> None:
        super().__init__()
        if not isinstance(network.tumor_aware, TumorAwarePooling):
            raise ValueError("the network has no TAFE")
        self.levels: nn.ModuleList = network.tumor_aware.levels
        self.heads = nn.ModuleDict({task.name: network.heads[task.name] for task in CLASSES})

    def forward(self, record: Record) -> dict[str, torch.Tensor]:
        """Logits of the class tasks, (K, C) each."""
        parts = [project(pooled) for pooled, project in zip(record.pooled, self.levels, strict=True)]
        streams = [torch.cat(parts, dim=1), record.cross]
        return {name: head(streams) for name, head in self.heads.items()}

    def loss(self, record: Record) -> torch.Tensor:
        """Mean over the crops of the weighted loss of all class tasks."""
        return multi_task_loss(self(record), record.targets, WEIGHTS)[0].mean()


@torch.no_grad()
def keep(network: MTSUNet, cases: Sequence[LoadedCase], seed: int) -> list[Record]:
    """Each patient's fixed crops, as the frozen parts of the network see them with the true mask as the gate."""
    rng, crops, records = np.random.default_rng(seed), TrainingCrops(CROP, modality_dropout=0.0), []
    for case in cases:
        batch = crops.draw([case] * CROPS, rng)
        while bool((batch.targets.classes == MISSING).all(dim=1).any()):  # a crop beside the tumour teaches nothing
            batch = crops.draw([case] * CROPS, rng)
        hidden, _ = network.backbone(batch.images)
        assert isinstance(network.cross_modality, nn.Module)
        cross = network.cross_modality(batch.images, batch.present, batch.tumor_mask)
        pooled = [tumor_pool(hidden[level], batch.tumor_mask) for level in LEVELS]
        records.append(Record(pooled, cross, batch.targets))
    return records


def train(start: ClassSide, records: Sequence[Record], noise: float, clip: float, seed: int) -> ClassSide:
    """Steps of AdamW over Poisson samples of these patients, from a copy of `start`.

    Without noise the seed decides everything; with it the draws and the noise are the operating system's.
    """
    torch.manual_seed(seed)
    rng, stream = np.random.default_rng(seed), SecureStream()
    side = copy.deepcopy(start).train()
    optimizer = PrivateOptimizer(
        torch.optim.AdamW(side.parameters(), lr=LEARNING_RATE),
        stream,
        noise=noise,
        clip=clip,
        expected=RATE * PATIENTS / 2,
    )
    for _ in range(STEPS):
        drawn = stream.sample(len(records), RATE) if noise else np.flatnonzero(rng.random(len(records)) < RATE).tolist()
        private_step(optimizer, drawn, lambda patient: side.loss(records[patient]))
    return side.eval()


def halves(models: int, people: int, seed: int) -> np.ndarray:
    """(models, people) bool: who trains which model; each patient a random half of them."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.arange(models) < models // 2) for _ in range(people)]
    return np.stack(columns, axis=1)


@torch.no_grad()
def losses_of(side: ClassSide, records: Sequence[Record]) -> np.ndarray:
    """(n,) loss of each patient."""
    return np.array([float(side.loss(record)) for record in records])


def confidence(losses: np.ndarray) -> np.ndarray:
    """-log(e^loss - 1), the logit of e^-loss: nearer to normal than the loss (Carlini et al. 2022, section IV-B)."""
    value: np.ndarray = -(losses + np.log(-np.expm1(-np.maximum(losses, 1e-9))))
    return value


def likelihood_ratios(scores: np.ndarray, member: np.ndarray) -> np.ndarray:
    """(models, people) log N(s; mean with him) - log N(s; mean without), from the models other than the scored one.

    The variance with, and that without, are the means over all patients: there are too few models for each his own.

    Args:
        scores: (models, people).
        member: (models, people) bool.
    """
    ratios = np.zeros(scores.shape)
    for model in range(len(scores)):
        others = np.arange(len(scores)) != model
        logs = []
        for side in (member[others], ~member[others]):
            count = side.sum(axis=0)  # (people,)
            mean = (scores[others] * side).sum(axis=0) / count
            squares = ((scores[others] - mean) ** 2 * side).sum() / (count - 1).sum()
            logs.append(-((scores[model] - mean) ** 2) / (2 * squares) - np.log(squares) / 2)
        ratios[model] = logs[0] - logs[1]
    return ratios


def tpr_statistic(scores: np.ndarray, member: np.ndarray, fpr: float) -> Statistic:
    """Share of the members that score above a threshold which at most `fpr` of the others reach; all (n,)."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.diff(scores[order]) != 0, True]  # where a threshold can lie

    def value(weights: np.ndarray) -> np.ndarray:
        ranked = weights[:, order]  # (R, n)
        hits, alarms = np.cumsum(ranked * member[order], axis=1), np.cumsum(ranked * ~member[order], axis=1)
        found = np.where(last & (alarms <= fpr * alarms[:, -1:]), hits, 0).max(axis=1)
        share: np.ndarray = found / hits[:, -1]
        return share

    return value


def over_patients(scores: np.ndarray, member: np.ndarray) -> tuple[Estimate | None, Estimate | None]:
    """AUC and true positives at FPR over all models, (models, people), with a 95 % bootstrap over patients."""
    models, people = scores.shape
    flat, is_member = scores.T.ravel(), member.T.ravel()  # a patient's models beside each other

    def repeated(statistic: Statistic) -> Statistic:
        return lambda weights: statistic(weights.repeat(models, axis=1))

    statistics = (auc_statistic(flat, is_member), tpr_statistic(flat, is_member, FPR))
    auc, tpr = (estimate(repeated(statistic), people, SEED) for statistic in statistics)
    return auc, tpr


def largest_tpr(epsilon: float | None) -> float:
    """What no attack on an (epsilon, DELTA)-private model can exceed at FPR (Kairouz et al. 2015)."""
    if epsilon is None:
        return 1.0
    return float(min(1.0, np.exp(epsilon) * FPR + DELTA, 1 - np.exp(-epsilon) * (1 - DELTA - FPR)))


def attack(start: ClassSide, records: Sequence[Record], member: np.ndarray, epsilon: float | None) -> Membership:
    """Train the models in one way, and attack each of them."""
    noise = 0.0 if epsilon is None else noise_for(epsilon, DELTA, RATE, STEPS)
    rows = []
    for model, row in enumerate(member):
        mine = [records[index] for index in np.flatnonzero(row).tolist()]
        rows.append(losses_of(train(start, mine, noise, UNCLIPPED if epsilon is None else CLIP, SEED + model), records))
        print(f"membership, epsilon {epsilon}: model {model + 1} of {len(member)}", flush=True)
    losses = np.stack(rows)  # (models, people)
    ratios = likelihood_ratios(confidence(losses), member)
    means = float(losses[member].mean()), float(losses[~member].mean())
    before = float(losses_of(copy.deepcopy(start).eval(), records).mean())
    return Membership(epsilon, noise, before, means, over_patients(-losses, member), over_patients(ratios, member))


def run() -> list[Membership]:
    torch.manual_seed(SEED)
    network = build_network(ModelConfig(), tuple(TASKS)).eval()
    records = keep(network, patients(PATIENTS), SEED)
    member = halves(MODELS, PATIENTS, SEED)
    return [attack(ClassSide(network), records, member, epsilon) for epsilon in EPSILONS]


def table(found: list[Membership]) -> str:
    lines = [
        f"{PATIENTS} synthetic patients, {MODELS} models of each kind, trained for {STEPS} steps on random halves, "
        f"rate {RATE:g}, delta {DELTA:g}. TPR: members found where {FPR:.0%} of the others are taken for members; the "
        f"last column is the most that epsilon allows. Loss before training: {found[0].start:.2f}. 95 % bootstrap over "
        "patients.",
        "",
        "| epsilon | noise | loss of members; others | AUC, threshold | TPR, threshold | AUC, LiRA | TPR, LiRA "
        "| TPR at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [words(value) for value in (*row.threshold, *row.ratio)]
        name = "plain" if row.epsilon is None else f"{row.epsilon:g}"
        lines.append(
            f"| {name} | {row.noise:.2f} | {row.losses[0]:.2f}; {row.losses[1]:.2f} | {' | '.join(cells)} "
            f"| {largest_tpr(row.epsilon):.2f} |"
        )
    return "\n".join(lines)


def words(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
