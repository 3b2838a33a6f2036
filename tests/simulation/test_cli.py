"""Bad input at the command: one line that names file and field with a remedy, exit code 2, no traceback."""

import gzip
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from server.simulation import cli
from tests.federation import Cohort, small_simulation


def plan_on(cohort: Cohort, folder: Path) -> dict[str, Any]:
    """A plan with one site on a copy of alder's cases, and the cohort's test set."""
    site = cohort.sites[0]
    shutil.copytree(site.data.folder, folder / "cases")
    assert site.data.labels is not None
    shutil.copy(site.data.labels, folder / "labels.csv")
    plan = small_simulation().plan.model_dump(mode="json")
    return {
        "plan": plan | {"synthetic": False, "minimum_sites": 1},
        "sites": [
            {
                "site": "one",
                "data": {"folder": "cases", "labels": "labels.csv"},
                "tasks": ["wt", "tc", "et", "idh"],
                "minimum_cell": 1,
            }
        ],
        "test": [cohort.sites[-1].data.model_dump(mode="json")],
    }


def first_file(folder: Path, modality: str) -> Path:
    return sorted((folder / "cases").glob(f"*/*_{modality}.nii.gz"))[0]


def unknown_key(values: dict[str, Any], folder: Path) -> str:
    values["plan"]["learning_rate"] = 1
    return "plan.learning_rate: unknown key"


def missing_modality(values: dict[str, Any], folder: Path) -> str:
    path = first_file(folder, "t1ce")
    path.unlink()
    return f"{path.name}: no such file"


def label_out_of_vocabulary(values: dict[str, Any], folder: Path) -> str:
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("mutant", "mutated").replace("wildtype", "mutated"))
    return "column idh: 'mutated' is no label"


def mask_on_another_grid(values: dict[str, Any], folder: Path) -> str:
    path = first_file(folder, "seg")
    image = nib.load(path)
    data = np.asarray(image.dataobj)[:-1].astype(np.uint8)
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return f"{path.name}: lies on another grid"


def truncated_gzip(values: dict[str, Any], folder: Path) -> str:
    path = first_file(folder, "flair")
    path.write_bytes(path.read_bytes()[:2000])
    return f"{path.name}: no readable NIfTI, or cut off"


def empty_site(values: dict[str, Any], folder: Path) -> str:
    table = folder / "labels.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    return "labels.csv: the site has no cases"


def not_a_number(values: dict[str, Any], folder: Path) -> str:
    path = first_file(folder, "t2")
    image = nib.load(path)
    data = np.asarray(image.dataobj, np.float32)
    data[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return f"{path.name}: holds NaN"


def patient_in_training_and_test(values: dict[str, Any], folder: Path) -> str:
    values["test"] = [{"folder": str(folder / "cases"), "labels": str(folder / "labels.csv")}]
    return "one: no case is left"


def unknown_rule(values: dict[str, Any], folder: Path) -> str:
    values["plan"]["aggregation"] = {"rule": "fedsgd"}
    return "aggregation.rule: 'fedsgd' is unknown"


def bad_pretrained(values: dict[str, Any], folder: Path) -> str:
    (folder / "weights.pt").write_bytes(gzip.compress(b"nothing"))
    values["plan"]["model"] = {"preset": "base", "patch_merging": "legacy"}
    values["pretrained"] = "weights.pt"
    return "weights.pt: not readable as tensors"


def no_model_to_start_from(values: dict[str, Any], folder: Path) -> str:
    values["start"] = "model"
    return f"{folder / 'model'}: holds no released model"


FAULTS = [
    unknown_key,
    missing_modality,
    label_out_of_vocabulary,
    mask_on_another_grid,
    truncated_gzip,
    empty_site,
    not_a_number,
    patient_in_training_and_test,
    unknown_rule,
    bad_pretrained,
    no_model_to_start_from,
]


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mtsunet-simulate", *arguments])
    monkeypatch.setattr("server.simulation.reaper.watch", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_bad_input_is_one_line_and_exit_code_2(
    fault: Callable[[dict[str, Any], Path], str],
    cohort: Cohort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = plan_on(cohort, tmp_path)
    message = fault(values, tmp_path)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values))
    assert invoke(monkeypatch, str(path), "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    (line,) = error.strip().splitlines()
    assert message in line
    assert line.startswith("mtsunet-simulate: ")
    assert line.endswith(".")
    assert "Traceback" not in error


def test_a_full_folder_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").touch()
    assert invoke(monkeypatch, "--out", str(tmp_path)) == 2
    assert "is not empty" in capsys.readouterr().err


def test_there_must_be_a_run_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(monkeypatch, "--resume", str(tmp_path)) == 2
    assert "holds no run" in capsys.readouterr().err
    assert invoke(monkeypatch, "--resume", str(tmp_path), "plan.yaml") == 2


def test_the_options_are_these(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(monkeypatch, "--help") == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert options == {"--out", "--resume", "--explain", "--baselines", "--no-baselines", "--help"}
