"""Preparation of scanner-space data: on synthetic heads with a known brain and known motion, and on DICOM files."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from client.data.loading import load_case
from client.data.phi import scan_header
from client.data.preparation import registration as reg
from client.data.preparation.prepare import prepare_site, to_scan
from client.data.reading import read
from shared_model.config import DataConfig, SiteConfig
from shared_model.errors import ConfigError
from tests.heads import Head, make_head, scan_all

pytestmark = pytest.mark.long

HEADER = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021,t1,t1ce,t2,flair,seg"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def save(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def write_dicom(folder: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """One axial MR series of a RAS volume, a file a slice, with names in it as a scanner writes them."""
    folder.mkdir(parents=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    spacing = np.diag(affine)[:3]
    for z in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(str(folder / f"{z:03d}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.PatientName, one.PatientID, one.PatientBirthDate = "DOE^JANE", "MRN4711", "19550312"
        one.Modality, one.SeriesInstanceUID, one.StudyInstanceUID = "MR", series, study
        one.FrameOfReferenceUID, one.SeriesNumber, one.InstanceNumber = frame, 1, z + 1
        one.SeriesDescription, one.Manufacturer, one.ScanningSequence = "T2", "none", "SE"
        origin = affine[:3, 3] + np.array([0, 0, z * spacing[2]])
        one.ImagePositionPatient = [float(-origin[0]), float(-origin[1]), float(origin[2])]
        one.ImageOrientationPatient = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
        one.PixelSpacing, one.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
        one.SpacingBetweenSlices = float(spacing[2])
        plane = np.clip(volume[:, :, z], 0, 32767).astype(np.int16).T
        one.Rows, one.Columns = plane.shape
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.PixelData = np.ascontiguousarray(plane).tobytes()
        pydicom.dcmwrite(folder / f"{z:03d}.dcm", one, enforce_file_format=True)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def head() -> Head:
    return make_head(1)


@pytest.fixture(scope="module")
def site(head: Head, tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    """One head with its scans as NIfTI and its T2 as DICOM, and one case whose T1 is no volume; prepared."""
    folder = tmp_path_factory.mktemp("hospital")
    for name, (volume, affine, _) in scan_all(head, 1).items():
        if name == "t2":
            write_dicom(folder / "raw" / "a" / "t2", volume, affine)
        else:
            save(folder / "raw" / "a" / f"{name}.nii.gz", volume.astype(np.float32), affine)
    save(folder / "raw" / "a" / "seg.nii.gz", head.mask, head.affine)
    (folder / "raw" / "b").mkdir()
    (folder / "raw" / "b" / "t1.nii.gz").write_bytes(b"no volume")
    rows = ["a,p-a,mutant,,3,3,a/t1.nii.gz,a/t1ce.nii.gz,a/t2,a/flair.nii.gz,a/seg.nii.gz", "b,p-b,,,,,b/t1.nii.gz,,,,"]
    (folder / "raw.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    config = SiteConfig(
        site="north",
        raw=DataConfig(folder=folder / "raw", labels=folder / "raw.csv"),
        data=DataConfig(folder=folder / "cases", labels=folder / "cases.csv"),
        tasks=("wt",),
        state=folder / "state",
    )
    before = hashes(folder / "raw")
    findings = prepare_site(config, 1)
    assert hashes(folder / "raw") == before  # originals are untouched
    assert [finding.severity for finding in findings] == ["error"] and "b/t1.nii.gz" in findings[0].where
    return config


def on_grid(volume: np.ndarray, head: Head, site: SiteConfig) -> np.ndarray:
    """A truth on the head's own grid, carried to the prepared grid by the kept transform of the anchor, t1ce."""
    place = site.data.folder / "a" / "to_anchor.mat"
    grid, _ = reg.grid()
    return np.asarray(reg.resample(reg.to_image(volume, head.affine), grid, [place]).numpy() > 0.5)


def test_the_brain_is_extracted(head: Head, site: SiteConfig) -> None:
    loaded = np.asarray(nib.load(site.data.folder / "a" / "a_t1ce.nii.gz").dataobj)
    assert dice(loaded != 0, on_grid(head.brain.astype(np.float32), head, site)) >= 0.95


def test_the_scans_lie_on_each_other(head: Head, site: SiteConfig) -> None:
    """Each kept transform undoes the scan's true motion, to below a millimetre within the brain."""
    import ants

    points = np.argwhere(head.brain)[::500] @ np.diag(np.diag(head.affine)[:3]) + head.affine[:3, 3]  # (N, 3) mm
    itk = np.diag([-1, -1, 1])
    for name, (_, _, motion) in scan_all(head, 1).items():
        if name == "t1ce":
            continue
        found = ants.read_transform(str(site.data.folder / "a" / f"to_{name}.mat"))
        moved = np.array([found.apply_to_point(tuple(point)) for point in points @ itk]) @ itk
        truth = points @ motion[:3, :3].T + motion[:3, 3]
        assert np.linalg.norm(moved - truth, axis=1).mean() < 1.0, name


def test_prepared_cases_load_and_pass_the_check(site: SiteConfig) -> None:
    reading = read(site.data)
    assert [case.id for case in reading.require()] == ["a"]
    loaded = load_case(reading.cases[0])
    assert loaded.present.all() and loaded.tumor_voxels > 0
    assert np.allclose(np.linalg.norm(loaded.grid.affine[:3, :3], axis=0), 1.0)
    assert reading.cases[0].labels["idh"] == 1 and reading.cases[0].labels["codeletion"] == -1
    from client.data.checks import look_at

    assert [str(f) for f in look_at(reading.cases[0]).findings if f.severity != "note"] == []


def test_a_prediction_goes_back_to_the_scan(head: Head, site: SiteConfig, tmp_path: Path) -> None:
    mask = np.asarray(nib.load(site.data.folder / "a" / "a_seg.nii.gz").dataobj)
    assert set(np.unique(mask)) <= {0, 1, 2, 4}
    to_scan(site.data.folder / "a", mask, "t1ce", tmp_path / "back.nii.gz")
    back = nib.load(tmp_path / "back.nii.gz")
    assert back.shape == head.mask.shape and np.allclose(back.affine, head.affine, atol=1e-3)
    assert dice(np.asarray(back.dataobj) > 0, head.mask > 0) > 0.9
    _, affine, _ = scan_all(head, 1)["flair"]
    to_scan(site.data.folder / "a", mask, "flair", tmp_path / "flair.nii.gz")
    assert np.allclose(nib.load(tmp_path / "flair.nii.gz").affine, affine, atol=1e-3)


def test_what_is_done_is_not_done_again(site: SiteConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in (site.data.folder / "a").iterdir()}
    assert len(prepare_site(site, 1)) == 1
    assert {path: path.stat().st_mtime_ns for path in (site.data.folder / "a").iterdir()} == before
    assert not list(site.data.folder.glob(".a-*"))


def test_nothing_of_the_patient_is_in_the_result(site: SiteConfig) -> None:
    for path in (site.data.folder / "a").iterdir():
        content = nib.load(path).to_bytes()[:352] if path.suffix == ".gz" else path.read_bytes()
        for word in (b"DOE", b"JANE", b"MRN4711", b"19550312"):
            assert word not in content, path
        assert [finding for finding in scan_header(path) if path.suffix == ".gz"] == []
    facts = json.loads((site.data.folder / "a" / "prepared.json").read_bytes())
    assert facts["anchor"] == "t1ce" and facts["brain"] == "extracted here"


@pytest.mark.parametrize("where", ["raw", "raw/prepared", "."])
def test_originals_cannot_be_written_over(site: SiteConfig, where: str) -> None:
    assert site.raw is not None
    folder = site.raw.folder.parent
    data = site.data.model_copy(update={"folder": folder / where})
    with pytest.raises(ConfigError, match=r"lies within raw.folder, or around it"):
        prepare_site(site.model_copy(update={"data": data}), 1)


def test_a_site_without_scans_is_told_so(site: SiteConfig) -> None:
    with pytest.raises(ConfigError, match="raw: is missing"):
        prepare_site(site.model_copy(update={"raw": None}), 1)
