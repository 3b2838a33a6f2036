"""The cache: equal to loading, true to its sources, whole or rebuilt."""

import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.cache import CaseCache
from client.data.loading import LoadedCase, load_case
from shared_model.errors import DataError
from tests.client.data.test_loading import make_case


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "cases").iterdir()) if (folder / "cases").exists() else []


def equal(one: LoadedCase, other: LoadedCase) -> bool:
    return all(
        np.array_equal(np.asarray(getattr(one, name)[:]), np.asarray(getattr(other, name)[:]))
        for name in ("image", "present", "regions", "region_known", "classes")
    )


def test_the_cache_equals_loading(tmp_path: Path) -> None:
    case, cache = make_case(tmp_path), CaseCache(tmp_path / "cache")
    loaded = load_case(case)
    for other in (cache.get(case), cache.get(case), CaseCache(tmp_path / "cache").get(case)):
        assert equal(loaded, other)
        assert other.image.dtype == np.float16 and other.image.shape == loaded.image.shape
        assert np.array_equal(other.image[:, 3:9, 2:5, 4:11], loaded.image[:, 3:9, 2:5, 4:11])
        assert (other.centre, other.tumor_voxels) == (loaded.centre, loaded.tumor_voxels)
        assert all(np.array_equal(value, vars(other.grid)[name]) for name, value in vars(loaded.grid).items())
    assert len(entries(tmp_path / "cache")) == 1


def test_an_entry_belongs_to_contents_and_settings(tmp_path: Path) -> None:
    case, cache = make_case(tmp_path), CaseCache(tmp_path / "cache")
    cache.get(case)
    os.utime(case.images["t1"], ns=(1, 1))
    moved = replace(case, images={**case.images, "t1": tmp_path / "elsewhere.nii.gz"})
    shutil.copy(case.images["t1"], moved.images["t1"])
    cache.get(case)
    cache.get(moved)
    assert len(entries(tmp_path / "cache")) == 1  # neither time nor place counts
    cache.get(replace(case, mask_values="whole-tumor"))
    shutil.copy(case.images["t2"], case.images["t1"])
    changed = cache.get(case)
    assert len(entries(tmp_path / "cache")) == 3
    assert equal(changed, load_case(case))


@pytest.mark.parametrize("name", ["image.b2nd", "regions.b2nd", "facts.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_torn_entry_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    case = make_case(tmp_path)
    CaseCache(tmp_path / "cache").get(case)
    path = entries(tmp_path / "cache")[0] / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:middle], "flipped": flipped, "empty": b""}[damage])
    assert equal(CaseCache(tmp_path / "cache").get(case), load_case(case))
    assert len(entries(tmp_path / "cache")) == 1


def build(folder: str, started: object) -> bool:
    started.wait(30)  # type: ignore[attr-defined]
    case = make_case(Path(folder) / "source", write=False)
    return equal(CaseCache(Path(folder) / "cache").get(case), load_case(case))


def test_four_processes_may_build_at_once(tmp_path: Path) -> None:
    make_case(tmp_path / "source")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(4) as pool:
        started = manager.Barrier(4)
        assert all(pool.starmap(build, [(str(tmp_path), started)] * 4))
    assert len(entries(tmp_path / "cache")) == 1


def test_a_faulty_case_leaves_no_entry(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    case.images["t1"].write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"c_t1.nii.gz"):
        CaseCache(tmp_path / "cache").get(case)
    assert entries(tmp_path / "cache") == []


def test_a_patients_entries_can_be_forgotten(tmp_path: Path) -> None:
    case, cache = make_case(tmp_path), CaseCache(tmp_path / "cache")
    cache.get(case)
    cache.get(replace(case, patient="q", mask=None))
    assert cache.forget({"nobody"}) == 0
    assert cache.forget({"q"}) == 1
    assert len(entries(tmp_path / "cache")) == 1
