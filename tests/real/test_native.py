"""Preparation of a real case in scanner space: four grids, brains already extracted, one patient lying still or not."""

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.data.loading import load_case
from client.data.preparation.prepare import prepare_site, to_scan
from client.data.reading import read
from shared_model.config import DataConfig, SiteConfig
from shared_model.tasks import MODALITIES
from tests.real import real_data

pytestmark = pytest.mark.long
HEADER = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021,t1,t1ce,t2,flair,seg"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    folder = tmp_path_factory.mktemp("native")
    paths = ",".join(f"TCGA-DU-7294/{name}.nii.gz" for name in MODALITIES)
    (folder / "raw.csv").write_text(f"{HEADER}\nTCGA-DU-7294,TCGA-DU-7294,mutant,codeleted,2,2,{paths},\n")
    config = SiteConfig(
        site="native",
        raw=DataConfig(folder=real_data("glioma-native"), labels=folder / "raw.csv"),
        data=DataConfig(folder=folder / "cases", labels=folder / "cases.csv"),
        tasks=("idh",),
        state=folder / "state",
    )
    assert prepare_site(config, 1) == []
    return config


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_four_grids_become_one(prepared: SiteConfig) -> None:
    facts = json.loads((prepared.data.folder / "TCGA-DU-7294" / "prepared.json").read_bytes())
    assert facts["brain"] == "was extracted before"
    assert len({json.dumps(scan) for scan in facts["scans"].values()}) > 1
    loaded = load_case(read(prepared.data).require()[0])
    assert loaded.present.all() and loaded.grid.shape == (197, 233, 189)
    brains = loaded.image[:] != 0
    for one, other in itertools.combinations(range(4), 2):
        assert dice(brains[one], brains[other]) > 0.95


def test_the_scans_agree_in_detail(prepared: SiteConfig) -> None:
    """In real co-registered gliomas T1 and T1ce correlate by .54 to .92 over the brain; shifted by 5 mm, far less."""
    image = load_case(read(prepared.data).require()[0]).image[:].astype(np.float32)
    brain = (image != 0).all(0)
    aligned = np.corrcoef(image[0][brain], image[1][brain])[0, 1]
    shifted = np.roll(image[1], 5, axis=0)
    both = brain & (shifted != 0)
    assert aligned > 0.75 and aligned > np.corrcoef(image[0][both], shifted[both])[0, 1] + 0.1


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_mask_goes_back_to_each_scan(prepared: SiteConfig, tmp_path: Path, modality: str) -> None:
    case = prepared.data.folder / "TCGA-DU-7294"
    brain = (np.asarray(nib.load(case / f"TCGA-DU-7294_{modality}.nii.gz").dataobj) != 0).astype(np.uint8)
    to_scan(case, brain, modality, tmp_path / "back.nii.gz")
    scan = nib.load(real_data("glioma-native") / "TCGA-DU-7294" / f"{modality}.nii.gz")
    back = nib.load(tmp_path / "back.nii.gz")
    assert back.shape == scan.shape and np.allclose(back.affine, scan.affine, atol=1e-3)
    assert dice(np.asarray(back.dataobj) > 0, np.asarray(scan.dataobj) != 0) > 0.9
