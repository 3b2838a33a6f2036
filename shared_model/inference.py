"""From a network and a whole image to probabilities: regions by sliding windows, classes by one crop at the tumour."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from shared_model.crops import crop_slices
from shared_model.monai_parts import sliding_window_inference
from shared_model.network import MTSUNet
from shared_model.tasks import REGIONS

REGION_NAMES = tuple(region.name for region in REGIONS)
MIRRORINGS = tuple(axes for count in range(4) for axes in combinations((-3, -2, -1), count))
"""The axes to flip, for each of the eight ways to mirror a volume; the first flips none."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one case.

    Attributes:
        probabilities: (3, D, H, W) float32 in the order of REGIONS; 0 throughout for a region that is not in `regions`.
        classes: for each class task that the model knows, (C,) float32 probabilities.
        regions: the regions that the model knows.
    """

    probabilities: np.ndarray
    classes: dict[str, np.ndarray]
    regions: tuple[str, ...] = REGION_NAMES


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def tumour_centre(probability: np.ndarray) -> tuple[int, int, int]:
    """Voxel at the centre of mass of `probability` (D, H, W) > 0.5; where nothing is, the voxel of the maximum."""
    mask = probability > 0.5
    centre = ndimage.center_of_mass(mask) if mask.any() else np.unravel_index(probability.argmax(), probability.shape)
    first, second, third = (round(float(part)) for part in centre)
    return first, second, third


def crop_at(image: torch.Tensor, centre: Sequence[int], crop: Sequence[int]) -> torch.Tensor:
    """(C, D, H, W) -> (C, *crop): the box about `centre` as in training, zero where the image is too small."""
    result = image.new_zeros((image.shape[0], *crop))
    source, target = crop_slices(centre, image.shape[1:], crop)
    result[:, *target] = image[:, *source]
    return result


@torch.no_grad()
def predict_case(
    network: MTSUNet,
    image: torch.Tensor,
    present: torch.Tensor,
    crop: tuple[int, int, int],
    class_tasks: Sequence[str],
    overlap: float = 0.5,
    regions: Sequence[str] = REGION_NAMES,
    mirror: bool = False,
    windows: int | None = None,
) -> Prediction:
    """One case.

    Probabilities of regions are the mean over overlapping windows with Gaussian weights (Isensee et al. 2021), those of
    classes come from one window at the predicted whole tumour. An image smaller than a window is padded with zeros,
    and the result cut back. The work is done where the network is; what it returns is on the CPU.

    With `mirror` regions are the mean over the eight mirrorings of the image, each mirrored back, and classes the mean
    over those of the one window, whose place follows from that mean: eight times the work.

    Args:
        image: (4, D, H, W) z-scored, channels in the order of MODALITIES.
        present: (4,) bool.
        crop: the window, as in training.
        class_tasks: the class tasks to predict; the network has a head for each.
        overlap: share of a window that its neighbour covers, 0 to below 1.
        regions: the regions that the model was trained for; the network's other regions are left out.
        windows: as many at a time. Left out: one on a CPU, where more gain nothing, and four on a GPU.
    """
    device = next(network.parameters()).device
    there = present[None].to(device)  # (1, 4)
    together = windows or (1 if device.type == "cpu" else 4)
    mirrorings = MIRRORINGS if mirror else MIRRORINGS[:1]

    def segment(boxes: torch.Tensor) -> torch.Tensor:
        logits = network.segment(boxes, there.expand(len(boxes), -1))
        return torch.cat([logits[name] for name in network.regions], dim=1).float().sigmoid()  # (B, regions, *crop)

    def slide(seen: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor = sliding_window_inference(
            seen[None], crop, together, segment, overlap, mode="gaussian", sw_device=device, device="cpu"
        )
        return whole[0]  # (regions, D, H, W)

    with evaluating(network):
        probabilities = np.zeros((len(REGIONS), *image.shape[1:]), dtype=np.float32)
        centre = tuple(size // 2 for size in image.shape[1:])
        if network.regions:
            mean = torch.zeros(len(network.regions), *image.shape[1:])
            for axes in mirrorings:
                mean += slide(image.flip(axes)).flip(axes) / len(mirrorings)
            found = dict(zip(network.regions, mean.numpy(), strict=True))
            centre = tumour_centre(found[network.regions[0]])
            for channel, name in enumerate(REGION_NAMES):
                if name in regions and name in found:
                    probabilities[channel] = found[name]
        classes: dict[str, np.ndarray] = {}
        if class_tasks:
            box = crop_at(image, centre, crop)[None].to(device)  # (1, 4, *crop)
            seen = [network(box.flip(axes), there, tasks=class_tasks) for axes in mirrorings]
            for name in class_tasks:
                chances = torch.stack([logits[name][0].float().softmax(dim=0) for logits in seen])  # (mirrorings, C)
                classes[name] = chances.mean(dim=0).cpu().numpy()
    known = tuple(name for name in REGION_NAMES if name in regions and name in network.regions)
    return Prediction(probabilities, classes, known)


def average(predictions: Sequence[Prediction]) -> Prediction:
    """The mean of several models' probabilities of one case; for each task over the models that know it.

    The baseline that needs no rounds: models trained apart, asked together. Every prediction is of the same grid.
    """
    total = np.zeros_like(predictions[0].probabilities, dtype=np.float64)
    known = np.zeros(len(REGIONS), dtype=int)
    for prediction in predictions:
        knows = np.array([name in prediction.regions for name in REGION_NAMES])
        total[knows] += prediction.probabilities[knows]
        known += knows
    mean = total / np.maximum(known, 1)[:, None, None, None]  # (3, D, H, W)
    tasks = {name for prediction in predictions for name in prediction.classes}
    classes = {
        name: np.mean([one.classes[name] for one in predictions if name in one.classes], axis=0)
        for name in sorted(tasks)
    }
    regions = tuple(name for name, count in zip(REGION_NAMES, known, strict=True) if count)
    return Prediction(mean.astype(np.float32), classes, regions)


def nested(probabilities: np.ndarray) -> np.ndarray:
    """(3, D, H, W) bool: probability > 0.5, core inside the whole tumour alone, enhancement inside the core."""
    inside: np.ndarray = np.logical_and.accumulate(probabilities > 0.5, axis=0)
    return inside


def to_brats_labels(probabilities: np.ndarray) -> np.ndarray:
    """(3, D, H, W) -> (D, H, W) uint8 in BraTS's labels: 2 oedema, 1 core without enhancement, 4 enhancing, 0 the rest.

    The regions are nested first.
    """
    whole, core, enhancing = nested(probabilities)
    labels = np.zeros(whole.shape, dtype=np.uint8)
    labels[whole], labels[core], labels[enhancing] = 2, 1, 4
    return labels
