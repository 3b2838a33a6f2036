"""Inversion of one site's update where it is easiest: one patient, one crop, one step of plain SGD.

The update divided by the learning rate is the gradient. The attacker knows the weights before, the patient's mask where
an image is sought, and that there is no dropout. The attacks:

* labels: the last layer's bias gradient is softmax - one-hot, negative at the true class alone;
* features: a linear layer's weight gradient is bias gradient x input, so its input, the vectors of TAFE and CMD,
  is a quotient (as in Phong et al. 2018), exact without noise;
* patient: whose of so many known crops gives the gradient that is nearest to the update; and whether a known patient
  is in it, or nobody: by how far the update goes along his gradient, the best test there is against Gaussian noise;
* image: T2 and FLAIR in the tumour, by matching gradients (`benchmarks/attack_image.py`).
"""

import copy
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from benchmarks.attack_data import CROP, patients
from benchmarks.attack_image import ITERATIONS, SOUGHT, WEIGHTS, Gradient, Quality, correlation, match, quality
from client.data.batches import Batch, TrainingCrops
from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.accounting import noise_for
from shared_model.config import ModelConfig
from shared_model.losses import multi_task_loss
from shared_model.metrics import auc
from shared_model.network import MTSUNet, build_network
from shared_model.network.heads import ClassHead
from shared_model.tasks import CLASSES, MISSING, TASKS

CANDIDATES, SEED, DELTA = 16, 9, 1e-5
CLIP, UNCLIPPED = 1.0, 1e9
EPSILONS = (None, 8.0, 1.0)
"""Of the step; None is a plain one."""
VICTIMS, DRAWS = 3, 2
"""Candidates whose image is sought, and steps over each candidate where there is noise."""


@dataclass(frozen=True)
class Inversion:
    """What the attacks get out of one kind of step.

    Attributes:
        labels: share of class labels read rightly.
        features: correlation of the recovered features with the true ones, both less the mean of the other patients'.
        picked: share of patients picked rightly out of CANDIDATES.
        found: AUC of the test whether a patient is in an update or nobody.
        image: mean over VICTIMS.
    """

    step: str
    epsilon: float | None
    noise: float
    labels: float
    features: float
    picked: float
    found: float
    image: Quality


def draw(count: int) -> list[Batch]:
    """One crop of each patient, with its labels."""
    rng, crops, drawn = np.random.default_rng(SEED), TrainingCrops(CROP, modality_dropout=0.0), []
    for case in patients(count):
        batch = crops.draw([case], rng)
        while bool((batch.targets.classes == MISSING).any()):
            batch = crops.draw([case], rng)
        drawn.append(batch)
    return drawn


def loss_of(network: MTSUNet, images: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The product's loss of these images (1, 4, *CROP) under the batch's labels and mask."""
    logits = network(images, batch.present, batch.tumor_mask, batch.mask_known, forcing=1.0)
    return multi_task_loss(logits, batch.targets, WEIGHTS)[0].sum()


def update_of(network: MTSUNet, batch: Batch | None, noise: float, clip: float) -> Gradient:
    """What one step over this patient, or over nobody, takes from each weight, at a learning rate of 1."""
    moved = copy.deepcopy(network)
    descent = torch.optim.SGD(moved.parameters(), lr=1.0)
    optimizer = PrivateOptimizer(descent, SecureStream(), noise=noise, clip=clip, expected=1.0)
    drawn = [] if batch is None else [batch]
    private_step(optimizer, range(len(drawn)), lambda row: loss_of(moved, drawn[row].images, drawn[row]))
    after = dict(moved.named_parameters())
    return {name: (value - after[name]).detach() for name, value in network.named_parameters()}


def read_labels(update: Gradient) -> list[int]:
    """The class labels, in the order of CLASSES."""
    return [int(update[f"{task.prefix}layers.3.bias"].argmin()) for task in CLASSES]


def read_features(update: Gradient) -> torch.Tensor:
    """The class heads' common input, (width,): sum_j b_j w_j / sum_j b_j^2 over the hidden units j of all heads."""
    weights = torch.cat([update[f"{task.prefix}layers.0.weight"] for task in CLASSES])  # (hidden, width)
    biases = torch.cat([update[f"{task.prefix}layers.0.bias"] for task in CLASSES])  # (hidden,)
    return biases @ weights / biases.square().sum()


@torch.no_grad()
def features_of(network: MTSUNet, batch: Batch) -> torch.Tensor:
    """What the class heads truly get, (width,)."""
    seen: list[torch.Tensor] = []
    head = network.heads[CLASSES[0].name]
    assert isinstance(head, ClassHead)
    hook = head.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    loss_of(network, batch.images, batch)
    hook.remove()
    return seen[0]


def flat(update: Gradient) -> torch.Tensor:
    return torch.cat([value.flatten() for value in update.values()])


def pick(update: torch.Tensor, known: torch.Tensor) -> int:
    """Which of the known updates, (n, weights), is the nearest: the likeliest one under Gaussian noise."""
    return int((2 * known @ update - known.square().sum(dim=1)).argmax())


@dataclass(frozen=True)
class Scene:
    """What the attacks on all kinds of step share.

    Attributes:
        features: (n, width) true ones of each candidate.
        others: (n, width) mean of the other candidates'.
    """

    network: MTSUNet
    batches: list[Batch]
    features: torch.Tensor
    others: torch.Tensor


def scene() -> Scene:
    torch.manual_seed(SEED)
    network = build_network(ModelConfig(), tuple(TASKS)).eval()
    batches = draw(CANDIDATES)
    features = torch.stack([features_of(network, batch) for batch in batches])
    others = (features.sum(dim=0) - features) / (len(batches) - 1)
    return Scene(network, batches, features, others)


def expected(batches: list[Batch], index: int) -> torch.Tensor:
    """(1, 2, *CROP): the other candidates' mean T2 and FLAIR in the tumour where the mask is, their mean elsewhere."""
    others = [batch for other, batch in enumerate(batches) if other != index]
    images = torch.cat([batch.images[:, SOUGHT] for batch in others]).transpose(0, 1)  # (2, n, *CROP)
    masks = torch.cat([batch.tumor_mask for batch in others])[:, 0] > 0  # (n, *CROP)
    levels = [torch.stack([image[place].mean() for image in images]) for place in (masks, ~masks)]  # (2,) each
    inside, outside = (level.view(1, 2, 1, 1, 1) for level in levels)
    return torch.where(batches[index].tumor_mask > 0, inside, outside)


def mean_quality(view: Scene, images: list[torch.Tensor]) -> Quality:
    """Of the first candidates' images."""
    rows = []
    for batch, image in zip(view.batches, images, strict=False):
        found = quality(image, batch.images[:, SOUGHT], batch.tumor_mask > 0)
        rows.append((found.psnr, found.ssim, found.correlation))
    return Quality(*np.mean(rows, axis=0).tolist())


def attack(view: Scene, epsilon: float | None) -> Inversion:
    """All attacks on one kind of step, over each candidate in turn; the image for the first VICTIMS."""
    noise = 0.0 if epsilon is None else noise_for(epsilon, DELTA, 1.0, 1)
    clip = UNCLIPPED if epsilon is None else CLIP
    known = torch.stack([flat(update_of(view.network, batch, 0.0, clip)) for batch in view.batches])
    right, like, picked = [], [], []
    with_him, without = [], []
    images: list[torch.Tensor] = []
    for index in [*range(CANDIDATES)] * (DRAWS if noise else 1):
        batch, others = view.batches[index], view.others[index]
        update, empty = (update_of(view.network, who, noise, clip) for who in (batch, None))
        right += [a == b for a, b in zip(read_labels(update), batch.targets.classes[0].tolist(), strict=True)]
        features = read_features(update)
        like.append(correlation(features - others, view.features[index] - others))
        picked.append(pick(flat(update), known) == index)
        with_him.append(float(flat(update) @ known[index] / known[index].norm()))
        without.append(float(flat(empty) @ known[index] / known[index].norm()))
        if len(images) < VICTIMS:
            vector = features if epsilon is None else others  # what is read through noise is worse than a guess
            images.append(match(view.network, batch, update, vector, expected(view.batches, index)))
            print(f"inversion, epsilon {epsilon}: image {len(images)} of {VICTIMS}", flush=True)
    found = auc(with_him + without, [True] * len(with_him) + [False] * len(without))
    return Inversion(
        step="plain" if epsilon is None else f"epsilon {epsilon:g}",
        epsilon=epsilon,
        noise=noise,
        labels=float(np.mean(right)),
        features=float(np.mean(like)),
        picked=float(np.mean(picked)),
        found=cast(float, found),
        image=mean_quality(view, images),
    )


def unseen(view: Scene) -> Inversion:
    """What an attacker gets who has seen the other patients and no update: the commonest labels, their mean image."""
    labels = torch.cat([batch.targets.classes for batch in view.batches])  # (n, tasks)
    commonest = (labels == labels.mode(dim=0).values).double().mean()
    images = [expected(view.batches, index) for index in range(VICTIMS)]
    return Inversion(
        step="no update seen",
        epsilon=None,
        noise=0.0,
        labels=float(commonest),
        features=0.0,
        picked=1 / CANDIDATES,
        found=0.5,
        image=mean_quality(view, images),
    )


def run() -> list[Inversion]:
    view = scene()
    return [unseen(view), *(attack(view, epsilon) for epsilon in EPSILONS)]


def table(found: list[Inversion]) -> str:
    lines = [
        f"{CANDIDATES} synthetic patients in turn, one crop of {' x '.join(map(str, CROP))}, one step each; delta "
        f"{DELTA:g}. Image: T2 and FLAIR in the tumour, mean of {VICTIMS} patients, {ITERATIONS} steps of matching.",
        "",
        "| step | noise | labels right | features, correlation | patient picked | he or nobody, AUC "
        "| image, correlation | SSIM | PSNR |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        image = row.image
        lines.append(
            f"| {row.step} | {row.noise:.2f} | {row.labels:.2f} | {row.features:.2f} | {row.picked:.2f} "
            f"| {row.found:.2f} | {image.correlation:.2f} | {image.ssim:.2f} | {image.psnr:.1f} |"
        )
    return "\n".join(lines)
