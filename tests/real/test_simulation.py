"""Eight real cases split over three sites: the whole path from BraTS 2021 files to segmentations and a report.

It shows that the path works; eight cases say nothing of accuracy.
"""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from server.summary import read_summary
from tests.real import real_data

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SITES = {
    "north": (["BraTS2021_01476", "BraTS2021_01477"], "regions", ["wt", "tc", "et", "idh", "codeletion", "grade"]),
    "south": (["BraTS2021_01479", "BraTS2021_01480"], "regions", ["wt", "tc", "et", "idh", "grade"]),
    "west": (["BraTS2021_01481", "TCGA-DU-7294"], "whole-tumor", ["wt", "idh", "codeletion", "grade"]),
}
TEST = ["BraTS2021_00006", "BraTS2021_01478"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    source = real_data("glioma-2mm")
    where = {"folder": str(source), "labels": str(source / "labels.csv")}
    plan = {
        "plan": {
            "name": "real",
            "synthetic": False,
            "rounds": 1,
            "training": {"local_steps": 2, "batch_size": 1, "crop": [64, 64, 64]},
        },
        "sites": [
            {"site": site, "data": {**where, "cases": cases, "masks": masks}, "tasks": tasks, "minimum_cell": 1}
            for site, (cases, masks, tasks) in SITES.items()
        ],
        "test": [{**where, "cases": TEST}],
    }
    folder = tmp_path_factory.mktemp("real")
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    result = subprocess.run(
        [
            *(sys.executable, "-m", "server.simulation.cli", "--no-baselines"),
            *(str(folder / "plan.yaml"), "--out", str(folder / "run")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "run"


def test_segmentations_lie_in_the_grid_of_their_case(finished: Path) -> None:
    source = real_data("glioma-2mm")
    for case in TEST:
        written = nib.load(finished / "segmentations" / f"{case}_seg.nii.gz")
        original = nib.load(source / case / f"{case}_seg.nii.gz")
        assert written.shape == original.shape
        np.testing.assert_allclose(written.affine, original.affine, atol=1e-5)
        assert set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2, 4}


def test_the_report_shows_the_held_out_cases_and_says_what_eight_cases_are_worth(finished: Path) -> None:
    summary = read_summary(finished / "summary.json")
    assert not summary.synthetic
    assert [site.name for site in summary.sites] == sorted(SITES)
    assert summary.test_cases == 2
    assert any("say nothing of accuracy" in caveat for caveat in summary.caveats)
    report = (finished / "report.html").read_text()
    for case in TEST:
        assert case in report
    assert "say nothing of accuracy" in report


def test_each_site_trains_what_it_declares(finished: Path) -> None:
    sites = {site.name: site for site in read_summary(finished / "summary.json").sites}
    assert "codeletion" not in sites["south"].training
    assert sites["west"].tasks == ("wt", "idh", "codeletion", "grade")
    assert sites["north"].minimum_cell == 1
