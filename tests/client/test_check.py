"""mtsunet-client check, run as a hospital runs it: exit codes, JSON, the contact sheet, and nothing but the truth."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from client.config import load_site
from client.connection import Hello
from client.data.cases import Finding
from client.preflight import declared, network
from client.setup import create
from shared_model.config import DataConfig, Invitation, PolicyConfig, PrivacyPolicy, SiteConfig
from tests.federation import Cohort

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--crop", "32", "64", "32", "--batch", "1")


def site_file(folder: Path, cohort: Cohort, **changes: Any) -> Path:
    data = cohort.sites[0].data
    values = {
        "site": "north",
        "data": {"folder": str(data.folder), "labels": str(data.labels)},
        "tasks": ["wt", "tc", "et", "idh"],
        "minimum_cell": 1,
        "state": str(folder / "state"),
        **changes,
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(values))
    return folder / "site.yaml"


def client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with a training step of one small crop."""
    return subprocess.run(
        [sys.executable, "-m", "client.cli", *arguments, *(SMALL if arguments[0] == "check" else ())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_sound_site_is_clean(cohort: Cohort, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = client("check", "--site", str(site_file(tmp_path, cohort)), "--json", "--strict", "--sheet", str(sheet))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    cases = report["cases"]
    assert cases == report["counts"]["wt"]["cases"] == sum(report["counts"]["idh"].values()) == 8
    assert {finding["severity"] for finding in report["findings"]} == {"note"}  # tasks that it could declare
    assert "MB" in report["machine"]["training_step"] and "free" in report["machine"]["disk"]
    picture = np.asarray(Image.open(sheet))
    assert picture.shape == (cases * 176, 640, 3)
    assert (picture[..., 0] != picture[..., 1]).any()  # outlines are in colour
    (note,) = [finding for finding in report["findings"] if finding["where"] == "network"]
    assert note["what"] == "no invitation: not enrolled yet" and report["network"] == {}
    assert not (tmp_path / "state").exists()


def test_warnings_count_with_strict_alone(cohort: Cohort, tmp_path: Path) -> None:
    path = str(site_file(tmp_path, cohort, minimum_cell=11))  # too few cases for every declared task
    plain = client("check", "--site", path)
    assert plain.returncode == 0 and "fewer than the minimum cell of 11" in plain.stdout
    assert client("check", "--site", path, "--strict").returncode == 1


def test_errors_end_with_2_and_name_file_and_remedy(cohort: Cohort, tmp_path: Path) -> None:
    data = cohort.sites[0].data
    assert data.labels is not None
    lines = data.labels.read_text().splitlines()
    broken = tmp_path / "labels.csv"
    broken.write_text(
        "\n".join([lines[0], lines[1].replace(",wildtype,", ",WT,").replace(",mutant,", ",MUT,"), *lines[2:]])
    )
    done = client(
        "check", "--site", str(site_file(tmp_path, cohort, data={"folder": str(data.folder), "labels": str(broken)}))
    )
    assert done.returncode == 2
    assert f"error: {broken}: row 2, column idh" in done.stdout and "wildtype, mutant, or nothing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cuda"}, "no CUDA device is visible"),
        ({"tasks": ["wt", "mgmt"]}, "'mgmt' is no task"),
        ({"data": {"layout": "brats", "folder": "."}}, "'brats' is not known"),
        ({"data": {"layout": "egd", "folder": "nowhere"}}, "no such folder"),
        ({"sites": 3}, "sites"),
    ],
)
def test_a_mistake_in_the_config_is_one_line(
    cohort: Cohort, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    import torch

    if "device" in changes and torch.cuda.is_available():
        pytest.skip("a CUDA device is visible")
    done = client("check", "--site", str(site_file(tmp_path, cohort, **changes)))
    assert done.returncode == 2 and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_prepare_without_scans_is_one_line(cohort: Cohort, tmp_path: Path) -> None:
    done = client("prepare", "--site", str(site_file(tmp_path, cohort)))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("mtsunet-client: raw: is missing. Say there where")


def invited(folder: Path, name: str) -> SiteConfig:
    """The site north, with the invitation of the site `name`."""
    path = create(folder, "north").config
    invitation = Invitation(site=name, address="fed.example:443", authority="", release_key="0" * 64)
    (folder / "invitation.yaml").write_text(yaml.safe_dump(invitation.model_dump()))
    path.write_text(path.read_text() + "invitation: invitation.yaml\n")
    return load_site(path)


@pytest.mark.parametrize(
    ("seconds", "clock", "warns"),
    [
        (1.0, "0 s behind", False),  # the coordinator's Date is a second old
        (3.0, "2 s ahead of", False),
        (4.0, "3 s ahead of", True),
        (-1.0, "2 s behind", False),
        (-2.0, "3 s behind", True),
    ],
)
def test_a_clock_may_be_two_seconds_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, clock: str, warns: bool
) -> None:
    monkeypatch.setattr("client.preflight.hello", lambda *_: Hello("0.1.0", False, seconds))
    facts, found = network(invited(tmp_path, "north"))
    assert facts["clock"] == f"{clock} the coordinator's, give or take a second"
    what = f"the site's clock is {clock} the coordinator's"
    assert found == [Finding("warning", "network", what, "let NTP set it")] * warns


@pytest.mark.parametrize(("patients", "warned"), [(59, True), (60, False), (80, False), (100, False), (101, True)])
def test_a_declared_number_far_from_the_truth_is_warned_of(tmp_path: Path, patients: int, warned: bool) -> None:
    """100 patients of whom a fifth is held out: 80 are trained on."""
    policy = PolicyConfig(privacy=PrivacyPolicy(patients=patients))
    data = DataConfig(folder=tmp_path, layout="bids")
    config = SiteConfig(site="north", data=data, tasks=("wt",), state=tmp_path, policy=policy)
    found = declared(config, 100)
    assert [finding.severity for finding in found] == ["warning"] * warned
    assert all("there are about 80" in str(finding) for finding in found)


def test_an_invitation_for_another_site_is_an_error(tmp_path: Path) -> None:
    what = "invitation: it is for 'south', this site is 'north'"
    assert network(invited(tmp_path, "south")) == ({}, [Finding("error", "network", what, "use your own")])
