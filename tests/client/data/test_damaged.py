"""Damaged volumes and tables: an error or a finding in one line, never a traceback, a hang, or a silent wrong tensor.

Three hundred damages: each byte-level one is refused or leaves the tensors as they were; each one that keeps a file
readable is found by the check.
"""

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client.data.cases import Case
from client.data.checks import look_at
from client.data.loading import LoadedCase, load_case
from client.data.phantom.cohort import draw_patients, make_case
from client.data.reading import read
from client.data.tables import read_table
from shared_model.config import DataConfig
from shared_model.errors import DataError, MtsunetError
from shared_model.tasks import MODALITIES

HEADER = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021"
FILES = (*MODALITIES, "seg")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A phantom's files: folder, and content of each."""
    folder = tmp_path_factory.mktemp("sound")
    images, mask = make_case(draw_patients("alder", 1, 5)[0], 4.0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for name, volume in {**images, "seg": mask}.items():
        nib.save(nib.Nifti1Image(volume.astype(np.int16), affine), folder / f"{name}.nii.gz")
    return folder, {name: (folder / f"{name}.nii.gz").read_bytes() for name in FILES}


def case_of(folder: Path) -> Case:
    return Case(
        id="c",
        patient="p",
        images={name: folder / f"{name}.nii.gz" for name in MODALITIES},
        mask=folder / "seg.nii.gz",
        labels={"idh": 1, "codeletion": -1, "grade_histologic": 1, "grade_who2021": 1},
    )


@pytest.fixture(scope="module")
def truth(sound: tuple[Path, dict[str, bytes]]) -> LoadedCase:
    return load_case(case_of(sound[0]))


def equal(one: LoadedCase, other: LoadedCase) -> bool:
    return all(np.array_equal(getattr(one, name)[:], getattr(other, name)[:]) for name in ("image", "regions"))


def one_line(error: MtsunetError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 600 and error.remedy


damages = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 0.999), st.just(0)),
    st.tuples(st.just("flip"), st.floats(0, 0.999), st.integers(1, 255)),
    st.tuples(st.just("header"), st.integers(0, 351), st.integers(1, 255)),
    st.tuples(st.just("zeros"), st.floats(0, 0.99), st.just(0)),
    st.tuples(st.just("noise"), st.integers(0, 2**32 - 1), st.integers(0, 2000)),
)


@settings(max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), damages)
@example("t1", ("cut", 0.0, 0))
@example("seg", ("header", 40, 4))
@example("t2", ("header", 70, 255))
def test_damaged_bytes_are_refused_found_or_harmless(
    sound: tuple[Path, dict[str, bytes]], truth: LoadedCase, tmp_path: Path, name: str, damage: tuple[str, float, int]
) -> None:
    kind, where, value = damage
    content = sound[1][name]
    if kind == "header":
        raw = bytearray(gzip.decompress(content))
        raw[int(where)] ^= value
        content = gzip.compress(bytes(raw), 1)
    elif kind == "cut":
        content = content[: int(where * len(content))]
    elif kind == "flip":
        at = int(where * len(content))
        content = content[:at] + bytes([content[at] ^ value]) + content[at + 1 :]
    elif kind == "zeros":
        at = int(where * len(content))
        content = content[:at] + bytes(len(content) - at)
    else:
        content = np.random.default_rng(int(where)).bytes(value)
    for other in FILES:
        path = tmp_path / f"{other}.nii.gz"
        path.unlink(missing_ok=True)
        if other == name:
            path.write_bytes(content)
        else:
            os.link(sound[0] / f"{other}.nii.gz", path)
    case = case_of(tmp_path)
    try:
        loaded = load_case(case)
    except DataError as error:
        one_line(error)
        return
    assert equal(loaded, truth) or kind == "header", "other tensors from torn bytes"
    if not equal(loaded, truth):
        # a header may be damaged into another valid one, e.g. a scale: values then are what the file says
        assert np.isfinite(np.asarray(loaded.image[:], np.float32)).all()


Change = Callable[[np.ndarray, nib.Nifti1Image], nib.Nifti1Image]


def voxels(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda volume, file: nib.Nifti1Image(change(volume), file.affine)


def affine(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda volume, file: nib.Nifti1Image(volume, change(file.affine.copy()))


def with_value(value: float) -> Change:
    def change(volume: np.ndarray) -> np.ndarray:
        out = volume.astype(np.float32)
        out[tuple(side // 2 for side in out.shape)] = value
        return out

    return voxels(change)


def no_forms(volume: np.ndarray, file: nib.Nifti1Image) -> nib.Nifti1Image:
    out = nib.Nifti1Image(volume, None)
    out.header["sform_code"] = out.header["qform_code"] = 0
    return out


def turned(matrix: np.ndarray) -> np.ndarray:
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(turn @ matrix)


REFUSED: dict[str, Change] = {
    "nan": with_value(np.nan),
    "inf": with_value(np.inf),
    "minus inf": with_value(-np.inf),
    "four axes": voxels(lambda v: v[..., None].repeat(2, -1)),
    "five axes": voxels(lambda v: v[..., None, None].repeat(2, -1)),
    "two axes": voxels(lambda v: v[:, :, 0]),
    "no voxels": voxels(lambda v: v * 0),
    "one value": voxels(lambda v: v * 0 + 7),
    "another size": voxels(lambda v: v[:-1]),
    "transposed": voxels(lambda v: v.transpose(1, 0, 2)),
    "complex": voxels(lambda v: v.astype(np.complex64) * 1j),
    "another place": affine(lambda a: a + np.array([[0, 0, 0, 9]] + [[0, 0, 0, 0]] * 3)),
    "another spacing": affine(lambda a: a * np.array([2.0, 1, 1, 1])),
    "flat": affine(lambda a: a * np.array([[1.0], [1], [0], [1]])),
    "nan affine": affine(lambda a: a * np.nan),
    "oblique alone": affine(turned),
    "no forms": no_forms,
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", ["t1", "flair", "seg"])
def test_a_wrong_volume_is_refused(sound: tuple[Path, dict[str, bytes]], tmp_path: Path, kind: str, name: str) -> None:
    for other in FILES:
        os.link(sound[0] / f"{other}.nii.gz", tmp_path / f"{other}.nii.gz")
    path = tmp_path / f"{name}.nii.gz"
    file = nib.load(path)
    volume = np.asarray(file.dataobj)
    path.unlink()
    try:
        nib.save(REFUSED[kind](volume, file), path)
    except (ValueError, TypeError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError) as error:
        pytest.skip(f"nibabel itself writes no such file ({type(error).__name__})")
    case = case_of(tmp_path)
    if kind == "one value" and name == "seg":
        with pytest.raises(DataError, match="holds the value 7"):
            load_case(case)
        return
    with pytest.raises(DataError) as caught:
        load_case(case)
    one_line(caught.value)
    assert [finding for finding in look_at(case).findings if finding.severity == "error"]


def test_voxels_of_no_size_are_refused(sound: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    """Without an sform the voxel sizes in the header count; nibabel would take 0 for 1."""
    for other in FILES:
        os.link(sound[0] / f"{other}.nii.gz", tmp_path / f"{other}.nii.gz")
    raw = bytearray(gzip.decompress(sound[1]["t1"]))
    raw[80:92] = bytes(12)  # pixdim[1:4]
    raw[252:256] = bytes([1, 0, 0, 0])  # qform_code 1, sform_code 0
    (tmp_path / "t1.nii.gz").unlink()
    (tmp_path / "t1.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(DataError, match="voxels of no size"):
        load_case(case_of(tmp_path))


def edited(sound: tuple[Path, dict[str, bytes]], folder: Path, edit: Callable[[dict[str, np.ndarray]], None]) -> Case:
    volumes = {name: np.asarray(nib.load(sound[0] / f"{name}.nii.gz").dataobj).copy() for name in FILES}
    edit(volumes)
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, np.diag([4.0, 4.0, 4.0, 1.0])), folder / f"{name}.nii.gz")
    return case_of(folder)


def swap(one: str, other: str) -> Callable[[dict[str, np.ndarray]], None]:
    def edit(volumes: dict[str, np.ndarray]) -> None:
        volumes[one], volumes[other] = volumes[other], volumes[one]

    return edit


def saturate(volumes: dict[str, np.ndarray]) -> None:
    brain = volumes["t2"] > 0
    volumes["t2"][brain] = np.clip(volumes["t2"][brain].astype(np.int64) * 40, 0, 32767)


def outlier(volumes: dict[str, np.ndarray]) -> None:
    volumes["t1"][10, 10, 10] = 32767 if volumes["t1"].max() < 3000 else 0
    volumes["t1"] = volumes["t1"].astype(np.float32)
    volumes["t1"][tuple(side // 2 for side in volumes["t1"].shape)] = 1e7


def foreign_mask(volumes: dict[str, np.ndarray]) -> None:
    volumes["seg"] = volumes["seg"][::-1, ::-1].copy()


def outside_mask(volumes: dict[str, np.ndarray]) -> None:
    volumes["seg"] = np.roll(volumes["seg"], 20, axis=2)


def skull(volumes: dict[str, np.ndarray]) -> None:
    for name in MODALITIES:
        volumes[name] = volumes[name].astype(np.int32) + 50


SAID: dict[str, tuple[Callable[[dict[str, np.ndarray]], None], str]] = {
    "t2 and flair": (swap("t2", "flair"), "t2 and flair look swapped"),
    "t1 and t2": (swap("t1", "t2"), "t1 and t2 look swapped"),
    "t1 and flair": (swap("t1", "flair"), "swapped"),
    "t1 and t1ce": (swap("t1", "t1ce"), "t1 and t1ce look swapped"),
    "saturated": (saturate, "saturated"),
    "outlier": (outlier, "standard deviations"),
    "mask of another patient": (foreign_mask, "not bright on flair"),
    "mask outside": (outside_mask, "of the segmentation lies outside the brain"),
    "background": (skull, "its background is 50"),
}


@pytest.mark.parametrize("kind", SAID)
def test_a_readable_but_wrong_case_is_found_by_the_check(
    sound: tuple[Path, dict[str, bytes]], tmp_path: Path, kind: str
) -> None:
    edit, said = SAID[kind]
    findings = look_at(edited(sound, tmp_path, edit)).findings
    assert any(said in finding.what for finding in findings if finding.severity != "note"), [str(f) for f in findings]


def test_a_sound_case_has_no_finding(sound: tuple[Path, dict[str, bytes]]) -> None:
    assert [str(f) for f in look_at(case_of(sound[0])).findings] == []


def test_a_gap_in_the_volumes_of_one_modality_is_no_traceback(sound: tuple[Path, dict[str, bytes]]) -> None:
    case = case_of(sound[0])
    assert look_at(replace(case, images={"t1": case.images["t1"]}, mask=None)).findings == []


def linked(folder: Path) -> None:
    (folder / "c" / "c_t1.nii.gz").unlink()
    (folder / "c" / "c_t1.nii.gz").symlink_to(folder / "c" / "c_t1.nii.gz")


TABLES: dict[str, tuple[bytes, str]] = {
    "latin-1": (f"{HEADER}\nc,M\xfcller,,,,\n".encode("latin-1"), "UTF-8"),
    "utf-16": (f"{HEADER}\nc,p,,,,\n".encode("utf-16"), "UTF-8"),
    "zeros": (b"\0" * 500, "column 'case' is missing"),
    "nul inside": (f"{HEADER}\nc,p\0q,,,,\n".encode(), ""),
    "empty": (b"", "column 'case' is missing"),
    "one huge field": (f"{HEADER}\nc,{'p' * 200_000},,,,\n".encode(), "cannot be read as a CSV"),
    "open quote": (f'{HEADER}\nc,"p,,,,\n'.encode(), "not as many fields"),
    "no rows": (f"{HEADER}\n".encode(), "no cases"),
    "duplicate": (f"{HEADER}\nc,p,,,,\nc,p,,,,\n".encode(), "stands in row 2 too"),
    "long name": (f"{HEADER}\n{'c' * 300},p,,,,\n".encode(), "no plain folder name"),
    "spreadsheet": (b"PK\x03\x04" + bytes(range(256)), "UTF-8"),
    "semicolons": (f"{HEADER}\nc,p,,,,\n".replace(",", ";").encode(), "column 'case' is missing"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table_is_one_line(sound: tuple[Path, dict[str, bytes]], tmp_path: Path, kind: str) -> None:
    content, said = TABLES[kind]
    (tmp_path / "c").mkdir()
    for name in FILES:
        os.link(sound[0] / f"{name}.nii.gz", tmp_path / "c" / f"c_{name}.nii.gz")
    (tmp_path / "labels.csv").write_bytes(content)
    data = DataConfig(folder=tmp_path, labels=tmp_path / "labels.csv")
    try:
        cases = read(data).require()
    except DataError as error:
        one_line(error)
        assert said in str(error)
    else:
        assert kind == "nul inside" and cases[0].patient != "p"


@pytest.mark.parametrize("where", ["case", "table", "folder"])
def test_a_symlink_loop_is_one_line(sound: tuple[Path, dict[str, bytes]], tmp_path: Path, where: str) -> None:
    (tmp_path / "c").mkdir()
    for name in FILES:
        os.link(sound[0] / f"{name}.nii.gz", tmp_path / "c" / f"c_{name}.nii.gz")
    (tmp_path / "labels.csv").write_text(f"{HEADER}\nc,p,,,,\n")
    loop = {"case": tmp_path / "c" / "c_t1.nii.gz", "table": tmp_path / "labels.csv", "folder": tmp_path / "loop"}[
        where
    ]
    loop.unlink(missing_ok=True)
    loop.symlink_to(loop)
    for layout in ("manifest", "bids", "egd") if where == "folder" else ("manifest",):
        folder = loop if where == "folder" else tmp_path
        with pytest.raises(DataError) as caught:
            read(DataConfig(layout=layout, folder=folder, labels=tmp_path / "labels.csv")).require()
        one_line(caught.value)


@settings(max_examples=60, derandomize=True)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_a_table_or_one_line(content: bytes, with_header: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes((HEADER.encode() + b"\n" if with_header else b"") + content)
        try:
            rows = read_table(path, HEADER.split(","))
        except DataError as error:
            one_line(error)
        else:
            assert all(set(HEADER.split(",")) <= set(row) for _, row in rows)


def test_a_table_of_ten_thousand_cases_names_every_missing_file_at_once(tmp_path: Path) -> None:
    rows = "\n".join(f"c-{n},p-{n},mutant,,2,2" for n in range(10_000))
    (tmp_path / "labels.csv").write_text(f"\ufeff{HEADER}\n{rows}\n".replace("\n", "\r\n"), encoding="utf-8")
    reading = read(DataConfig(folder=tmp_path, labels=tmp_path / "labels.csv"))
    assert len(reading.findings) == 10_000 and not reading.cases
    assert "row 10001" in reading.findings[-1].what
