"""The SwinUNETR backbone (Hatamizadeh 2022) as MONAI has it, giving its inner features; and the older patch merging."""

from dataclasses import dataclass

import torch

from shared_model.monai_parts import PatchMerging, SwinUNETR
from shared_model.network.attention import Stage
from shared_model.tasks import MODALITIES


@dataclass(frozen=True)
class BackboneShape:
    """What sets every tensor shape of the backbone.

    Attributes:
        feature_size: channels of the patch embedding, F below; the hidden state h_i has F * 2^i.
        window: edge of the attention window, in tokens.
        depths: blocks of the four stages.
        heads: attention heads of the four stages.
    """

    feature_size: int
    window: int
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)

    def channels(self, level: int) -> int:
        """Channels of the hidden state h_level, level 0 to 4."""
        return self.feature_size * 2**level


_SHAPES = {
    "tiny": BackboneShape(feature_size=12, window=4),
    "base": BackboneShape(feature_size=48, window=7),
    "small": BackboneShape(feature_size=48, window=7, depths=(2, 2, 6, 2)),
}


def backbone_shape(preset: str) -> BackboneShape:
    """Shape of a preset of `ModelConfig`: tiny, base or small."""
    return _SHAPES[preset]


_LEGACY = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
"""Offsets along D, H, W of the eight slices that one merge concatenated in MONAI before 1.5 (issues 4757 and 7324): two
stand twice, and (1,1,0) and (0,1,1) are lost. The current order has all eight, so weights of one fit the other in every
key and shape and mean something else."""


class LegacyPatchMerging(PatchMerging):
    """Patch merging with the slices of MONAI before 1.5, for weights trained with them.

    (B, D, H, W, C) -> (B, D/2, H/2, W/2, 2C), D, H, W even. Not for training from scratch:
    two slices of eight are lost.
    """

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        slices = [tokens[:, d::2, h::2, w::2] for d, h, w in _LEGACY]
        return self.reduction(self.norm(torch.cat(slices, dim=-1)))


class Backbone(SwinUNETR):
    """SwinUNETR without its output layer; same keys and arithmetic as MONAI's."""

    def __init__(self, shape: BackboneShape, legacy_merging: bool) -> None:
        super().__init__(
            in_channels=len(MODALITIES),
            out_channels=1,
            feature_size=shape.feature_size,
            depths=shape.depths,
            num_heads=shape.heads,
            window_size=shape.window,
            downsample=LegacyPatchMerging if legacy_merging else PatchMerging,
        )
        del self.out
        for layers in (self.swinViT.layers1, self.swinViT.layers2, self.swinViT.layers3, self.swinViT.layers4):
            layers[0] = Stage(layers[0])

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Hidden states and decoder features.

        Args:
            images: (B, 4, D, H, W), D, H, W multiples of 32.

        Returns:
            h0..h4, where h_i is (B, F * 2^i, D / 2^(i+1), ...); and the last decoder's (B, F, D, H, W).
        """
        self._check_input_size(images.shape[2:])
        hidden = self.swinViT(images, self.normalize)
        skips = (
            hidden[3],
            self.encoder4(hidden[2]),
            self.encoder3(hidden[1]),
            self.encoder2(hidden[0]),
            self.encoder1(images),
        )
        decoders = (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        features = self.encoder10(hidden[4])
        for decoder, skip in zip(decoders, skips, strict=True):
            features = decoder(features, skip)
        return hidden, features
