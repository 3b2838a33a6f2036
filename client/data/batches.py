"""Augmented training crops of loaded cases."""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from client.data.loading import Crop, LoadedCase, Volume
from shared_model.crops import crop_slices
from shared_model.losses import Targets
from shared_model.monai_parts import Compose, RandFlip, RandScaleIntensity, RandShiftIntensity
from shared_model.tasks import MISSING, MODALITIES

T = TypeVar("T")
ANYWHERE = 0.2
"""Share of training crops that lie anywhere in the brain instead of at the tumour."""


@dataclass(frozen=True)
class Batch:
    """Training crops.

    Attributes:
        images: (B, 4, *crop) float32.
        present: (B, 4) bool.
        targets: regions (B, 3, *crop), region_known (B, 3), classes (B, 3).
    """

    images: torch.Tensor
    present: torch.Tensor
    targets: Targets

    @property
    def tumor_mask(self) -> torch.Tensor:
        """(B, 1, *crop) float32, the whole tumour; zero where unknown."""
        return self.targets.regions[:, :1]

    @property
    def mask_known(self) -> torch.Tensor:
        """(B,) bool."""
        return self.targets.region_known[:, 0]

    def rows(self, at: slice) -> "Batch":
        """Some of the crops; which labels there are is asked anew."""
        targets = self.targets
        parts = Targets(targets.regions[at], targets.region_known[at], targets.classes[at])
        return Batch(self.images[at], self.present[at], parts)

    def pinned(self) -> "Batch":
        """In memory from which a GPU copies while the CPU goes on."""
        return Batch(self.images.pin_memory(), self.present.pin_memory(), self.targets.each(torch.Tensor.pin_memory))

    def to(self, device: torch.device) -> "Batch":
        """From the CPU to a device, without waiting for it; `present` stays, for the network reads it there first."""
        return Batch(self.images.to(device, non_blocking=True), self.present, self.targets.to(device))


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


def draw_batches(
    crops: TrainingCrops, cases: Sequence[LoadedCase], size: int, count: int, rng: np.random.Generator
) -> Generator[Batch, None, None]:
    """So many batches of `size` crops, over the cases in fresh random order again and again."""
    order = _endless(len(cases), rng)
    for _ in range(count):
        yield crops.draw([cases[next(order)] for _ in range(size)], rng)


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, of which a thread makes the next one while one is worked on.

    One is made ahead and no more. What its making raises is raised here in its turn; closing waits for the one under
    way.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as maker:
        made = maker.submit(next, items, None)
        while (item := made.result()) is not None:
            made = maker.submit(next, items, None)
            yield item


def _endless(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Indices below `count`, in fresh random order again and again."""
    while True:
        yield from rng.permutation(count).tolist()
