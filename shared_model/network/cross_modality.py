"""CMD, cross-modality differential (MTS-UNET, arXiv 2503.06828): the T2-FLAIR mismatch, a sign of IDH mutation."""

import torch
from torch import nn

from shared_model.network.tumor_aware import tumor_pool
from shared_model.tasks import MODALITIES

T2, FLAIR = MODALITIES.index("t2"), MODALITIES.index("flair")


def _channel_extent(difference: torch.Tensor) -> torch.Tensor:
    """Largest and mean channel: (B, C, d, h, w) -> (B, 2, d, h, w)."""
    return torch.cat([difference.amax(dim=1, keepdim=True), difference.mean(dim=1, keepdim=True)], dim=1)


def _stem(channels: int) -> nn.Sequential:
    """(B, 1, D, H, W) -> (B, channels, D/4, H/4, W/4). No norm: it would remove the contrast that is sought."""
    return nn.Sequential(
        nn.Conv3d(1, channels // 2, kernel_size=3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv3d(channels // 2, channels, kernel_size=3, stride=2, padding=1),
        nn.GELU(),
    )


class CrossModalityDifferential(nn.Module):
    """One vector from T2, FLAIR and their difference inside the tumour.

    F2 = stem_T2(t2), FF = stem_FLAIR(flair), a = sigmoid(conv(max_c(F2 - FF), mean_c(F2 - FF))); then F2 (1 + a),
    FF (1 + a) and |F2 - FF| (1 + a) are pooled by the tumour gate, projected and layer-normed.
    Against the authors' code: stems with non-linearities; an attention that reaches (0, 1), as no ReLU comes before the
    sigmoid; the gate weighs the pooling, so a noisy one blurs the vector and does not alter its features.
    A sample without T2 or FLAIR gets the learned vector `absent`.
    """

    def __init__(self, channels: int = 32, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.t2 = _stem(channels)
        self.flair = _stem(channels)
        self.attention = nn.Conv3d(2, 1, kernel_size=3, padding=1)
        self.project = nn.Sequential(nn.Linear(3 * channels, width), nn.LayerNorm(width))
        self.absent = nn.Parameter(torch.zeros(width))

    def forward(self, images: torch.Tensor, present: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """images (B, 4, D, H, W) finite, present (B, 4) bool, gate (B, 1, D, H, W) -> (B, width)."""
        t2 = self.t2(images[:, T2 : T2 + 1])
        flair = self.flair(images[:, FLAIR : FLAIR + 1])
        difference = t2 - flair  # (B, channels, D/4, H/4, W/4)
        attention = torch.sigmoid(self.attention(_channel_extent(difference)))
        features = torch.cat([t2, flair, difference.abs()], dim=1) * (1 + attention)
        vector = self.project(tumor_pool(features, gate))
        known = present[:, T2] & present[:, FLAIR]
        return torch.where(known[:, None], vector, self.absent)


class CrossModalityAsCoded(nn.Module):
    """CMD as the authors' family of code has it, for the ablation.

    g = 0.1 + 0.9 p gates both images; two convolutions (1 -> 64, kernel 7, stride 2, no bias, Kaiming) give F2 and FF;
    a = sigmoid(relu(conv(max_c d, mean_c d))), d = 2 (F2 - FF); the means of F2 (1 + a) and FF (1 + a) are joined.
    An absent image is whatever the network puts in its place.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.width = 2 * channels
        self.t2 = nn.Conv3d(1, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.flair = nn.Conv3d(1, channels, kernel_size=7, stride=2, padding=3, bias=False)
        for conv in (self.t2, self.flair):
            nn.init.kaiming_normal_(conv.weight)
        self.attention = nn.Conv3d(2, 1, kernel_size=3, padding=1)

    def forward(self, images: torch.Tensor, present: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """images (B, 4, D, H, W), gate (B, 1, D, H, W) -> (B, 128); `present` is not used."""
        soft = 0.1 + 0.9 * gate
        t2 = self.t2(images[:, T2 : T2 + 1] * soft)
        flair = self.flair(images[:, FLAIR : FLAIR + 1] * soft)
        attention = torch.sigmoid(torch.relu(self.attention(_channel_extent(2 * (t2 - flair)))))
        streams = [(features * (1 + attention)).mean(dim=(2, 3, 4)) for features in (t2, flair)]
        return torch.cat(streams, dim=1)
