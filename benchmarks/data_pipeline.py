"""A 64 cubed crop from the cache against MONAI's PersistentDataset, both warm, in one run; and the disk each takes.

    python -m benchmarks.data_pipeline [CASE_FOLDER]

CASE_FOLDER holds one case in BraTS 2021 names; without it a synthetic case of 240x240x155 voxels is made.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import PersistentDataset
from monai.transforms import (
    Compose,
    ConcatItemsd,
    CropForegroundd,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandSpatialCropd,
)
from scipy import ndimage

from client.data.batches import cut
from client.data.cache import CaseCache
from client.data.cases import UNKNOWN, Case
from shared_model.tasks import MODALITIES

SIDE = 64
FASTER, SMALLER = 10.0, 3.0


def synthetic_case(folder: Path) -> Path:
    """Smooth noise with detail in an ellipsoid of a brain's size, int16."""
    rng = np.random.default_rng(0)
    shape = (240, 240, 155)
    at = np.indices(shape, np.float32)
    inside = sum(((at[i] - c) / r) ** 2 for i, (c, r) in enumerate(((120, 68), (120, 88), (77, 68)))) < 1
    place = folder / "case"
    place.mkdir()
    for name in MODALITIES:
        coarse = ndimage.zoom(rng.standard_normal((30, 30, 20)).astype(np.float32), (8, 8, 7.75), order=1)
        volume = 600 + 150 * coarse + rng.normal(0, 30, shape)
        nib.save(nib.Nifti1Image((volume * inside).astype(np.int16), np.eye(4)), place / f"case_{name}.nii.gz")
    mask = (((at - np.array([100, 130, 80])[:, None, None, None]) ** 2).sum(0) < 25**2).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, np.eye(4)), place / "case_seg.nii.gz")
    return place


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def median_ms(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def stock(files: dict[str, str], folder: Path) -> PersistentDataset:
    """MONAI's usual pipeline: everything up to the random crop is kept on disk."""
    keys = [*MODALITIES, "seg"]
    steps = [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        Orientationd(keys, axcodes="RAS", labels=None),
        ConcatItemsd(list(MODALITIES), name="image"),
        CropForegroundd(["image", "seg"], source_key="image", allow_smaller=True),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        RandSpatialCropd(["image", "seg"], roi_size=(SIDE,) * 3, random_size=False),
    ]
    return PersistentDataset([files], Compose(steps), cache_dir=folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = given.case or synthetic_case(folder)
        files = {part: place / f"{place.name}_{part}.nii.gz" for part in (*MODALITIES, "seg")}
        case = Case("case", "case", {m: files[m] for m in MODALITIES}, files["seg"], dict(UNKNOWN))
        cache = CaseCache(folder / "ours")
        loaded = cache.get(case)
        rng = np.random.default_rng(0)

        def crop() -> None:
            centre = rng.integers(SIDE // 2, np.array(loaded.image.shape[1:]) - SIDE // 2)
            for volume in (loaded.image, loaded.regions):
                torch.from_numpy(cut(volume, centre, (SIDE,) * 3).astype(np.float32))

        theirs = stock({part: str(path) for part, path in files.items()}, folder / "monai")
        assert theirs[0]["image"].shape == (len(MODALITIES), SIDE, SIDE, SIDE)
        crop()
        ours_ms, theirs_ms = median_ms(crop, given.repeats), median_ms(lambda: theirs[0], given.repeats)
        ours_mb, theirs_mb = size_mb(folder / "ours"), size_mb(folder / "monai")
    print(f"{place.name}: crop of {SIDE} cubed, image and mask, median of {given.repeats}")
    print(f"cache                 {ours_ms:7.1f} ms   {ours_mb:7.1f} MB")
    print(f"PersistentDataset     {theirs_ms:7.1f} ms   {theirs_mb:7.1f} MB")
    for what, ratio, least in (("faster", theirs_ms / ours_ms, FASTER), ("smaller", theirs_mb / ours_mb, SMALLER)):
        print(f"{what:<9}{ratio:6.1f} times   at least {least:.0f}: {'yes' if ratio >= least else 'NO'}")


if __name__ == "__main__":
    main()
