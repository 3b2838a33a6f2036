"""T2 and FLAIR of a tumour, sought by gradient matching (Geiping et al. 2020) with all the help that there is.

CMD alone reads these two sequences straight from the image. With the labels, the mask, and TAFE's vector in hand its
gradient is computed without the rest of the network, in 30 ms a step, and the tumour has fewer voxels than CMD has
weights. Not for the other sequences, nor for healthy brain: CMD weighs it with a hundredth.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from client.data.batches import Batch
from shared_model.config import TrainingConfig
from shared_model.losses import multi_task_loss
from shared_model.network import MTSUNet
from shared_model.network.cross_modality import CrossModalityDifferential
from shared_model.tasks import CLASSES, MODALITIES

ITERATIONS, RATE, SMOOTHNESS = 800, 0.1, 2e-3
"""Steps of Adam, its peak rate, the weight of the total variation."""
WINDOW = 5
"""Voxels along an edge, of SSIM."""
SOUGHT = slice(MODALITIES.index("t2"), MODALITIES.index("flair") + 1)
CROSS = "cross_modality."
WEIGHTS = TrainingConfig.model_validate({}).task_weights
Gradient = dict[str, torch.Tensor]
"""Parameter -> what a step took from it."""


@dataclass(frozen=True)
class Quality:
    """How like an image is to the true one within the tumour, mean over T2 and FLAIR.

    Attributes:
        psnr: dB, against the true image's range there.
        ssim: structural similarity (Wang et al. 2004) over cubes of WINDOW that are centred there.
        correlation: Pearson's, over voxels; 0 for a flat image.
    """

    psnr: float
    ssim: float
    correlation: float


def class_loss(network: MTSUNet, pair: torch.Tensor, vector: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The class tasks' part of the loss, from T2 and FLAIR (1, 2, *CROP) and TAFE's vector (1, width)."""
    images = torch.cat([torch.zeros_like(pair), pair], dim=1)  # CMD reads no other sequence
    cross = cast(nn.Module, network.cross_modality)(images, batch.present, batch.tumor_mask)
    logits = {task.name: network.heads[task.name]([vector, cross]) for task in CLASSES}
    return multi_task_loss(logits, batch.targets, WEIGHTS)[0].sum()


def match(
    network: MTSUNet, batch: Batch, update: Gradient, features: torch.Tensor, start: torch.Tensor
) -> torch.Tensor:
    """T2 and FLAIR, (1, 2, *CROP), that Adam finds from `start` for the update, with the labels and the mask known.

    Minimises the mean over CMD's tensors of 1 - cosine(gradient, update), plus SMOOTHNESS times the total variation.
    """
    cross = cast(nn.Module, network.cross_modality)
    wanted = {name: update[CROSS + name].flatten() for name, _ in cross.named_parameters() if name != "absent"}
    parameters = [cross.get_parameter(name) for name in wanted]
    vector = features[None, : -cast(CrossModalityDifferential, cross).width]
    pair = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([pair], lr=RATE)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS, RATE / 20)
    for _ in range(ITERATIONS):
        found = torch.autograd.grad(class_loss(network, pair, vector, batch), parameters, create_graph=True)
        rows = zip(found, wanted.values(), strict=True)
        likeness = torch.stack([F.cosine_similarity(mine.flatten(), theirs, dim=0) for mine, theirs in rows])
        loss = 1 - likeness.mean() + SMOOTHNESS * total_variation(pair)
        (pair.grad,) = torch.autograd.grad(loss, [pair])
        optimizer.step()
        plan.step()
    return pair.detach()


def quality(found: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> Quality:
    """Of images (1, C, D, H, W) in the voxels `where`, (1, 1, D, H, W) bool."""
    rows = []
    for one, two in zip(found[0].double(), truth[0].double(), strict=True):
        inside = where[0, 0]
        a, b = one[inside], two[inside]
        span = float(b.max() - b.min())
        error = float((a - b).square().mean())
        psnr = float("inf") if error == 0 else float(10 * np.log10(span**2 / error))
        rows.append((psnr, float(similarity(one, two, span)[inside].mean()), correlation(a, b)))
    return Quality(*np.mean(rows, axis=0).tolist())


def similarity(one: torch.Tensor, two: torch.Tensor, span: float) -> torch.Tensor:
    """(D, H, W) SSIM of the cube about each voxel of two images, (D, H, W); C1 and C2 as in Wang et al. 2004."""

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool3d(values[None, None], WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)[0, 0]

    a, b, c1, c2 = mean(one), mean(two), (0.01 * span) ** 2, (0.03 * span) ** 2
    spread = mean(one**2) - a**2 + mean(two**2) - b**2
    together = mean(one * two) - a * b
    return (2 * a * b + c1) * (2 * together + c2) / ((a**2 + b**2 + c1) * (spread + c2))


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Pearson's; 0 where one of them is constant."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].nan_to_num(0.0))


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours, summed over the three axes."""
    return torch.stack([images.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).sum()
