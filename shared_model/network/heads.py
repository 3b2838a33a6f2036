"""Heads: a 1x1x1 convolution for a region, a small perceptron over the pooled streams for a class task."""

from math import log

import torch
from torch import nn

PRIOR = 0.05
"""Probability of a region's voxel before training (Lin et al. 2017, section 4.1): regions are rare, and a network that
starts at one half first unlearns the healthy brain, and finds the enhancing tumour late."""


def region_head(features: int) -> nn.Conv3d:
    """(B, features, D, H, W) -> (B, 1, D, H, W) logits; three of them are SwinUNETR's output layer."""
    head = nn.Conv3d(features, 1, kernel_size=1)
    nn.init.constant_(head.bias, log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]
    return head


class ClassHead(nn.Module):
    """Feature-level fusion: the streams concatenated -> 64 -> C."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(sum(widths), 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, classes))

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Streams of (B, width) each -> (B, C) logits."""
        return self.layers(torch.cat(streams, dim=1))


class ClassHeadAsCoded(nn.Module):
    """Logit-level fusion, as the authors' family of code has it: width-256-64-C per stream, their logits -> 32 -> C."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 256),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(256, 64),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(64, classes),
            )
            for width in widths
        )
        self.fusion: nn.Module = nn.Identity()
        if len(widths) > 1:
            self.fusion = nn.Sequential(nn.Linear(len(widths) * classes, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Streams of (B, width) each -> (B, C) logits; a single stream's logits are the answer."""
        logits = [classify(stream) for classify, stream in zip(self.streams, streams, strict=True)]
        return self.fusion(torch.cat(logits, dim=1))
