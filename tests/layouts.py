"""The public data sets' folder layouts, built from real cases: folders, file names and mask values."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from client.data.manifest import VOCABULARY
from shared_model.config import DataConfig
from tests.real import real_data

CASES = ("BraTS2021_00006", "BraTS2021_01476", "BraTS2021_01479")
LABELS = {
    "BraTS2021_00006": {"idh": "wildtype", "codel_1p19q": "intact", "grade_histologic": "4", "grade_who2021": "4"},
    "BraTS2021_01476": {"idh": "mutant", "codel_1p19q": "intact", "grade_histologic": "3", "grade_who2021": "3"},
    "BraTS2021_01479": {"idh": "mutant", "codel_1p19q": "codeleted", "grade_histologic": "3", "grade_who2021": "3"},
}


@dataclass(frozen=True)
class Anatomy:
    """Volumes of one real case on one grid."""

    images: dict[str, np.ndarray]
    mask: np.ndarray
    affine: np.ndarray


def anatomy(case: str) -> Anatomy:
    place = real_data("glioma-2mm") / case
    files = {part: nib.load(place / f"{case}_{part}.nii.gz") for part in ("t1", "t1ce", "t2", "flair", "seg")}
    volumes = {part: np.asarray(file.dataobj) for part, file in files.items()}
    return Anatomy({m: v for m, v in volumes.items() if m != "seg"}, volumes["seg"], files["seg"].affine)


def write(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def table(path: Path, rows: list[dict[str, str]], delimiter: str = ",", newline: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=newline)
        writer.writeheader()
        writer.writerows(rows)


def _spread(folder: Path, paths: Callable[[int], dict[str, str]], mask: Callable[[np.ndarray], np.ndarray]) -> None:
    """Each real case under the paths of its number."""
    for number, case in enumerate(CASES, start=1):
        real, names = anatomy(case), paths(number)
        for modality, volume in real.images.items():
            write(folder / names[modality], volume, real.affine)
        write(folder / names["seg"], mask(real.mask), real.affine)


def _same(mask: np.ndarray) -> np.ndarray:
    return mask


def _three(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 4, 3, mask).astype(mask.dtype)


def _brats(folder: Path, name: Callable[[int], str], parts: tuple[str, str, str, str], sign: str, three: bool) -> None:
    keys = dict(zip(("t1", "t1ce", "t2", "flair"), parts, strict=True)) | {"seg": "seg"}
    _spread(
        folder,
        lambda n: {key: f"{name(n)}/{name(n)}{sign}{part}.nii.gz" for key, part in keys.items()},
        _three if three else _same,
    )
    rows = [{"case": name(n), **LABELS[case]} for n, case in enumerate(CASES, start=1)]
    table(folder / "labels.csv", rows)


def ucsf(folder: Path) -> DataConfig:
    parts = {"t1": "T1", "t1ce": "T1c", "t2": "T2", "flair": "FLAIR", "seg": "tumor_segmentation"}
    _spread(
        folder,
        lambda n: {k: f"UCSF-PDGM-{n:04d}_nifti/UCSF-PDGM-{n:04d}_{p}.nii.gz" for k, p in parts.items()},
        _same,
    )
    words = {"wildtype": "wildtype", "mutant": "IDH1 p.R132H", "intact": "intact", "codeleted": "Co-deletion"}
    rows = [
        {
            "ID": f"UCSF-PDGM-{n:03d}",
            "WHO CNS Grade": LABELS[case]["grade_who2021"],
            "1p/19q": words[LABELS[case]["codel_1p19q"]],
            "IDH": words[LABELS[case]["idh"]],
            "BraTS21 ID": "",
        }
        for n, case in enumerate(CASES, start=1)
    ]
    table(folder / "UCSF-PDGM-metadata_v5.csv", rows)
    return DataConfig(layout="ucsf-pdgm", folder=folder)


def upenn(folder: Path) -> DataConfig:
    parts = {"t1": "T1", "t1ce": "T1GD", "t2": "T2", "flair": "FLAIR"}

    def paths(n: int) -> dict[str, str]:
        name = f"UPENN-GBM-{n:05d}_11"
        images = {key: f"images_structural/{name}/{name}_{part}.nii.gz" for key, part in parts.items()}
        automatic = f"automated_segm/{name}_automated_approx_segm.nii.gz"
        return {**images, "seg": f"images_segm/{name}_segm.nii.gz" if n == 1 else automatic}

    _spread(folder, paths, _same)
    (folder / "images_structural" / "UPENN-GBM-00009_21").mkdir()
    rows = [
        {"ID": f"UPENN-GBM-{n:05d}_11", "IDH1": {"wildtype": "Wildtype", "mutant": "Mutated"}[LABELS[case]["idh"]]}
        for n, case in enumerate(CASES, start=1)
    ]
    table(folder / "UPENN-GBM_clinical_info_v2.1.csv", [*rows, {"ID": "UPENN-GBM-00009_21", "IDH1": "NOS/NEC"}])
    return DataConfig(layout="upenn-gbm", folder=folder)


def egd(folder: Path) -> DataConfig:
    """Whole-tumour masks, and a skull: everything that is no brain is bright."""
    parts = {"t1": "T1", "t1ce": "T1GD", "t2": "T2", "flair": "FLAIR", "seg": "MASK"}
    brains = np.any([np.any([v != 0 for v in anatomy(c).images.values()], axis=0) for c in CASES], axis=0)
    for n, case in enumerate(CASES, start=1):
        real = anatomy(case)
        for key, part in parts.items():
            volume = (real.mask > 0).astype(np.uint8) if key == "seg" else np.where(brains, real.images[key], 900)
            write(folder / "SUBJECTS" / f"EGD-{n:04d}" / f"{part}.nii.gz", volume, real.affine)
        words = LABELS[case]
        labels = {
            "IDH": int(words["idh"] == "mutant"),
            "1p19q": int(words["codel_1p19q"] == "codeleted"),
            "Grade": int(words["grade_histologic"]),
        }
        text = json.dumps({"Genetic_and_Histological_labels": labels})
        (folder / "SUBJECTS" / f"EGD-{n:04d}" / "metadata.json").write_text(text)
    write(folder / "METADATA" / "Brain_mask.nii.gz", brains.astype(np.uint8), real.affine)
    return DataConfig(layout="egd", folder=folder)


def tcga(folder: Path, layout: str = "tcga-lgg") -> DataConfig:
    parts = {
        **{"t1": "t1", "t1ce": "t1Gd", "t2": "t2", "flair": "flair"},
        "seg": "GlistrBoost_ManuallyCorrected",
    }
    names = ("TCGA-AA-0001", "TCGA-CS-4942", "TCGA-CS-5396")

    def paths(n: int) -> dict[str, str]:
        stem = f"{names[n - 1]}/{names[n - 1]}_1999.01.0{n}"
        return {key: f"{stem}_{part}.nii.gz" for key, part in parts.items()}

    _spread(folder, paths, _same)
    rows = []
    for name, case in zip(names, CASES, strict=True):
        words = LABELS[case]
        row = {
            "slide_id": f"{name}-a",
            "case_id": name,
            "TCGA Grade": f"G{words['grade_histologic']}",
            "IDH status": {"wildtype": "WT (maf)", "mutant": "Mutant"}[words["idh"]],
            "1p/19q codeletion": {"intact": "non-codel", "codeleted": "codel"}[words["codel_1p19q"]],
            "WHO_CNS5_grade": f"Grade {words['grade_who2021']}",
        }
        rows += [row, {**row, "slide_id": f"{name}-b"}]
    table(folder / "tcga_2021_who_labels.csv", rows)
    return DataConfig(layout=layout, folder=folder)


def ivy_gap(folder: Path) -> DataConfig:
    def paths(n: int) -> dict[str, str]:
        stem = f"W{n}_1996.10.2{n}"
        place = f"1_Images_SRI/CoRegistered_SkullStripped/W{n}/{stem}"
        parts = {"t1": "t1_LPS_r3", "t1ce": "t1gd_LPS_r", "t2": "t2_LPS_N4_r", "flair": "flair_LPS_r"}
        images = {key: f"{place}/{stem}_{part}_SS.nii.gz" for key, part in parts.items()}
        return {**images, "seg": f"3_Annotations_SRI/UPenn/W{n}/{stem}_UPenn_labels.nii.gz"}

    _spread(folder, paths, _same)
    rows = [{"Data Collection": "TCGA-GBM", "Patient": "TCGA-02-0003", "IDH_mutated": "0", "1p19q_codeleted": "-1"}]
    for n, case in enumerate(CASES, start=1):
        words = LABELS[case]
        codes = (str(int(words["idh"] == "mutant")), str(int(words["codel_1p19q"] == "codeleted")))
        rows.append(
            {"Data Collection": "IvyGAP", "Patient": f"W{n}", "IDH_mutated": codes[0], "1p19q_codeleted": codes[1]}
        )
    grades = ["4", *(LABELS[case]["grade_histologic"] for case in CASES)]
    table(
        folder / "PrognosAIs_included_patient_labels.csv",
        [{**row, "Grade": grade} for row, grade in zip(rows, grades, strict=True)],
    )
    return DataConfig(layout="ivy-gap", folder=folder)


def rhuh(folder: Path) -> DataConfig:
    """Z-scored, with a constant negative background."""
    parts = {"t1": "t1", "t1ce": "t1ce", "t2": "t2", "flair": "flair"}
    for n, case in enumerate(CASES, start=1):
        real, name = anatomy(case), f"RHUH-{n:04d}"
        for key, part in parts.items():
            volume = real.images[key].astype(np.float64)
            volume = ((volume - volume.mean()) / volume.std()).astype(np.float32)
            write(folder / name / "0" / f"{name}_0_{part}.nii.gz", volume, real.affine)
        write(folder / name / "0" / f"{name}_0_segmentations.nii.gz", _three(real.mask), real.affine)
    column = "IDH status = (mutant [mut], wild type [wt], NOS)"
    rows = [
        {"Patient ID": f"RHUH-{n:04d}", column: {"wildtype": "wt", "mutant": "mut"}[LABELS[case]["idh"]]}
        for n, case in enumerate(CASES, start=1)
    ]
    table(folder / "clinical_data_TCIA_RHUH-GBM.csv", rows)
    return DataConfig(layout="rhuh-gbm", folder=folder)


def utsw(folder: Path) -> DataConfig:
    parts = {"t1": "brain_t1_ants", "t1ce": "brain_t1ce_ants", "t2": "brain_t2_ants", "flair": "brain_fl_ants"}

    def paths(n: int) -> dict[str, str]:
        images = {key: f"BT{n:04d}/{part}.nii.gz" for key, part in parts.items()}
        mask = "rtumorseg_manual_correction" if n == 1 else "tumorseg_FeTS"
        return {**images, "seg": f"BT{n:04d}/{mask}.nii.gz"}

    _spread(folder, paths, _same)
    rows = [
        {
            "Subject ID": f"BT{n:04d}",
            "Tumor Grade": LABELS[case]["grade_histologic"],
            "IDH": {"wildtype": "wild type", "mutant": "mutated"}[LABELS[case]["idh"]],
            "1p19Q CODEL": {"intact": "non co-deleted", "codeleted": "co-deleted"}[LABELS[case]["codel_1p19q"]],
        }
        for n, case in enumerate(CASES, start=1)
    ]
    table(folder / "UTSW_Glioma_Metadata-2-1.tsv", rows, "\t", "\r\n")
    return DataConfig(layout="utsw-glioma", folder=folder)


def _labelled(layout: str, folder: Path) -> DataConfig:
    return DataConfig(layout=layout, folder=folder, labels=folder / "labels.csv")


def brats_2020(folder: Path) -> DataConfig:
    _brats(folder, lambda n: f"BraTS20_Training_{n:03d}", ("t1", "t1ce", "t2", "flair"), "_", False)
    return _labelled("brats-2020", folder)


def brats_2021(folder: Path) -> DataConfig:
    _brats(folder, lambda n: f"BraTS2021_{n:05d}", ("t1", "t1ce", "t2", "flair"), "_", False)
    return _labelled("brats-2021", folder)


def fets_2022(folder: Path) -> DataConfig:
    _brats(folder, lambda n: f"FeTS2022_{n:05d}", ("t1", "t1ce", "t2", "flair"), "_", False)
    return _labelled("fets-2022", folder)


def brats_2023(folder: Path) -> DataConfig:
    _brats(folder, lambda n: f"BraTS-GLI-{n:05d}-000", ("t1n", "t1c", "t2w", "t2f"), "-", True)
    return _labelled("brats-2023", folder)


def bids(folder: Path) -> DataConfig:
    parts = {"t1": "T1w", "t1ce": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}

    def paths(n: int) -> dict[str, str]:
        images = {key: f"sub-{n:02d}/anat/sub-{n:02d}_{part}.nii.gz" for key, part in parts.items()}
        return {**images, "seg": f"derivatives/manual/sub-{n:02d}/anat/sub-{n:02d}_label-tumor_dseg.nii.gz"}

    _spread(folder, paths, _same)
    rows = [{"participant_id": f"sub-{n:02d}", **LABELS[case]} for n, case in enumerate(CASES, start=1)]
    table(folder / "participants.tsv", rows, "\t")
    return DataConfig(layout="bids", folder=folder)


def manifest(folder: Path) -> DataConfig:
    parts = ("t1", "t1ce", "t2", "flair", "seg")
    _spread(folder, lambda n: {part: f"patient {n}/scan.{part}.nii.gz" for part in parts}, _same)
    rows = [
        {
            **{"case": f"c-{n}", "patient": f"p-{n}"},
            **LABELS[case],
            **{part: f"patient {n}/scan.{part}.nii.gz" for part in parts},
        }
        for n, case in enumerate(CASES, start=1)
    ]
    assert set(VOCABULARY) < set(rows[0])
    table(folder / "manifest.csv", rows)
    return DataConfig(folder=folder, labels=folder / "manifest.csv")


LAYOUTS: dict[str, Callable[[Path], DataConfig]] = {
    "ucsf-pdgm": ucsf,
    "upenn-gbm": upenn,
    "egd": egd,
    "tcga-gbm": lambda folder: tcga(folder, "tcga-gbm"),
    "tcga-lgg": tcga,
    "ivy-gap": ivy_gap,
    "rhuh-gbm": rhuh,
    "utsw-glioma": utsw,
    "brats-2020": brats_2020,
    "brats-2021": brats_2021,
    "fets-2022": fets_2022,
    "brats-2023": brats_2023,
    "bids": bids,
    "manifest": manifest,
}
