"""Where a crop lies in a volume: the same in training and at inference, so that a head sees what it was trained on."""

from collections.abc import Sequence

import numpy as np

Slices = tuple[slice, ...]


def crop_slices(
    centre: Sequence[float] | np.ndarray, size: Sequence[int], crop: Sequence[int]
) -> tuple[Slices, Slices]:
    """What to copy, and where to, for a crop about `centre`.

    The crop is moved to stay in the volume; along an axis that is too short the volume lies in the crop's middle.

    Args:
        centre: voxel, per axis.
        size: of the volume.
        crop: side lengths.

    Returns:
        Slices of the volume and slices of the crop, of equal shapes.
    """
    source, target = [], []
    for middle, length, width in zip(centre, size, crop, strict=True):
        room = length - width
        start = min(max(round(float(middle)) - width // 2, 0), room) if room >= 0 else room // 2
        low, high = max(start, 0), min(start + width, length)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    return tuple(source), tuple(target)
