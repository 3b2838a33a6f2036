"""Synthetic heads: a phantom's brain in fluid, skull and scalp, and each sequence on a grid of its own."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from client.data.phantom.cohort import draw_patients, make_case
from shared_model.tasks import MODALITIES

VOXEL = 2.0
MARGIN = 18
"""Voxels of air and neck around the brain's field of view."""
LAYERS = {
    "fluid": (0.0, 4.0, {"t1": 0.25, "t1ce": 0.25, "t2": 1.5, "flair": 0.2}),
    "skull": (4.0, 10.0, {"t1": 0.08, "t1ce": 0.08, "t2": 0.06, "flair": 0.08}),
    "scalp": (10.0, 17.0, {"t1": 1.4, "t1ce": 1.5, "t2": 0.9, "flair": 1.0}),
}
"""Distance to the brain in mm, and brightness in units of the brain's mean."""
NECK = 0.6


@dataclass(frozen=True)
class Head:
    """One patient on a RAS grid of 2 mm.

    Attributes:
        images: modality to (X, Y, Z) float32.
        brain: (X, Y, Z) bool, the truth.
        mask: (X, Y, Z) uint8, the tumour.
        affine: voxel to mm.
    """

    images: dict[str, np.ndarray]
    brain: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


def make_head(seed: int) -> Head:
    """A whole head."""
    rng = np.random.default_rng(seed)
    volumes, mask = make_case(draw_patients("alder", 1, seed)[0], VOXEL)
    volumes = {name: np.pad(volume, MARGIN).astype(np.float32) for name, volume in volumes.items()}
    mask = np.pad(mask, MARGIN)
    brain = ndimage.binary_fill_holes(np.any([volume != 0 for volume in volumes.values()], axis=0))
    away = ndimage.distance_transform_edt(~brain) * VOXEL
    x, y, z = np.indices(brain.shape)
    cx, cy, cz = ndimage.center_of_mass(brain)
    bottom = np.flatnonzero(brain.any((0, 1)))[0]
    neck = (np.hypot(x - cx, y - cy + 8) < 28) & (z < bottom + 8) & ~brain & (away > 4)
    images = {}
    for name, volume in volumes.items():
        level = volume[brain].mean()
        image = volume.copy()
        for low, high, brightness in LAYERS.values():
            image[(away > low) & (away <= high) & ~brain] = brightness[name] * level
        image[neck & (away > 17)] = NECK * level
        image += rng.rayleigh(0.03 * level, image.shape).astype(np.float32)
        images[name] = ndimage.gaussian_filter(image, 0.4)
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -np.array([cx, cy, cz]) * VOXEL + rng.uniform(-25, 25, 3)
    return Head(images, brain, mask, affine)


def scanned(
    volume: np.ndarray, affine: np.ndarray, spacing: tuple[float, float, float], seed: int, order: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The volume as another scan of the moved patient sees it.

    Returns:
        Voxels, the affine that the scanner writes, and the true motion: (4, 4), mm of the first scan to mm of this one.
    """
    rng = np.random.default_rng(seed)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", rng.uniform(-6, 6, 3), degrees=True).as_matrix()
    motion[:3, 3] = rng.uniform(-6, 6, 3)
    extent = np.array(volume.shape) * VOXEL
    shape = tuple(int(side) for side in np.ceil(extent / spacing))
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = affine[:3, 3]
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(motion) @ grid
    points = np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
    at = (to_voxel @ points)[:3].reshape(3, *shape)
    return ndimage.map_coordinates(volume, at, order=order, mode="constant"), grid, motion


def scan_all(head: Head, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each modality on its own grid: (voxels, affine, motion); t1ce is the unmoved one."""
    spacings = {"t1": (1.5, 1.5, 3.0), "t1ce": (VOXEL, VOXEL, VOXEL), "t2": (1.2, 1.2, 4.0), "flair": (1.5, 1.5, 4.0)}
    scans = {}
    for index, name in enumerate(MODALITIES):
        if name == "t1ce":
            scans[name] = (head.images[name], head.affine, np.eye(4))
        else:
            scans[name] = scanned(head.images[name], head.affine, spacings[name], seed * 10 + index)
    return scans
