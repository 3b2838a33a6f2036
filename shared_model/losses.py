"""The multi-task loss, one number per sample, with every label optional."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional as F

from shared_model.tasks import CLASSES, MISSING, REGIONS

SMOOTH = 1.0
"""Voxels added above and below in Dice: an empty region asks for an empty answer instead of 0 / 0."""


@dataclass(frozen=True)
class Targets:
    """Labels of a batch; what is unknown is masked, never guessed.

    Attributes:
        regions: (B, 3, D, H, W) float, 0 or 1, channels in the order of REGIONS.
        region_known: (B, 3) bool; False where a case's mask does not tell that region.
        classes: (B, 3) int64, columns in the order of CLASSES; MISSING where there is no label.
    """

    regions: torch.Tensor
    region_known: torch.Tensor
    classes: torch.Tensor

    @cached_property
    def labelled(self) -> frozenset[str]:
        """Names of the tasks with a label in the batch. Reads the tensors where they are."""
        known = torch.cat([self.region_known, self.classes != MISSING], dim=1).any(dim=0)  # (3 + 3,)
        return frozenset(task.name for task, some in zip((*REGIONS, *CLASSES), known, strict=True) if bool(some))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Targets":
        """The same labels in changed tensors; what is labelled is asked here, where no GPU has to be waited for."""
        changed = Targets(change(self.regions), change(self.region_known), change(self.classes))
        vars(changed)["labelled"] = self.labelled
        return changed

    def to(self, device: torch.device) -> "Targets":
        """From the CPU to a device, without waiting for it."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))


def region_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Soft Dice plus binary cross-entropy of each sample.

    1 - (2 sum_v p t + s) / (sum_v p + sum_v t + s) + mean_v BCE(p, t), p = sigmoid(logit), s = SMOOTH.

    Args:
        logits: (B, D, H, W).
        truth: (B, D, H, W), 0 or 1.

    Returns:
        (B,)
    """
    voxels = (1, 2, 3)
    probability = torch.sigmoid(logits)
    overlap = (probability * truth).sum(voxels)
    dice = (2 * overlap + SMOOTH) / (probability.sum(voxels) + truth.sum(voxels) + SMOOTH)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(voxels)
    return 1 - dice + entropy


def multi_task_loss(
    logits: dict[str, torch.Tensor], targets: Targets, weights: dict[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of each sample: L_b = sum over the tasks known in b of weight_t * loss_t(b).

    loss_t is `region_loss` for a region and cross-entropy for a class. No term sees two samples and none is divided by
    a count of labels, so L of a batch is the L of its samples, as clipping by sample needs (DP-SGD); divide the sum by
    the expected batch size. A task without any label in the batch takes no part: its head keeps the gradient None.
    Without any label at all the result does not require grad.

    Args:
        logits: output of the network, regions (B, 1, D, H, W), classes (B, C); tasks left out are not trained.
        targets: labels of the batch on the same device.
        weights: weight of each task in `logits`.

    Returns:
        L, (B,) float32 or wider; and for each task that took part its unweighted mean over the labelled samples,
        detached.
    """
    total = targets.regions.new_zeros(len(targets.classes), dtype=torch.float32)
    parts: dict[str, torch.Tensor] = {}
    for column, task in enumerate(REGIONS):
        known = targets.region_known[:, column]
        if task.name in logits and task.name in targets.labelled:
            output = _widen(logits[task.name][:, 0])
            loss = region_loss(output, targets.regions[:, column].to(output.dtype))
            loss = torch.where(known, loss, 0)
            total = total + weights[task.name] * loss
            parts[task.name] = loss.detach().sum() / known.sum()
    for column, task in enumerate(CLASSES):
        labels = targets.classes[:, column]
        known = labels != MISSING
        if task.name in logits and task.name in targets.labelled:
            output = _widen(logits[task.name])
            loss = F.cross_entropy(output, labels, ignore_index=MISSING, reduction="none")
            total = total + weights[task.name] * loss
            parts[task.name] = loss.detach().sum() / known.sum()
    return total, parts


def _widen(logits: torch.Tensor) -> torch.Tensor:
    """float32 at least, so that sums over voxels keep their digits under autocast."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
