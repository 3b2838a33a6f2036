"""From NIfTI files to training crops, and from a prediction back to the file's own grid.

A loaded case lies in RAS orientation (axes run to the patient's right, front and top), cut to the brain's bounding box,
each modality with mean 0 and standard deviation 1 over its non-zero voxels; what was zero stays zero.
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from client.data.cases import Case, MaskValues
from shared_model.errors import DataError
from shared_model.monai_parts import NormalizeIntensity, generate_spatial_bounding_box
from shared_model.tasks import CLASSES, MODALITIES, REGIONS

PREPROCESSING = 2
"""Raised when a loaded case would change, so that no cache of the earlier kind is read."""
MARGIN = 2
"""Voxels around the brain's bounding box."""
MAXIMUM_SIDE = 1024
"""A file whose header claims more voxels than this along an axis is refused unread."""
MAXIMUM_VOXELS = 512**3
"""The same for all voxels together."""
MAXIMUM_BYTES = MAXIMUM_VOXELS * 8 + 2**20
"""The same for a decompressed file."""
UNREADABLE = (
    *(OSError, EOFError, zlib.error, ValueError, TypeError, ArithmeticError, LookupError, MemoryError, RuntimeError),
    *(ImageFileError, HeaderDataError, WrapStructError, struct.error),
)
"""What nibabel raises on damaged files."""

Crop = tuple[int, int, int]


class Volume(Protocol):
    """An array in memory, or one on disk that is read where it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Grid:
    """How a loaded case lies in its files.

    Attributes:
        file_affine: (4, 4) voxel to mm of the files.
        file_shape: shape of the files' arrays.
        affine: (4, 4) voxel to mm of the whole volume in RAS orientation.
        shape: shape of the whole volume in RAS orientation.
        start: RAS voxel at which the loaded arrays begin.
    """

    file_affine: np.ndarray
    file_shape: Crop
    affine: np.ndarray
    shape: Crop
    start: Crop


@dataclass(frozen=True)
class LoadedCase:
    """A case ready for crops; D, H, W are the RAS axes x, y, z of the cut volume.

    Attributes:
        id: name of the case.
        patient: the patient's pseudonym.
        image: (4, D, H, W) float16, channels in the order of MODALITIES, zero where absent.
        present: (4,) bool.
        regions: (3, D, H, W) uint8, 0 or 1, in the order of REGIONS; zero where unknown.
        region_known: (3,) bool.
        classes: (3,) int64 in the order of CLASSES, MISSING where unknown.
        centre: voxel at the tumour's centre of mass, or in the middle without a mask.
        tumor_voxels: voxels of the whole tumour; 0 without a mask.
        grid: where the arrays lie in the files.
    """

    id: str
    patient: str
    image: Volume
    present: np.ndarray
    regions: Volume
    region_known: np.ndarray
    classes: np.ndarray
    centre: Crop
    tumor_voxels: int
    grid: Grid


Files = dict[str, tuple[np.ndarray, np.ndarray]]
"""Modality, `seg` or `brain` to voxels and affine of its file."""


def files_of(case: Case) -> dict[str, Path]:
    """Every file of a case: its modalities, `seg` and `brain`."""
    extra = {"seg": case.mask, "brain": case.brain_mask}
    return {**case.images, **{name: path for name, path in extra.items() if path is not None}}


def load_case(case: Case) -> LoadedCase:
    """Read, check, reorient, cut and normalise one case.

    Raises:
        DataError: naming the file that cannot be used, and why.
    """
    return assemble(case, {name: read_volume(path) for name, path in files_of(case).items()})


def assemble(case: Case, files: Files) -> LoadedCase:
    """The case from the content of its files.

    Raises:
        DataError: naming the file that cannot be used, and why.
    """
    volumes: dict[str, np.ndarray] = {}
    first: tuple[Path, np.ndarray] | None = None
    paths = files_of(case)
    for name, (volume, affine) in files.items():
        path = paths[name]
        if first is None:
            first = path, affine
        elif volume.shape != next(iter(volumes.values())).shape or not np.allclose(affine, first[1], atol=1e-2):
            raise DataError(
                f"{path}: lies on another grid than {first[0].name}", "resample it to the grid of the other files"
            )
        volumes[name] = volume
    if first is None:
        raise DataError(f"case {case.id}: no modality", "take it out of the table")
    for name in case.images:
        if case.background == "corner":
            volumes[name] = np.where(volumes[name] == volumes[name][0, 0, 0], 0, volumes[name])
        if case.brain_mask is not None:
            volumes[name] = volumes[name] * (volumes["brain"] != 0)
        inside = volumes[name][volumes[name] != 0]
        if not inside.size or inside.min() == inside.max():
            what = "all voxels that are not zero are equal" if inside.size else "every voxel is zero"
            raise DataError(f"{paths[name]}: {what}", f"mend the file, or leave the case's {name} out")
    file_affine, file_shape = first[1], next(iter(volumes.values())).shape
    to_ras = io_orientation(file_affine)
    ras = {name: apply_orientation(volume, to_ras) for name, volume in volumes.items()}
    shape = next(iter(ras.values())).shape
    channels = np.stack(
        [ras[name] if name in ras else np.zeros(shape, np.float32) for name in MODALITIES]
    )  # (4, X, Y, Z)

    start, end = generate_spatial_bounding_box(channels, select_fn=lambda x: x != 0, margin=MARGIN, allow_smaller=True)
    cut = tuple(slice(low, high) for low, high in zip(start, end, strict=True))
    image = NormalizeIntensity(nonzero=True, channel_wise=True)(channels[:, *cut])  # (4, D, H, W)
    regions = np.zeros((len(REGIONS), *image.shape[1:]), np.uint8)
    if case.mask is not None:
        known = _regions(ras["seg"], case.mask_values, case.mask)  # (3, X, Y, Z)
        regions[:] = known[:, *cut]
    tumor = np.argwhere(regions[0])  # (N, 3)
    middle = tumor.mean(0) if len(tumor) else (np.array(image.shape[1:]) - 1) / 2
    return LoadedCase(
        id=case.id,
        patient=case.patient,
        image=np.asarray(image, np.float16),
        present=np.array([name in case.images for name in MODALITIES]),
        regions=regions,
        region_known=np.array([task.name in case.regions for task in REGIONS]),
        classes=np.array([case.classes[task.name] for task in CLASSES], np.int64),
        centre=triple(np.round(middle)),
        tumor_voxels=len(tumor),
        grid=Grid(
            file_affine=file_affine,
            file_shape=triple(file_shape),
            affine=file_affine @ inv_ornt_aff(to_ras, file_shape),
            shape=triple(shape),
            start=triple(start),
        ),
    )


def triple(values: Sequence[float] | np.ndarray) -> Crop:
    """Three whole numbers."""
    x, y, z = (int(value) for value in values)
    return x, y, z


_NIFTI_2 = (struct.pack("<i", 540), struct.pack(">i", 540))


def _content(path: Path) -> bytes:
    """The file, decompressed whole: nibabel stops at the last voxel, before the checksum that tells a flipped bit."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read(MAXIMUM_BYTES + 1)
    if len(content) > MAXIMUM_BYTES:
        raise DataError(f"{path}: holds over {MAXIMUM_BYTES // 2**20} MB", "check the file")
    return content


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32 and affine as float64 of a 3-D NIfTI file.

    Raises:
        DataError: no such file, no whole NIfTI, not three axes, NaN or infinity in it.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{path}: its name does not end in .nii or .nii.gz", "convert it to NIfTI")
    try:
        content = _content(path)
        kind = nib.Nifti2Image if content[:4] in _NIFTI_2 else nib.Nifti1Image
        raw = kind.header_class(content[: kind.header_class.sizeof_hdr], check=False)
        if raw.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path}: holds complex numbers or colours", "save its magnitude as plain numbers")
        file = kind.from_bytes(content)
        shape = file.shape
        if len(shape) != 3:
            raise DataError(f"{path}: has {len(shape)} axes where 3 are expected", "save it as one 3-D volume")
        if min(shape) < 1 or max(shape) > MAXIMUM_SIDE or np.prod(shape) > MAXIMUM_VOXELS:
            raise DataError(f"{path}: its header claims {'x'.join(map(str, shape))} voxels", "check the file")
        if raw["sform_code"] <= 0:
            if raw["qform_code"] <= 0:
                raise DataError(f"{path}: does not say how it lies (sform and qform are unset)", "convert it again")
            if not (raw["pixdim"][1:4] > 0).all():
                raise DataError(f"{path}: its header gives voxels of no size", "convert it again")
        affine = np.asarray(file.affine, np.float64)
        volume = np.asarray(file.dataobj, np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", "put it there") from None
    except UNREADABLE as error:
        raise DataError(
            f"{path}: no readable NIfTI, or cut off ({type(error).__name__})", "copy or convert it again"
        ) from None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: its affine cannot be inverted", "mend the header's sform or qform")
    if not np.isfinite(volume).all():
        raise DataError(f"{path}: holds NaN or infinity", "replace them, by 0 outside the brain")
    return volume, affine


MEANT: dict[MaskValues, set[int]] = {"regions": {0, 1, 2, 3, 4}, "1/2/4": {0, 1, 2, 4}, "1/2/3": {0, 1, 2, 3}}


def _regions(mask: np.ndarray, values: MaskValues, path: Path) -> np.ndarray:
    """(3, X, Y, Z) bool: whole tumour > 0; core 1, 3, 4; enhancing 3 or 4."""
    tumor = mask != 0
    if not tumor.any():
        raise DataError(f"{path}: holds no tumour", "segment it, or name the case in data.without_mask")
    if values == "whole-tumor":
        return np.stack([tumor, np.zeros_like(tumor), np.zeros_like(tumor)])
    found = set(np.unique(mask).tolist())
    if strange := sorted(found - MEANT[values]):
        raise DataError(
            f"{path}: holds the value {strange[0]:g}",
            "use 0, 1 (necrotic or non-enhancing core), 2 (oedema) and 4 or 3 (enhancing), "
            "or say in data.masks what its values mean",
        )
    if {3, 4} <= found:
        raise DataError(
            f"{path}: holds both 3 and 4, and either could mean enhancing", "rewrite it with 1, 2 and 4 alone"
        )
    return np.stack([tumor, (mask == 1) | (mask >= 3), mask >= 3])


def write_segmentation(loaded: LoadedCase, labels: np.ndarray, path: Path) -> None:
    """Write BraTS labels (0, 1, 2, 4) of the cut RAS volume, (D, H, W), as a NIfTI in the case's own grid."""
    if labels.shape != loaded.image.shape[1:]:
        raise ValueError(f"labels have shape {labels.shape}, the case has {loaded.image.shape[1:]}")
    if not np.isin(labels, (0, 1, 2, 4)).all():
        raise ValueError("labels hold a value other than 0, 1, 2, 4")
    grid = loaded.grid
    whole = np.zeros(grid.shape, np.uint8)
    cut = tuple(slice(start, start + size) for start, size in zip(grid.start, labels.shape, strict=True))
    whole[cut] = labels
    from_ras = ornt_transform(axcodes2ornt("RAS"), io_orientation(grid.file_affine))
    image = nib.Nifti1Image(apply_orientation(whole, from_ras), grid.file_affine)
    image.header.set_xyzt_units("mm")
    partial = path.with_name(f".partial-{path.name}")
    nib.save(image, partial)
    partial.replace(path)
