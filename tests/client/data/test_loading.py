"""Loading against hand-made volumes, writing back, the cache, and the crops."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.batches import TrainingCrops
from client.data.cases import Case
from client.data.loading import Grid, LoadedCase, load_case
from client.data.loading import write_segmentation as write
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES

SHAPE = (20, 24, 18)
AFFINES = {
    "RAS": np.diag([2.0, 2.0, 2.0, 1.0]),
    "LPS": np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 50], [0, 0, 2.0, -10], [0, 0, 0, 1]]),
    "SRA": np.array([[0, 3.0, 0, 5], [0, 0, 2.0, -7], [1.5, 0, 0, 2], [0, 0, 0, 1]]),
    "oblique": np.array([[0.2, -1.9, 0, 5], [-1.9, -0.2, 0.1, -7], [0, 0.1, 2.0, 2], [0, 0, 0, 1]]),
}


def save(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def make_case(
    folder: Path, affine: np.ndarray = AFFINES["RAS"], lacks: tuple[str, ...] = (), write: bool = True
) -> Case:
    """A box of noise as brain, and in it a tumour with the values 1, 2, 4; without `write` the files are there."""
    rng = np.random.default_rng(0)
    images = {}
    for name in MODALITIES:
        volume = np.zeros(SHAPE, np.int16)
        volume[4:16, 5:20, 3:15] = rng.integers(100, 900, (12, 15, 12))
        path = folder / "c" / f"c_{name}.nii.gz"
        if write:
            save(path, volume, affine)
        if name not in lacks:
            images[name] = path
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:12, 7:15, 5:11] = 2
    mask[7:11, 9:13, 6:10] = 1
    mask[7:9, 9:13, 6:10] = 4
    if write:
        save(folder / "c" / "c_seg.nii.gz", mask, affine)
    return Case(
        id="c",
        patient="p",
        images=images,
        mask=folder / "c" / "c_seg.nii.gz",
        labels={"idh": 1, "codeletion": -1, "grade_histologic": -1, "grade_who2021": 2},
    )


def labels_of(loaded: LoadedCase) -> np.ndarray:
    wt, tc, et = loaded.regions[:]
    return np.where(et > 0, 4, np.where(tc > 0, 1, np.where(wt > 0, 2, 0)))


def test_a_case_by_hand(tmp_path: Path) -> None:
    loaded = load_case(make_case(tmp_path, lacks=("t2",)))
    assert loaded.image.shape == (4, 16, 19, 16)  # 12 x 15 x 12 and two voxels on each side
    assert loaded.image.dtype == np.float16
    assert loaded.present.tolist() == [True, True, False, True]
    assert not loaded.image[2].any()
    assert loaded.grid.start == (2, 3, 1) and loaded.grid.shape == SHAPE
    brain = loaded.image[0, 2:14, 2:17, 2:14].astype(np.float64)
    assert abs(brain.mean()) < 1e-3 and abs(brain.std() - 1) < 1e-3
    assert not loaded.image[:, :2].any() and not loaded.image[:, 14:].any()
    assert loaded.regions[:].sum((1, 2, 3)).tolist() == [6 * 8 * 6, 4 * 4 * 4, 2 * 4 * 4]
    assert loaded.centre == (6, 8, 6)  # tumour 6..11, 7..14, 5..10 less the start, halves to even
    assert loaded.tumor_voxels == 288
    assert loaded.classes.tolist() == [1, -1, 2] and loaded.region_known.all()


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_a_prediction_returns_to_the_files_own_grid(tmp_path: Path, affine: np.ndarray) -> None:
    case = make_case(tmp_path, affine)
    loaded = load_case(case)
    assert nib.aff2axcodes(loaded.grid.affine) == ("R", "A", "S")
    write(loaded, labels_of(loaded), tmp_path / "out.nii.gz")
    written, given_mask = nib.load(tmp_path / "out.nii.gz"), nib.load(case.mask)
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(given_mask.dataobj))
    assert np.allclose(written.affine, affine)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.nii.gz"]


def test_orientation_of_the_file_does_not_matter(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    straight = load_case(case)
    for path in (*case.images.values(), case.mask):
        assert path is not None
        image = nib.load(path)
        turn = nib.orientations.axcodes2ornt("SLP")
        image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), turn)).to_filename(path)
    turned = load_case(case)
    assert nib.aff2axcodes(turned.grid.file_affine) == ("S", "L", "P")
    assert np.array_equal(turned.image[:], straight.image[:])
    assert np.array_equal(turned.regions[:], straight.regions[:])
    assert np.allclose(turned.grid.affine, straight.grid.affine)


@given(
    axes=st.permutations([0, 1, 2]),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    low=st.tuples(*[st.integers(0, 3)] * 3),
    size=st.tuples(*[st.integers(1, 4)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_writing_puts_each_voxel_at_its_place_in_mm(
    tmp_path_factory: pytest.TempPathFactory,
    axes: list[int],
    signs: tuple[int, ...],
    low: tuple[int, int, int],
    size: tuple[int, int, int],
    seed: int,
) -> None:
    shape = np.array([7, 8, 9])
    file_affine = np.eye(4)
    file_affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        file_affine[world, axis] = sign
        file_affine[world, 3] = 0 if sign > 0 else shape[world] - 1
    grid = Grid(
        file_affine=file_affine,
        file_shape=tuple(int(shape[world]) for world in axes),  # type: ignore[arg-type]
        affine=np.eye(4),
        shape=(7, 8, 9),
        start=low,
    )
    labels = np.random.default_rng(seed).choice([0, 1, 2, 4], size)
    loaded = LoadedCase(
        id="c",
        patient="p",
        image=np.zeros((4, *size), np.float16),
        present=np.ones(4, bool),
        regions=np.zeros((3, *size), np.uint8),
        region_known=np.ones(3, bool),
        classes=np.zeros(3, np.int64),
        centre=(0, 0, 0),
        tumor_voxels=0,
        grid=grid,
    )
    path = tmp_path_factory.mktemp("out") / "s.nii.gz"
    write(loaded, labels, path)
    written = nib.load(path)
    voxels = np.asarray(written.dataobj)
    assert voxels.shape == grid.file_shape and (voxels > 0).sum() == (labels > 0).sum()
    for place in np.argwhere(labels):
        mm = np.append(place + np.array(low), 1)  # the RAS grid has unit voxels and starts at 0 mm
        there = np.rint(np.linalg.inv(written.affine) @ mm)[:3].astype(int)
        assert voxels[tuple(there)] == labels[tuple(place)]


def change(path: Path, volume: np.ndarray | None = None, affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    save(path, np.asarray(image.dataobj) if volume is None else volume, image.affine if affine is None else affine)


def test_whole_tumour_masks_and_no_mask(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    whole = load_case(replace(case, mask_values="whole-tumor"))
    assert whole.region_known.tolist() == [True, False, False]
    assert whole.regions[:].sum((1, 2, 3)).tolist() == [288, 0, 0]
    none = load_case(replace(case, mask=None))
    assert not none.regions[:].any() and not none.region_known.any() and none.tumor_voxels == 0
    assert none.centre == (8, 9, 8)


def test_three_means_enhancing_where_four_is_not_used(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    before = load_case(case)
    assert case.mask is not None
    mask = np.asarray(nib.load(case.mask).dataobj).copy()
    mask[mask == 4] = 3
    change(case.mask, mask)
    assert np.array_equal(load_case(case).regions[:], before.regions[:])


def faulty(case: Case, kind: str) -> str:
    """Spoil one file; returns its name."""
    t2, seg = case.images["t2"], case.mask
    assert seg is not None
    mask = np.asarray(nib.load(seg).dataobj).copy()
    volume = np.asarray(nib.load(t2).dataobj).astype(np.float32)
    if kind == "shape":
        change(t2, volume[:-1])
    elif kind == "affine":
        change(t2, affine=AFFINES["LPS"])
    elif kind == "mask-grid":
        change(seg, affine=AFFINES["LPS"])
    elif kind == "cut-off":
        t2.write_bytes(t2.read_bytes()[:-200])
    elif kind == "text":
        t2.write_bytes(gzip.compress(b"no image"))
    elif kind == "not-gzip":
        t2.write_bytes(b"no image")
    elif kind == "nan":
        volume[5, 5, 5] = np.nan
        change(t2, volume)
    elif kind == "four-axes":
        change(t2, volume[..., None])
    elif kind == "zero":
        change(t2, volume * 0)
    elif kind == "flat-affine":
        header = nib.load(t2).header
        header["srow_z"] = 0
        nib.save(nib.Nifti1Image(volume, None, header), t2)
    elif kind == "gone":
        t2.unlink()
    else:
        mask[7, 9, 6] = {"value": 7, "fraction": 0, "both": 3, "empty": 0}[kind]
        spoiled = mask * 0 if kind == "empty" else mask * np.float32(0.5) if kind == "fraction" else mask
        change(seg, spoiled)
    return seg.name if kind in ("mask-grid", "value", "fraction", "both", "empty") else t2.name


@pytest.mark.parametrize(
    ("kind", "said", "remedy"),
    [
        ("shape", "another grid than c_t1.nii.gz", "Resample"),
        ("affine", "another grid than c_t1.nii.gz", "Resample"),
        ("mask-grid", "another grid than c_t1.nii.gz", "Resample"),
        ("cut-off", "no readable NIfTI, or cut off", "Copy or convert"),
        ("text", "no readable NIfTI", "Copy or convert"),
        ("not-gzip", "no readable NIfTI", "Copy or convert"),
        ("nan", "NaN or infinity", "Replace"),
        ("four-axes", "4 axes where 3", "Save it as one 3-D"),
        ("zero", "every voxel is zero", "eave the case's t2 out"),
        ("flat-affine", "affine cannot be inverted", "Mend the header"),
        ("gone", "no such file", "Put it there"),
        ("value", "the value 7", "4 or 3 (enhancing)"),
        ("fraction", "the value 0.5", "data.masks"),
        ("both", "both 3 and 4", "Rewrite"),
        ("empty", "no tumour", "data.without_mask"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, kind: str, said: str, remedy: str) -> None:
    case = make_case(tmp_path)
    name = faulty(case, kind)
    with pytest.raises(DataError) as caught:
        load_case(case)
    message = str(caught.value)
    assert name in message and said in message and remedy in message and "\n" not in message


def test_draws_from_equal_generators_are_equal(tmp_path: Path) -> None:
    loaded = load_case(make_case(tmp_path, lacks=("t2",)))
    crops, others = TrainingCrops((32, 16, 16), 0.5), TrainingCrops((32, 16, 16), 0.5)
    for seed in range(5):
        first = crops.draw([loaded, loaded], np.random.default_rng(seed))
        second = others.draw([loaded, loaded], np.random.default_rng(seed))
        for name in ("images", "present", "tumor_mask", "mask_known"):
            assert torch.equal(getattr(first, name), getattr(second, name))
        for name in ("regions", "region_known", "classes"):
            assert torch.equal(getattr(first.targets, name), getattr(second.targets, name))
    third = crops.draw([loaded, loaded], np.random.default_rng(99))
    assert not torch.equal(first.images, third.images)


def test_shapes_types_and_masking_of_a_batch(tmp_path: Path) -> None:
    case = make_case(tmp_path, lacks=("t2",))
    loaded, bare = load_case(case), load_case(replace(case, mask=None))
    crops, rng = TrainingCrops((32, 16, 16), 0.5), np.random.default_rng(0)
    for _ in range(20):
        batch = crops.draw([loaded, bare], rng)
        assert batch.images.shape == (2, 4, 32, 16, 16) and batch.images.dtype == torch.float32
        assert batch.targets.regions.shape == (2, 3, 32, 16, 16) and batch.targets.regions.dtype == torch.float32
        assert torch.equal(batch.tumor_mask, batch.targets.regions[:, :1])
        assert batch.mask_known.tolist() == [True, False]
        assert batch.present.any(1).all() and not batch.present[:, 2].any()
        assert not batch.images[~batch.present].any() and batch.images[batch.present].flatten(1).any(1).all()
        assert set(batch.targets.regions.unique().tolist()) <= {0.0, 1.0}
        assert batch.targets.classes[1].tolist() == [1, -1, 2]  # without a mask, labels stay
        assert not batch.images[:, :, :8].any() and not batch.images[:, :, 24:].any()  # 16 voxels, padded to 32


def test_augmentation_moves_image_and_mask_alike(tmp_path: Path) -> None:
    loaded = load_case(make_case(tmp_path))
    marked = replace(loaded, image=np.stack([loaded.regions[0] * 100.0] * 4).astype(np.float16))
    flipped = set()
    for seed in range(12):
        batch = TrainingCrops((16, 32, 32), 0.0).draw([marked], np.random.default_rng(seed))
        assert torch.equal(batch.images[0, 0] > 50, batch.targets.regions[0, 0] > 0)
        centre = torch.nonzero(batch.targets.regions[0, 0])[:, 0].float().mean()
        flipped.add(bool(centre > 8))
    assert flipped == {True, False}


def test_crops_without_the_tumour_teach_no_class() -> None:
    size = (96, 96, 96)
    regions = np.zeros((3, *size), np.uint8)
    regions[:, 2:10, 2:10, 2:10] = 1
    case = LoadedCase(
        id="c",
        patient="p",
        image=np.ones((4, *size), np.float16),
        present=np.ones(4, bool),
        regions=regions,
        region_known=np.ones(3, bool),
        classes=np.array([1, 0, 2]),
        centre=(6, 6, 6),
        tumor_voxels=512,
        grid=Grid(np.eye(4), size, np.eye(4), size, (0, 0, 0)),
    )
    crops, rng, without = TrainingCrops((32, 32, 32), 0.0), np.random.default_rng(0), 0
    for _ in range(100):
        batch = crops.draw([case], rng)
        inside = float(batch.tumor_mask.sum()) >= 256
        assert batch.targets.classes.tolist() == ([[1, 0, 2]] if inside else [[-1, -1, -1]])
        without += not inside
    assert 8 <= without <= 30  # a fifth lies anywhere, and few of those meet a corner


def test_write_segmentation_refuses_other_labels(tmp_path: Path) -> None:
    loaded = load_case(make_case(tmp_path))
    for labels in (np.zeros((2, 2, 2)), np.full(loaded.image.shape[1:], 3)):
        with pytest.raises(ValueError, match="labels"):
            write(loaded, labels, tmp_path / "out.nii.gz")
