"""Augmented training crops of loaded cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Compose, RandFlip, RandScaleIntensity, RandShiftIntensity

from client.data.loading import Crop, LoadedCase, Volume
from shared_model.crops import crop_slices
from shared_model.losses import Targets
from shared_model.tasks import MISSING, MODALITIES

ANYWHERE = 0.2
"""Share of training crops that lie anywhere in the brain instead of at the tumour."""


@dataclass(frozen=True)
class Batch:
    """Training crops.

    Attributes:
        images: (B, 4, *crop) float32.
        present: (B, 4) bool.
        targets: regions (B, 3, *crop), region_known (B, 3), classes (B, 3).
        tumor_mask: (B, 1, *crop) float32, the whole tumour; zero where unknown.
        mask_known: (B,) bool.
    """

    images: torch.Tensor
    present: torch.Tensor
    targets: Targets
    tumor_mask: torch.Tensor
    mask_known: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.images.to(device),
            self.present.to(device),
            self.targets.to(device),
            self.tumor_mask.to(device),
            self.mask_known.to(device),
        )


class TrainingCrops:
    """Draws augmented crops; the generator alone decides them, so two draws from equal generators are equal.

    Most crops lie at the tumour's centre, moved by up to a sixth of their side. The others lie anywhere in the brain,
    and teach the classes only if they hold at least half of the tumour: a class is no property of healthy brain.
    """

    def __init__(self, crop: Crop, modality_dropout: float) -> None:
        self.crop = crop
        self.modality_dropout = modality_dropout
        self._flip = RandFlip(prob=0.5, spatial_axis=0)
        self._intensity = Compose(
            [
                RandScaleIntensity(factors=0.1, prob=1.0, channel_wise=True),
                RandShiftIntensity(offsets=0.1, prob=1.0, channel_wise=True),
            ]
        )

    def draw(self, cases: Sequence[LoadedCase], rng: np.random.Generator) -> Batch:
        """One crop of each case, in their order."""
        drawn = [self._one(case, rng) for case in cases]
        images, present, regions, classes = (np.stack(part) for part in zip(*drawn, strict=True))
        known = np.stack([case.region_known for case in cases])
        targets = Targets(torch.from_numpy(regions), torch.from_numpy(known), torch.from_numpy(classes))
        return Batch(
            images=torch.from_numpy(images),
            present=torch.from_numpy(present),
            targets=targets,
            tumor_mask=targets.regions[:, :1],
            mask_known=targets.region_known[:, 0],
        )

    def _one(self, case: LoadedCase, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        size, classes = np.array(case.image.shape[1:]), case.classes
        anywhere = rng.random() < ANYWHERE and case.tumor_voxels > 0
        if anywhere:
            centre = rng.integers(0, size)
        else:
            centre = np.array(case.centre) + np.round(rng.uniform(-1, 1, 3) * np.array(self.crop) / 6).astype(int)
        image = cut(case.image, centre, self.crop).astype(np.float32)  # (4, *crop)
        regions = cut(case.regions, centre, self.crop).astype(np.float32)  # (3, *crop)
        if anywhere and regions[0].sum() < case.tumor_voxels / 2:
            classes = np.full_like(classes, MISSING)

        self._flip.set_random_state(seed=int(rng.integers(2**32)))
        self._intensity.set_random_state(seed=int(rng.integers(2**32)))
        both = np.asarray(self._flip(np.concatenate([image, regions])), np.float32)  # (4 + 3, *crop)
        image, regions = both[:4], both[4:]
        image = np.asarray(self._intensity(image), np.float32) * (image != 0)

        keep = case.present & (rng.random(len(MODALITIES)) >= self.modality_dropout)
        if not keep.any():
            keep[rng.choice(np.flatnonzero(case.present))] = True
        image *= keep[:, None, None, None]
        return image, keep, regions, classes


def cut(volume: Volume, centre: np.ndarray, crop: Crop) -> np.ndarray:
    """(C, *crop) of a (C, D, H, W) volume about `centre`, with zeros where the volume is too small."""
    out = np.zeros((volume.shape[0], *crop), volume.dtype)
    source, target = crop_slices(centre, volume.shape[1:], crop)
    out[:, *target] = volume[:, *source]
    return out
