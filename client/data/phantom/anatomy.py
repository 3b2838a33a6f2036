"""A synthetic patient's brain: the MNI ICBM152 average of nilearn's wheel, deformed differently for each patient."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

FIELD_OF_VIEW_MM = (168.0, 204.0, 174.0)
"""Extent of every phantom along x, y, z."""
CENTRE_MM = (0.0, -17.0, 5.0)
"""MNI place of its middle."""


@dataclass(frozen=True)
class Brain:
    """One patient's healthy anatomy on a RAS grid (X, Y, Z).

    Attributes:
        tissue: (3, X, Y, Z) float32: share of white matter, grey matter and CSF; sums to 1 inside the brain.
        mask: (X, Y, Z) bool, what brain extraction would keep.
        place: (3, X, Y, Z) float32, MNI coordinates in mm that each voxel corresponds to.
        voxel_mm: edge of a voxel.
    """

    tissue: np.ndarray
    mask: np.ndarray
    place: np.ndarray
    voxel_mm: float


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray]:
    """(3, X, Y, Z) brain, white matter and grey matter, and the affine from voxel to MNI mm."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    files = [load(resolution=2) for load in (load_mni152_template, load_mni152_wm_template, load_mni152_gm_template)]
    maps = np.stack([np.asarray(file.dataobj, np.float32) for file in files])
    maps[0] = ndimage.binary_fill_holes(maps[0] > 0.02)
    return maps, files[0].affine


def smooth_noise(shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of mean 0 and deviation 1 that varies over `length` voxels: cubic B-splines on a random lattice."""
    field = rng.standard_normal([int(size / max(length, 1.5)) + 4 for size in shape], np.float32)
    for size in shape:
        at = np.arange(size)[:, None] / max(length, 1.5) + 1 - np.arange(field.shape[0])
        near = np.abs(at)
        weights = np.where(near < 1, 2 / 3 - near**2 + near**3 / 2, np.clip(2 - near, 0, None) ** 3 / 6)
        field = np.tensordot(field, weights.astype(np.float32), (0, 1))  # the axis just widened moves to the end
    return (field - field.mean()) / field.std()


def displaced(tissue: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(C, X, Y, Z) `tissue` sampled at each voxel plus `shift`, (3, X, Y, Z) in voxels."""
    at = np.indices(tissue.shape[1:], np.float32) + shift  # (3, X, Y, Z)
    return np.stack([ndimage.map_coordinates(channel, at, order=1, mode="nearest") for channel in tissue])


def grow_brain(voxel_mm: float, rng: np.random.Generator) -> Brain:
    """A brain of its own size, tilt and shape: up to 6 % scaling, 5 degrees, and a smooth field of 3 mm."""
    template, affine = _template()
    shape = tuple(int(np.ceil(extent / voxel_mm)) for extent in FIELD_OF_VIEW_MM)
    middle = (np.array(shape) - 1) / 2
    grid = (np.indices(shape, np.float32).reshape(3, -1) - middle[:, None]) * voxel_mm  # (3, X * Y * Z)

    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(rng.uniform(-5, 5, 3))):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[[first, first, second, second], [first, second, first, second]] = (
            np.array([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)])
        )  # fmt: skip
        turn = turn @ rotation
    scale = rng.uniform(0.94, 1.06, 3)
    place = (turn * (1 / scale)) @ grid + np.array(CENTRE_MM)[:, None] + rng.uniform(-3, 3, (3, 1))
    place = place.reshape(3, *shape).astype(np.float32)  # (3, X, Y, Z)
    place += 3.0 * np.stack([smooth_noise(shape, 40 / voxel_mm, rng) for _ in range(3)])

    at = (place - affine[:3, 3].astype(np.float32)[:, None, None, None]) / affine.diagonal()[:3].reshape(3, 1, 1, 1)
    brain, white, grey = (ndimage.map_coordinates(channel, at, order=1, mode="constant") for channel in template)
    mask = brain > 0.5
    full = np.maximum(white + grey, 1e-6)
    solid = np.clip(full * 1.05, 0, 1)  # the average's partial volumes never quite reach 1
    tissue = np.stack([solid * white / full, solid * grey / full, 1 - solid]) * mask
    return Brain(tissue.astype(np.float32), mask, place, voxel_mm)
