"""Planted names, numbers and dates are found in every place; ordinary files give nothing; a finding repeats nothing."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.checks import check_site
from client.data.phi import HEADER_FIELDS, kinds, scan_header, scan_name, scan_sidecar
from shared_model.config import DataConfig, SiteConfig

PLANTED = ["DOE^JANE", "MRN 4711081", "1955-03-12"]


def volume(path: Path, **fields: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    for field, text in fields.items():
        image.header[field] = text.encode()
    nib.save(image, path)
    return path


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_in_a_header_field(tmp_path: Path, field: str, planted: str) -> None:
    (finding,) = scan_header(volume(tmp_path / "a.nii.gz", **{field: planted}))
    assert finding.severity == "error" and field in finding.what
    assert planted not in f"{finding.what} {finding.remedy}"


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("code", [2, 4, 6])
def test_in_a_header_extension(tmp_path: Path, code: int, planted: str) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    if code == 2:
        import pydicom

        content: object = pydicom.Dataset()
        content.PatientName = planted  # type: ignore[attr-defined]
        image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, content))
    else:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, f"made for {planted}".encode()))
    nib.save(image, tmp_path / "a.nii.gz")
    assert [f.severity for f in scan_header(tmp_path / "a.nii.gz")] == ["error"]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("place", [("PatientName",), ("a", "b", 0, "note"), ("SeriesDescription",)])
def test_in_a_sidecar(tmp_path: Path, place: tuple[str | int, ...], planted: str) -> None:
    value: object = planted
    for key in reversed(place):
        value = [value] if isinstance(key, int) else {key: value}
    (tmp_path / "a.json").write_text(json.dumps({"EchoTime": 0.1, **value}))  # type: ignore[dict-item]
    (finding,) = scan_sidecar(tmp_path / "a.json")
    assert finding.severity in ("error", "warning") and planted not in finding.what


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("shape", ["{}/t1.nii.gz", "case/{}_t1.nii.gz", "{}/a/b.nii.gz"])
def test_in_names_of_files_and_folders(tmp_path: Path, shape: str, planted: str) -> None:
    (finding,) = scan_name(tmp_path / shape.format(planted.replace(" ", "_")), tmp_path)
    assert finding.severity == "warning"


@pytest.mark.parametrize("text", ["FSL5.0", "TE=2.9;Time=92521.452;phase=1", "synthetic", "SPM compatible", ""])
def test_what_programs_write_is_left_alone(tmp_path: Path, text: str) -> None:
    assert scan_header(volume(tmp_path / "a.nii.gz", descrip=text)) == []


@pytest.mark.parametrize("name", ["BraTS2021_00006_t1.nii.gz", "sub-01_ses-pre_T1w.nii.gz", "UCSF-PDGM-0004_T1.nii.gz"])
def test_ordinary_names_are_left_alone(tmp_path: Path, name: str) -> None:
    assert scan_name(tmp_path / "cases" / name, tmp_path) == []


def test_unusual_text_is_reported_though_it_has_no_pattern(tmp_path: Path) -> None:
    (finding,) = scan_header(volume(tmp_path / "a.nii.gz", descrip="Jane Doe left side"))
    assert finding.severity == "warning" and "Jane" not in finding.what


@given(st.dates().filter(lambda day: 1900 <= day.year < 2100), st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%d.%m.%Y"]))
def test_every_date_is_found(day: object, shape: str) -> None:
    assert "a date" in kinds(f"scan of {day:{shape}} left")


@given(st.text(max_size=80))
def test_a_name_is_found_in_any_text(text: str) -> None:
    assert "a person's name" in kinds(f"{text} DOE^JANE")


def test_the_check_finds_all_places_at_once(tmp_path: Path) -> None:
    header = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021,t1,t1ce,t2,flair,seg"
    volume(tmp_path / "cases" / "DOE^JANE" / "t1.nii.gz", descrip="born 1955-03-12")
    (tmp_path / "cases" / "DOE^JANE" / "t1.json").write_text('{"PatientID": "4711"}')
    (tmp_path / "labels.csv").write_text(f"{header}\nc,p,,,,,DOE^JANE/t1.nii.gz,,,,\n")
    config = SiteConfig(
        site="a",
        data=DataConfig(folder=tmp_path / "cases", labels=tmp_path / "labels.csv"),
        tasks=("wt",),
        state=tmp_path / "state",
    )
    said = " ".join(finding.what for finding in check_site(config).findings)
    for part in ("header field descrip", "field PatientID", "folder 1 of its path"):
        assert part in said
