"""From NIfTI files to training crops, and from a prediction back to the file's own grid.

A loaded case lies in RAS orientation (axes run to the patient's right, front and top), cut to the brain's bounding box,
each modality with mean 0 and standard deviation 1 over its non-zero voxels; what was zero stays zero.
"""

import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Compose, NormalizeIntensity, RandFlip, RandScaleIntensity, RandShiftIntensity
from monai.transforms.utils import generate_spatial_bounding_box
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from client.data.manifest import Case
from shared_model.crops import crop_slices
from shared_model.errors import DataError
from shared_model.tasks import CLASSES, MISSING, MODALITIES, REGIONS, Targets

PREPROCESSING = 1
"""Raised when a loaded case would change, so that no cache of the earlier kind is read."""
MARGIN = 2
"""Voxels around the brain's bounding box."""
MAXIMUM_SIDE = 1024
"""A file whose header claims more voxels than this along an axis is refused unread."""
ANYWHERE = 0.2
"""Share of training crops that lie anywhere in the brain instead of at the tumour."""

Crop = tuple[int, int, int]


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
    image: np.ndarray
    present: np.ndarray
    regions: np.ndarray
    region_known: np.ndarray
    classes: np.ndarray
    centre: Crop
    tumor_voxels: int
    grid: Grid


def load_case(case: Case) -> LoadedCase:
    """Read, check, reorient, cut and normalise one case.

    Raises:
        DataError: naming the file that cannot be used, and why.
    """
    volumes: dict[str, np.ndarray] = {}
    first: tuple[Path, np.ndarray] | None = None
    paths = dict(case.images) if case.mask is None else {**case.images, "seg": case.mask}
    for name, path in paths.items():
        volume, affine = _read(path)
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
        if not volumes[name].any():
            raise DataError(
                f"{paths[name]}: every voxel is zero", f"mend the file, or name {name} in the case's column 'absent'"
            )
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
        inside = _regions(ras["seg"], case.regions, case.mask)  # (3, X, Y, Z)
        regions[:] = inside[:, *cut]
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
        centre=_triple(np.round(middle)),
        tumor_voxels=len(tumor),
        grid=Grid(
            file_affine=file_affine,
            file_shape=_triple(file_shape),
            affine=file_affine @ inv_ornt_aff(to_ras, file_shape),
            shape=_triple(shape),
            start=_triple(start),
        ),
    )


def _triple(values: Sequence[float] | np.ndarray) -> Crop:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as float32 and affine as float64 of a 3-D NIfTI file."""
    try:
        file = nib.load(path)
        shape = file.shape
        if len(shape) != 3:
            raise DataError(f"{path}: has {len(shape)} axes where 3 are expected", "save it as one 3-D volume")
        if min(shape) < 1 or max(shape) > MAXIMUM_SIDE:
            raise DataError(f"{path}: its header claims {'x'.join(map(str, shape))} voxels", "check the file")
        affine = np.asarray(file.affine, np.float64)
        volume = np.asarray(file.dataobj, np.float32)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", "put it there") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, ImageFileError, HeaderDataError) as error:
        raise DataError(
            f"{path}: no readable NIfTI, or cut off ({type(error).__name__})", "copy or convert it again"
        ) from None
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: its affine cannot be inverted", "mend the header's sform or qform")
    if not np.isfinite(volume).all():
        raise DataError(f"{path}: holds NaN or infinity", "replace them, by 0 outside the brain")
    return volume, affine


def _regions(mask: np.ndarray, known: tuple[str, ...], path: Path) -> np.ndarray:
    """(3, X, Y, Z) bool: whole tumour > 0; core 1, 3, 4; enhancing 3 or 4."""
    tumor = mask != 0
    if not tumor.any():
        raise DataError(f"{path}: holds no tumour", "segment it, or write no in the case's column 'mask'")
    if "tc" not in known:
        return np.stack([tumor, np.zeros_like(tumor), np.zeros_like(tumor)])
    values = set(np.unique(mask).tolist())
    if strange := sorted(values - {0, 1, 2, 3, 4}):
        raise DataError(
            f"{path}: holds the value {strange[0]:g}",
            "use 0, 1 (necrotic or non-enhancing core), 2 (oedema) and 4 or 3 (enhancing), "
            "or set data.masks to whole-tumor",
        )
    if {3, 4} <= values:
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


class CaseCache:
    """Loaded cases kept as plain .npy files, read by memory map.

    An entry belongs to the source files' paths, sizes and times of change, and to the version of this module: when one
    of them changes, a new entry is made. The folder may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, case: Case) -> LoadedCase:
        """`load_case(case)`, with `image` and `regions` mapped from disk.

        Raises:
            DataError: as `load_case`.
        """
        entry = self.folder / _key(case)
        if not entry.is_dir():
            self._write(entry, load_case(case))
        facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
        grid = facts["grid"]
        return LoadedCase(
            id=case.id,
            patient=case.patient,
            image=np.load(entry / "image.npy", mmap_mode="r", allow_pickle=False),
            present=np.array([name in case.images for name in MODALITIES]),
            regions=np.load(entry / "regions.npy", mmap_mode="r", allow_pickle=False),
            region_known=np.array([task.name in case.regions for task in REGIONS]),
            classes=np.array([case.classes[task.name] for task in CLASSES], np.int64),
            centre=_triple(facts["centre"]),
            tumor_voxels=facts["tumor_voxels"],
            grid=Grid(
                file_affine=np.array(grid["file_affine"]),
                file_shape=_triple(grid["file_shape"]),
                affine=np.array(grid["affine"]),
                shape=_triple(grid["shape"]),
                start=_triple(grid["start"]),
            ),
        )

    def _write(self, entry: Path, loaded: LoadedCase) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        try:
            np.save(partial / "image.npy", loaded.image, allow_pickle=False)
            np.save(partial / "regions.npy", loaded.regions, allow_pickle=False)
            grid = {name: np.asarray(value).tolist() for name, value in vars(loaded.grid).items()}
            facts = {"centre": loaded.centre, "tumor_voxels": loaded.tumor_voxels, "grid": grid}
            (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            try:
                partial.replace(entry)
            except OSError:  # another process was first; its entry is the same
                if not entry.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _key(case: Case) -> str:
    """sha256 over everything that a cache entry depends on."""
    sources = []
    for path in (*case.images.values(), *((case.mask,) if case.mask else ())):
        try:
            state = path.stat()
        except FileNotFoundError:
            raise DataError(f"{path}: no such file", "put it there") from None
        sources.append([str(path.resolve()), state.st_size, state.st_mtime_ns])
    facts = [PREPROCESSING, MARGIN, sorted(case.images), case.regions, sources]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


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
        image = _cut(case.image, centre, self.crop).astype(np.float32)  # (4, *crop)
        regions = _cut(case.regions, centre, self.crop).astype(np.float32)  # (3, *crop)
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


def _cut(volume: np.ndarray, centre: np.ndarray, crop: Crop) -> np.ndarray:
    """(C, *crop) of a (C, D, H, W) volume about `centre`, with zeros where the volume is too small."""
    out = np.zeros((volume.shape[0], *crop), volume.dtype)
    source, target = crop_slices(centre, volume.shape[1:], crop)
    out[:, *target] = volume[:, *source]
    return out
