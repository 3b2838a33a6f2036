"""Pictures of cases as PNG.

A contact sheet has one row a case, each modality through the tumour's centre with the mask's outline; an overlay has
one case's three slices through a voxel, with the outlines of what was predicted.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from client.data.cases import Case
from client.data.loading import Crop, LoadedCase, load_case
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES

TILE = 160
PANEL = 320
"""Edge of one slice of an overlay."""
LABEL = 16
COLOURS = ((0, 220, 120), (255, 190, 0), (255, 60, 60))
"""Outlines of whole tumour, core, enhancing tumour."""


def write_sheet(
    cases: Sequence[Case], path: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Draw all cases that can be loaded; the others have their name and the reason.

    Raises:
        DataError: the file cannot be written.
    """
    rows = []
    for done, case in enumerate(cases, start=1):
        try:
            rows.append(_row(load_case(case)))
        except DataError as error:
            rows.append(_titled(np.zeros((TILE // 4, TILE * len(MODALITIES), 3), np.uint8), f"{case.id}: {error}"))
        progress(done, len(cases))
    _save(np.concatenate(rows) if rows else np.zeros((TILE, TILE, 3), np.uint8), path)


def write_overlay(loaded: LoadedCase, regions: np.ndarray, at: Crop, title: str, path: Path) -> None:
    """Draw the axial, coronal and sagittal slice through a voxel, on FLAIR or else the next modality that is there.

    Args:
        regions: (3, D, H, W) bool, outlined in COLOURS.
        at: voxel of the cut volume.

    Raises:
        DataError: the file cannot be written.
    """
    shown = max(index for index, there in enumerate(loaded.present) if there)
    image = np.asarray(loaded.image[:][shown], np.float32)  # (D, H, W)
    edges = np.linalg.norm(loaded.grid.affine[:3, :3], axis=0)  # (3,) mm
    panels = []
    for axis in (2, 1, 0):
        plane = np.asarray(image.take(at[axis], axis))
        panels.append(_tile(plane, regions.take(at[axis], axis + 1), np.delete(edges, axis), PANEL))
    _save(_titled(np.concatenate(panels, axis=1), f"{title}; {MODALITIES[shown]}"), path)


def _save(picture: np.ndarray, path: Path) -> None:
    try:
        Image.fromarray(picture).save(path, format="PNG")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({type(error).__name__})", "name another file") from None


def _row(loaded: LoadedCase) -> np.ndarray:
    """(LABEL + TILE, 4 TILE, 3): the axial slice through the tumour's centre in each modality."""
    level = loaded.centre[2]
    image = np.asarray(loaded.image[:], np.float32)[..., level]  # (4, D, H)
    regions = np.asarray(loaded.regions[:])[..., level].astype(bool)  # (3, D, H)
    tiles = [_tile(slice_, regions) for slice_ in image]
    absent = [name for name, there in zip(MODALITIES, loaded.present, strict=True) if not there]
    title = f"{loaded.id}: {', '.join(MODALITIES)}" + (f"; without {', '.join(absent)}" if absent else "")
    return _titled(np.concatenate(tiles, axis=1), title)


def _tile(
    image: np.ndarray, regions: np.ndarray, edges: Sequence[float] | np.ndarray = (1, 1), side: int = TILE
) -> np.ndarray:
    """One slice (D, H) with outlines, the end of the second axis up and of the first on the left, (side, side, 3).

    So front or top are up, and the patient's right, or front, is on the left. `edges` are those of a pixel.
    """
    inside = image != 0
    low, high = np.percentile(image[inside], (1, 99.5)) if inside.any() else (0.0, 1.0)
    grey = np.where(inside, np.clip((image - low) / max(high - low, 1e-6), 0, 1), 0)
    planes = [(grey * 255).astype(np.uint8), *(region.astype(np.uint8) for region in regions)]
    turned = [np.ascontiguousarray(plane.T[::-1, ::-1]) for plane in planes]  # (H, D)
    extent = image.shape[0] * edges[0], image.shape[1] * edges[1]
    width, height = (max(1, round(side * length / max(extent))) for length in extent)
    large = [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.NEAREST)) for plane in turned]
    pixels = np.repeat(large[0][..., None], 3, axis=-1)  # (h, w, 3)
    for region, colour in zip(large[1:], COLOURS, strict=True):
        outline = region.astype(bool) & ~binary_erosion(region)
        pixels[outline] = colour
    tile = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    tile[top : top + height, left : left + width] = pixels
    return tile


def _titled(picture: np.ndarray, title: str) -> np.ndarray:
    label = Image.new("RGB", (picture.shape[1], LABEL))
    ImageDraw.Draw(label).text((3, 2), title[:110].encode("latin-1", "replace").decode("latin-1"), fill=(200, 200, 200))
    return np.concatenate([np.asarray(label), picture])
