"""No patient twice, on layouts of real cases with the real mapping table; and a federation over three of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.data.reading import read
from server.simulation.gathering import gather
from server.simulation.preparation import load_plan
from server.summary import read_summary
from shared_model.errors import ConfigError
from tests.layouts import LAYOUTS
from tests.real import real_data

ROOT = Path(__file__).resolve().parents[2]
TASKS = ["wt", "tc", "et", "idh", "codeletion", "grade"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Built layouts, as plan entries. tcga-lgg has TCGA-CS-4942 and TCGA-CS-5396: BraTS2021_01476 and _01479."""
    folder = tmp_path_factory.mktemp("sets")
    built = {name: LAYOUTS[name](folder / name) for name in ("ucsf-pdgm", "tcga-lgg", "egd", "brats-2021", "upenn-gbm")}
    for old, new in (("00002", "01476"), ("00003", "01479")):
        _rename(folder / "brats-2021", f"BraTS2021_{old}", f"BraTS2021_{new}")
    return {
        name: {k: str(v) for k, v in data.model_dump(mode="json", include={"layout", "folder", "labels"}).items() if v}
        for name, data in built.items()
    }


def _rename(folder: Path, old: str, new: str) -> None:
    for path in (folder / old).iterdir():
        path.rename(path.with_name(path.name.replace(old, new)))
    (folder / old).rename(folder / new)
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace(old, new))


def plan(folder: Path, sites: dict[str, dict[str, str]], **more: Any) -> Path:
    values = {
        "plan": {
            **{"name": "sets", "synthetic": False, "rounds": 1},
            "training": {"local_steps": 2, "batch_size": 1, "crop": [64, 32, 32]},
        },
        "sites": [{"site": s, "data": d, "tasks": TASKS, "minimum_cell": 1} for s, d in sites.items()],
        **more,
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(values))
    return folder / "plan.yaml"


def test_a_patient_of_two_sets_stays_in_the_first(sets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    mapping = str(real_data("tables") / "BraTS21-17_Mapping.csv")
    path = plan(tmp_path, {"a": sets["tcga-lgg"], "b": sets["brats-2021"]}, mapping=mapping, test=[sets["ucsf-pdgm"]])
    gathered = gather(load_plan(path))
    assert [case.id for case in gathered.sites[1].cases] == ["BraTS2021_00001"]
    assert {(o.place, o.case) for o in gathered.overlaps} == {("b", "BraTS2021_01476"), ("b", "BraTS2021_01479")}
    assert len(gathered.sites[0].cases) == 3


def test_the_test_set_comes_first(sets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    mapping = str(real_data("tables") / "BraTS21-17_Mapping.csv")
    path = plan(tmp_path, {"a": sets["tcga-lgg"], "c": sets["egd"]}, mapping=mapping, test=[sets["brats-2021"]])
    gathered = gather(load_plan(path))
    assert [case.id for case in gathered.sites[0].cases] == ["TCGA-AA-0001"]
    assert len(gathered.test[0].cases) == 3


def test_unnamed_brats_cases_of_an_institution_that_another_set_holds_are_left_out(
    sets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "brats-2021"
    shutil.copytree(sets["brats-2021"]["folder"], folder)
    _rename(folder, "BraTS2021_00001", "BraTS2021_01341")  # institution 1, unnamed
    entry = {**sets["brats-2021"], "folder": str(folder), "labels": str(folder / "labels.csv")}
    mapping = str(real_data("tables") / "BraTS21-17_Mapping.csv")
    path = plan(tmp_path, {"a": entry, "b": sets["upenn-gbm"]}, mapping=mapping, test=[sets["egd"]])
    gathered = gather(load_plan(path))
    assert [(o.case, "upenn-gbm" in o.why) for o in gathered.overlaps] == [("BraTS2021_01341", True)]


def test_without_the_mapping_such_a_plan_is_refused(sets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    path = plan(tmp_path, {"a": sets["tcga-lgg"], "b": sets["brats-2021"]}, test=[sets["egd"]])
    with pytest.raises(ConfigError, match=r"patients of tcga-lgg are in brats-2021.*BraTS21-17_Mapping.csv"):
        gather(load_plan(path))


def test_two_brats_cases_of_one_ucsf_patient_share_a_split(tmp_path: Path) -> None:
    """UCSF's table: UCSF-PDGM-429 is BraTS2021_00639, and his second exam BraTS2021_00557."""
    data = LAYOUTS["brats-2021"](tmp_path)
    _rename(tmp_path, "BraTS2021_00001", "BraTS2021_00639")
    _rename(tmp_path, "BraTS2021_00002", "BraTS2021_00557")
    tables = {"ucsf-pdgm": real_data("tables") / "UCSF-PDGM-metadata_v5.csv"}
    reading = read(data.model_copy(update={"labels": None, "label_tables": tables}))
    patients = {case.id: case.patient for case in reading.require()}
    assert patients["BraTS2021_00639"] == patients["BraTS2021_00557"] != patients["BraTS2021_00003"]
    assert reading.cases[1].labels["idh"] == 0 and reading.cases[0].labels["idh"] == 0


def test_institutions_become_sites_and_each_gives_to_the_test_set(tmp_path: Path) -> None:
    data = LAYOUTS["fets-2022"](tmp_path / "FeTS2022")
    rows = ["1,FeTS2022_00001", "1,FeTS2022_00002", "7,FeTS2022_00003", "7,FeTS2022_00099"]
    (tmp_path / "partitioning_1.csv").write_text("\n".join(["Partition_ID,Subject_ID", *rows]) + "\n")
    entry = {
        **{"data": {"layout": "fets-2022", "folder": "FeTS2022", "labels": str(data.labels)}, "tasks": TASKS},
        **{"by": "partitioning_1.csv", "smallest": 2, "minimum_cell": 1},
    }
    gathered = gather(load_plan(plan(tmp_path, {}, partitions=[entry], test_share=0.34)))
    assert [site.name for site in gathered.sites] == ["institution-1", "others"]
    test = [case.id for part in gathered.test for case in part.cases]
    training = [case.id for site in gathered.sites for case in site.cases]
    assert sorted(test + training) == ["FeTS2022_00001", "FeTS2022_00002", "FeTS2022_00003"]
    assert len(test) == 1 and test[0] != "FeTS2022_00003"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server.simulation.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_explain_says_who_is_where_without_training(sets: dict[str, dict[str, str]], tmp_path: Path) -> None:
    mapping = str(real_data("tables") / "BraTS21-17_Mapping.csv")
    path = plan(tmp_path, {"a": sets["tcga-lgg"], "b": sets["brats-2021"]}, mapping=mapping, test=[sets["ucsf-pdgm"]])
    said = run(str(path), "--explain")
    assert said.returncode == 0, said.stderr
    for part in ("b: overlap removed: 2: the patient is in a", "a: left out: 3: a further row", "test set"):
        assert part in said.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_three_layouts_with_different_labels_masks_and_modalities_federate(
    sets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """UCSF with everything; EGD with whole-tumour masks and a skull; UPENN without 1p/19q and two T1 and T2."""
    folder = tmp_path / "upenn"
    shutil.copytree(sets["upenn-gbm"]["folder"], folder)
    for part in ("T1", "T2"):
        (folder / "images_structural" / "UPENN-GBM-00002_11" / f"UPENN-GBM-00002_11_{part}.nii.gz").unlink()
    sites = {"ucsf": sets["ucsf-pdgm"], "egd": sets["egd"], "upenn": {"layout": "upenn-gbm", "folder": str(folder)}}
    path = plan(tmp_path, sites, test=[sets["tcga-lgg"]])
    values = yaml.safe_load(path.read_text())
    for site, tasks in (("egd", ["wt", "idh", "codeletion"]), ("upenn", ["wt", "tc", "et", "idh", "grade"])):
        next(entry for entry in values["sites"] if entry["site"] == site)["tasks"] = tasks
    missing = {**values["sites"][0], "site": "nowhere", "data": {"layout": "egd", "folder": "none"}, "missing": "skip"}
    values["sites"].append(missing)
    path.write_text(yaml.safe_dump(values))
    said = run(str(path), "--no-baselines", "--out", str(tmp_path / "run"))
    assert said.returncode == 0, said.stdout + said.stderr
    summary = read_summary(tmp_path / "run" / "summary.json")
    notes = {site.name: " ".join(site.notes) for site in summary.sites}
    assert set(notes) == {"ucsf", "egd", "upenn"} and summary.test_cases == 3
    assert "1 of 3 cases lack t1+t2" in notes["upenn"]
    assert "whole tumour alone" in notes["egd"]
    assert any("nowhere took no part" in caveat for caveat in summary.caveats)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 3 cases lack t1+t2" in report and "nowhere took no part" in report
    terms = json.loads((tmp_path / "run" / "sites.json").read_bytes())
    assert [site["site"] for site in terms["sites"]] == ["ucsf", "egd", "upenn"]
