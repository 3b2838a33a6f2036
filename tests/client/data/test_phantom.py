"""The synthetic cohort: reproducible, with the prevalences and contrasts that it states, and readable by the loader."""

import csv
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.data.loading import load_case
from client.data.phantom import PhantomSite, make_cohort
from client.data.phantom.anatomy import grow_brain
from client.data.phantom.cohort import HOSPITALS, draw_patients, make_case
from client.data.phantom.diagnosis import CODELETED, IDH_MUTANT, draw_diagnosis, draw_look
from client.data.phantom.scanner import REGION_Z
from client.data.phantom.tumor import arrival_times, grow_tumor
from client.data.reading import read_cases
from shared_model.config import PhantomCohort
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES, TASKS

COHORT = PhantomCohort(patients=8, test_patients=12, voxel_mm=4.0)
SEED = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, PhantomSite]]:
    folder = tmp_path_factory.mktemp("cohort")
    return folder, {site.name: site for site in make_cohort(COHORT, folder, SEED)}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_prevalences() -> None:
    """6,000 patients, 2,000 of each grade: five standard deviations of a share are below 0.06."""
    rng = np.random.default_rng(0)
    patients = [draw_diagnosis((1 / 3, 1 / 3, 1 / 3), rng) for _ in range(6000)]
    for grade in (2, 3, 4):
        group = [p for p in patients if p.histologic == grade]
        mutants = [p for p in group if p.mutant]
        assert abs(len(group) / 6000 - 1 / 3) < 0.03
        assert abs(len(mutants) / len(group) - IDH_MUTANT[grade]) < 0.06
        tolerance = 0.06 if grade < 4 else 0
        assert abs(np.mean([p.codeleted for p in mutants]) - CODELETED[grade]) <= tolerance
    assert all(p.mutant for p in patients if p.codeleted)
    assert all((p.who2021 == 4) == (p.histologic == 4 or (p.histologic == 3 and not p.mutant)) for p in patients)


@pytest.mark.parametrize("site", HOSPITALS)
def test_a_hospital_sees_its_grades_and_lacks_its_modalities(site: str) -> None:
    hospital, patients = HOSPITALS[site], draw_patients(site, 400, SEED)
    for grade, share in zip((2, 3, 4), hospital.grades, strict=True):
        assert abs(np.mean([p.diagnosis.histologic == grade for p in patients]) - share) < 0.1
    assert abs(np.mean([p.absent != "" for p in patients]) - hospital.absent) < 0.1
    assert patients[:7] == draw_patients(site, 7, SEED)
    assert patients[:7] != draw_patients(site, 7, SEED + 1)


def test_the_mismatch_sign_tells_astrocytoma() -> None:
    rng = np.random.default_rng(0)
    shown: dict[tuple[bool, bool], list[bool]] = {}
    for _ in range(4000):
        diagnosis = draw_diagnosis((0.5, 0.5, 0.0), rng)
        look = draw_look(diagnosis, rng)
        shown.setdefault((diagnosis.mutant, diagnosis.codeleted), []).append(look.core_flair < 1.5)
    assert abs(np.mean(shown[True, False]) - 0.42) < 0.06
    assert np.mean(shown[True, True]) < 0.05 and np.mean(shown[False, False]) < 0.05


def test_a_front_takes_the_shortest_way_round_a_wall() -> None:
    slowness = np.ones((5, 5, 1), np.float32)
    slowness[2, :4] = np.inf
    times = arrival_times(slowness, (0, 0, 0))
    assert times[0, 4, 0] == 4 and np.isinf(times[2, 0, 0])
    assert times[1, 3, 0] == pytest.approx(2 + np.sqrt(2))
    assert times[3, 3, 0] == pytest.approx(2 + 3 * np.sqrt(2))  # over the gap at (2, 4)


def test_a_tumour_stays_in_the_brain_and_has_its_volume() -> None:
    for index in range(4):
        rng = np.random.default_rng(index)
        look = draw_look(draw_diagnosis((0.3, 0.3, 0.4), rng), rng)
        brain = grow_brain(4.0, rng)
        mask = grow_tumor(brain, look, rng)
        assert set(np.unique(mask)) <= {0, 1, 2, 4}
        assert not mask[~brain.mask].any() and brain.tissue[2][mask > 0].max() < 0.5
        volume = (mask > 0).sum() * 0.064
        assert 0.9 * look.volume_ml < volume < 1.35 * look.volume_ml  # closing its gaps adds some
        core = ((mask == 1) | (mask == 4)).sum()
        assert abs(core * 0.064 / volume - look.core_share) < 0.02
        assert abs((mask == 4).sum() / core - look.enhancing_share) < 0.02


def test_brains_differ_and_fit_their_grid() -> None:
    brains = [grow_brain(4.0, np.random.default_rng(seed)) for seed in range(3)]
    for brain in brains:
        assert 1300 < brain.mask.sum() * 0.064 < 2500  # ml
        assert np.allclose(brain.tissue.sum(0)[brain.mask], 1, atol=1e-5) and not brain.tissue[:, ~brain.mask].any()
        edges = [brain.mask.take(i, axis).any() for axis in range(3) for i in (0, -1)]
        assert not any(edges[:4]) and not edges[5]  # the brainstem may run out below
    assert (brains[0].mask != brains[1].mask).mean() > 0.02


def test_contrasts_and_volumes_are_those_of_real_cases() -> None:
    """Medians over cases of all scanners against the medians of 14 real cases; what differs is the looks' spread."""
    found: dict[int, list[np.ndarray]] = {1: [], 2: [], 4: []}
    volumes = []
    for patient in draw_patients("test", 24, SEED):
        images, mask = make_case(patient, 3.0)
        stack = np.stack([images[name] for name in MODALITIES]).astype(np.float64)  # (4, X, Y, Z)
        healthy = (stack[0] > 0) & (mask == 0)
        mean, std = stack[:, healthy].mean(1), stack[:, healthy].std(1)
        volumes.append((mask > 0).sum() * 0.027)
        for region, rows in found.items():
            if (mask == region).sum() > 50:
                rows.append((np.median(stack[:, mask == region], axis=1) - mean) / std)
    for region, rows in found.items():
        expected = np.array([REGION_Z[region][name] for name in MODALITIES])
        assert np.abs(np.median(rows, axis=0) - expected).max() < 0.75
    assert 40 < np.median(volumes) < 100 and min(volumes) > 10 and max(volumes) < 260


def test_the_same_seed_gives_the_same_bytes_in_any_order(
    written: tuple[Path, dict[str, PhantomSite]], tmp_path: Path
) -> None:
    folder, _ = written
    smaller = COHORT.model_copy(update={"test_patients": 8})
    make_cohort(smaller, tmp_path, SEED)
    first, second = digests(folder), digests(tmp_path)
    assert all(first[name] == value for name, value in second.items() if not name.startswith("test/"))
    cases = [name for name in second if name.startswith("test/cases/")]
    assert len(cases) == 8 * 5 and all(first[name] == second[name] for name in cases)


def test_a_cohort_is_written_once(written: tuple[Path, dict[str, PhantomSite]]) -> None:
    folder, sites = written
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    calls: list[tuple[int, int]] = []
    again = make_cohort(COHORT, folder, SEED, lambda done, total: calls.append((done, total)))
    assert again == list(sites.values())
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert calls[-1] == (8 + 6 + 6 + 4 + 12,) * 2
    with pytest.raises(DataError, match=r"alder: holds a synthetic cohort of another seed.*Give an empty folder"):
        make_cohort(COHORT, folder, SEED + 1)


def test_an_interrupted_site_is_written_again(written: tuple[Path, dict[str, PhantomSite]]) -> None:
    folder, _ = written
    before = digests(folder)
    (folder / "dogwood" / "synthetic.sha256").unlink()
    next((folder / "dogwood" / "cases").rglob("*_flair.nii.gz")).write_bytes(b"half")
    make_cohort(COHORT, folder, SEED)
    assert digests(folder) == before


def test_sites_declare_what_they_have(written: tuple[Path, dict[str, PhantomSite]]) -> None:
    _, sites = written
    assert list(sites) == ["alder", "birch", "cedar", "dogwood", "test"]
    for name, count in {"alder": 8, "birch": 6, "cedar": 6, "dogwood": 4, "test": 12}.items():
        cases = read_cases(sites[name].data, "who2021")
        assert len(cases) == count
        assert all(case.id.startswith(f"synthetic-{name}-") for case in cases)
        for task in TASKS.values():
            known = any(task.name in c.regions if task.is_region else c.classes[task.name] >= 0 for c in cases)
            assert known == (task.name in sites[name].tasks)


def test_files_say_synthetic_and_load(written: tuple[Path, dict[str, PhantomSite]]) -> None:
    folder, sites = written
    for name, site in sites.items():
        case = read_cases(site.data, "who2021")[0]
        image = nib.load(case.images["flair"])
        assert bytes(image.header["descrip"]).rstrip(b"\0") == b"synthetic"
        assert image.get_data_dtype() == np.int16 and nib.aff2axcodes(image.affine) == ("L", "P", "S")
        loaded = load_case(case)
        wt, tc, et = loaded.regions[:].astype(bool)
        assert wt.any() and not (tc & ~wt).any() and not (et & ~tc).any()
        assert loaded.region_known.tolist() == ([True, False, False] if name == "cedar" else [True] * 3)
    masks = [np.asarray(nib.load(path).dataobj) for path in (folder / "cedar").rglob("*_seg.nii.gz")]
    assert all(set(np.unique(mask)) == {0, 1} for mask in masks)


def test_absent_modalities_have_no_file(written: tuple[Path, dict[str, PhantomSite]]) -> None:
    folder, sites = written
    with (folder / "dogwood" / "labels.csv").open(encoding="utf-8") as file:
        table = {row["case"]: {name for name in MODALITIES if not row[name]} for row in csv.DictReader(file)}
    for case in read_cases(sites["dogwood"].data, "who2021"):
        lacking = table[case.id]
        on_disk = {path.name.split("_")[1].split(".")[0] for path in (folder / "dogwood/cases" / case.id).iterdir()}
        assert on_disk - {"seg"} == set(case.images) == set(MODALITIES) - lacking
        assert load_case(case).present.tolist() == [name not in lacking for name in MODALITIES]
    assert any(table.values())
