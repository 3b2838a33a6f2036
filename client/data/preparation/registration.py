"""Registration and brain extraction with ANTs, in the space of nilearn's packaged MNI template. The one ANTs file.

ANTs was chosen over elastix and a network for brain extraction: one wheel of the package index does both steps, and
nothing is downloaded at run time. A brain is found by registering the template's brain to the head, first affinely and
then with SyN (Avants 2008), the metric taken over the template's brain alone; its mask is carried over. That follows
any shape a brain deforms to smoothly; beside a resection cavity or a missing bone, look at the contact sheet.
"""

import os

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import shutil
import tempfile
from functools import cache
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
from ants.core.ants_image import ANTsImage as Image
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

SEED = 1
COARSE_MM = 2
"""Grid on which transforms are found; they are applied on the grid of 1 mm."""
DILATION = 2
"""Voxels of COARSE_MM by which the template's brain is widened for SyN, so that it sees the brain's surface."""

_TO_ITK = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's mm (towards right, front, top) to ITK's (towards left, back, top)."""


def to_image(volume: np.ndarray, affine: np.ndarray) -> Image:
    """Voxels (X, Y, Z) with their affine, as ANTs has them."""
    placed = _TO_ITK @ affine
    spacing = np.linalg.norm(placed[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(volume, np.float32),
        origin=tuple(placed[:3, 3]),
        spacing=tuple(spacing),
        direction=placed[:3, :3] / spacing,
    )


@cache
def _template(millimetres: int) -> tuple[Image, Image, np.ndarray]:
    """MNI brain, its mask, and their affine."""
    brain = load_mni152_template(resolution=millimetres)
    mask = load_mni152_brain_mask(resolution=millimetres)
    return (
        to_image(np.asarray(brain.dataobj), brain.affine),
        to_image(np.asarray(mask.dataobj, np.float32), brain.affine),
        np.asarray(brain.affine, np.float64),
    )


def grid() -> tuple[Image, np.ndarray]:
    """The grid that every case is brought to, (197, 233, 189) of 1 mm, and its affine."""
    brain, _, affine = _template(1)
    return brain, affine


def _coarse(image: Image) -> Image:
    return ants.resample_image(image, (float(COARSE_MM),) * 3, use_voxels=False, interp_type=0)


def rigid(fixed: Image, moving: Image, out: Path) -> None:
    """Keep as `out` the rigid transform from `fixed` to `moving`, found by mutual information."""
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        coarse = [_coarse(image) for image in (fixed, moving)]
        found = ants.registration(*coarse, "Rigid", random_seed=SEED, outprefix=f"{work}/rigid")
        shutil.copyfile(found["fwdtransforms"][0], out)


def to_template(anchor: Image, stripped: bool, out: Path) -> np.ndarray | None:
    """Keep as `out` the rigid transform from the MNI grid to the anchor, and find the brain on the anchor's grid.

    Args:
        stripped: the anchor holds a brain alone; then no mask is made.
    """
    brain, mask, affine = _template(COARSE_MM)
    coarse = _coarse(anchor)
    over = None if stripped else mask
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        start = ants.affine_initializer(
            brain, coarse, search_factor=20, radian_fraction=0.1, mask=over, txfn=f"{work}/start.mat"
        )
        affinely = ants.registration(
            brain, coarse, "Affine", initial_transform=start, mask=over, random_seed=SEED, outprefix=f"{work}/affine"
        )["fwdtransforms"][0]
        _write_rigid_part(affinely, out)
        if stripped:
            return None
        wide = ndimage.binary_dilation(mask.numpy() > 0.5, iterations=DILATION)
        deformed = ants.registration(
            brain,
            coarse,
            "SyNOnly",
            initial_transform=affinely,
            mask=to_image(wide, affine),
            reg_iterations=(40, 20, 0),
            random_seed=SEED,
            outprefix=f"{work}/deformed",
        )
        carried = ants.apply_transforms(anchor, mask, deformed["invtransforms"], interpolator="linear")
        return np.asarray(ndimage.binary_fill_holes(carried.numpy() > 0.5))


def _write_rigid_part(path: str, out: Path) -> None:
    """The rotation nearest to an affine transform A about its centre, with the same shift: R = U V^T of A = U S V^T."""
    found = ants.read_transform(path)
    values = np.asarray(found.parameters)
    left, _, right = np.linalg.svd(values[:9].reshape(3, 3))
    rotation = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    found.set_parameters(np.concatenate([rotation.ravel(), values[9:]]))
    ants.write_transform(found, str(out))


def resample(
    moving: Image, reference: Image, transforms: list[Path], labels: bool = False, back: bool = False
) -> Image:
    """`moving` on the grid of `reference`.

    Args:
        transforms: from the MNI grid over the anchor to a scan, in this order.
        back: `moving` lies on the MNI grid and goes back to the scan's, instead of the other way.
        labels: nearest neighbour by label, so that no new label appears.
    """
    paths = [str(path) for path in (transforms if back else reversed(transforms))]
    return ants.apply_transforms(
        reference,
        moving,
        paths,
        whichtoinvert=[back] * len(paths),
        interpolator="genericLabel" if labels else "linear",
    )


def write(image: np.ndarray, affine: np.ndarray, path: Path, dtype: type) -> None:
    """A NIfTI without any text in its header."""
    file = nib.Nifti1Image(image.astype(dtype), affine)
    file.header.set_xyzt_units("mm")
    nib.save(file, path)
