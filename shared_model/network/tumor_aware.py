"""TAFE, tumor-aware feature encoding (MTS-UNET, arXiv 2503.06828): the encoder's features where the tumour is."""

import torch
from torch import nn
from torch.nn import functional as F

from shared_model.network.encoder import BackboneShape

LEVELS = (1, 2, 3, 4)
FLOOR = 0.01
"""Smallest weight of a voxel: where no tumour is found the pooled feature is the plain mean, and never 0 / 0."""


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """float32 at least, so that sums over voxels keep their digits under autocast."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def tumor_pool(features: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Tumour-weighted mean: sum_v w_v f_v / sum_v w_v, w = max(gate, FLOOR) averaged down to the features' grid.

    Args:
        features: (B, C, d, h, w).
        gate: (B, 1, D, H, W) in [0, 1], its sides one common multiple of the features'.

    Returns:
        (B, C)
    """
    weight = F.avg_pool3d(gate.clamp(min=FLOOR), gate.shape[2] // features.shape[2])  # (B, 1, d, h, w)
    return (widen(features) * weight).sum(dim=(2, 3, 4)) / weight.sum(dim=(2, 3, 4))


class TumorAwarePooling(nn.Module):
    """h1..h4 pooled over the tumour, each projected to `level_width` and layer-normed, concatenated.

    Not for input without a tumour gate: with a flat gate it is multi-scale mean pooling.
    """

    def __init__(self, shape: BackboneShape, level_width: int = 128) -> None:
        super().__init__()
        self.width = level_width * len(LEVELS)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.channels(level), level_width), nn.LayerNorm(level_width)) for level in LEVELS
        )

    def forward(self, hidden: list[torch.Tensor], gate: torch.Tensor) -> torch.Tensor:
        """h0..h4 and gate (B, 1, D, H, W) -> (B, width)."""
        pooled = [project(tumor_pool(hidden[level], gate)) for level, project in zip(LEVELS, self.levels, strict=True)]
        return torch.cat(pooled, dim=1)


class GlobalPooling(nn.Module):
    """TAFE as its authors' family of code has it: the mean of h4, without mask or scales. It has no parameters."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.width = shape.channels(4)

    def forward(self, hidden: list[torch.Tensor], gate: torch.Tensor) -> torch.Tensor:
        """h0..h4 -> (B, 16 F); the gate is not used."""
        return widen(hidden[4]).mean(dim=(2, 3, 4))
