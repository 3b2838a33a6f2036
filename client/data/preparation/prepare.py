"""Scanner-space cases to one grid of 1 mm without skulls, each whole or not at all; what is done is not done again.

DATA/CASE/  CASE_t1.nii.gz ... CASE_seg.nii.gz   on the MNI grid, rigidly placed, zero outside the brain
            to_anchor.mat, to_<modality>.mat     transforms, from the MNI grid to the anchor and on to each scan
            prepared.json                        what it was made from, and the grid of each scan
"""

import csv
import io
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from client.data.cache import content_hash
from client.data.cases import LABELS, Case, Finding
from client.data.checks import HEAD_LITRES
from client.data.loading import files_of, read_volume
from client.data.manifest import COLUMNS, PATHS, VOCABULARY, label_name
from client.data.preparation.dicom import convert
from client.data.reading import read
from shared_model.checkpoint import commit_folder, read_json, write_bytes, write_json
from shared_model.config import SiteConfig
from shared_model.errors import ConfigError, DataError
from shared_model.tasks import MODALITIES

VERSION = 1
ANCHORS = ("t1ce", "t1", "t2", "flair")
"""The first that a case has is registered to the template, and the others to it."""


def prepare_site(
    config: SiteConfig, processes: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Finding]:
    """Prepare every case of `config.raw` that is not yet prepared, and write the manifest `config.data.labels`.

    Returns:
        An error for each case that could not be prepared; the others are.

    Raises:
        ConfigError: no raw data configured, or source and target overlap.
        DataError: the raw table cannot be read.
    """
    raw, data = config.raw, config.data
    if raw is None:
        raise ConfigError("raw: is missing", "say there where the scans lie that should be prepared")
    if data.layout != "manifest" or data.labels is None:
        raise ConfigError("data.layout: prepared data is a manifest", "leave data.layout out, and name data.labels")
    source, target = raw.folder.resolve(), data.folder.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target) or data.labels == raw.labels:
        raise ConfigError("data.folder: lies within raw.folder, or around it", "name a folder apart; originals stay")
    reading = read(raw, series=True)
    findings = [finding for finding in reading.findings if finding.severity == "error"]
    prepared = []
    done, total = 0, len(reading.cases)
    progress(0, total)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        work = {pool.submit(prepare_case, case, data.folder): case for case in reading.cases}
        for future in as_completed(work):
            case = work[future]
            try:
                future.result()
                prepared.append(case)
            except DataError as error:
                findings.append(Finding.of(error))
            except BrokenProcessPool:
                findings.append(Finding("error", f"case {case.id}", "its process ended", "free memory, and run again"))
            except Exception as error:  # one case that ANTs cannot do must not end the others
                what = f"cannot be registered ({type(error).__name__})"
                findings.append(Finding("error", f"case {case.id}", what, "look at its scans, and run again"))
            done += 1
            progress(done, total)
    prepared.sort(key=lambda case: reading.cases.index(case))
    _write_manifest(prepared, data.labels)
    return findings


def _sources(case: Case) -> dict[str, list[str]]:
    """Content hashes of a case's files; of all files of a DICOM series."""

    def files(path: Path) -> list[Path]:
        return sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]

    return {name: [content_hash(file) for file in files(path)] for name, path in files_of(case).items()}


def prepare_case(case: Case, target: Path) -> None:
    """Prepare one case, unless its folder says that it was, from these files and by this version.

    Raises:
        DataError: naming the file that cannot be used.
    """
    place = target / case.id
    made_from = {"version": VERSION, "sources": _sources(case)}
    if (place / "prepared.json").exists() and _facts(place).get("made from") == made_from:
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{case.id}-", dir=target) as work:
        part = Path(work) / "case"
        part.mkdir()
        paths = {
            name: convert(path, Path(work) / name) if path.is_dir() else path for name, path in files_of(case).items()
        }
        facts = _register(case.id, paths, case.mask, part)
        write_json(part / "prepared.json", {"made from": made_from, **facts})
        commit_folder(part, place)


def _facts(case: Path) -> dict[str, Any]:
    """What is said of a prepared case.

    Raises:
        DataError: not readable.
    """
    try:
        found: dict[str, Any] = read_json(case / "prepared.json")
        return found
    except (OSError, ValueError):
        raise DataError(f"{case / 'prepared.json'}: cannot be read", "delete this folder, and prepare again") from None


def _register(name: str, paths: dict[str, Path], mask: Path | None, part: Path) -> dict[str, object]:
    from client.data.preparation import registration as reg

    scans = {key: read_volume(path) for key, path in paths.items() if key in MODALITIES}
    anchor = next(key for key in ANCHORS if key in scans)
    images = {key: reg.to_image(volume, affine) for key, (volume, affine) in scans.items()}
    stripped = _is_stripped(*scans[anchor])
    found = reg.to_template(images[anchor], stripped, part / "to_anchor.mat")
    brain = scans[anchor][0] != 0 if found is None else found
    grid, affine = reg.grid()
    way = [part / "to_anchor.mat"]
    on_grid = reg.resample(reg.to_image(brain, scans[anchor][1]), grid, way).numpy() > 0.5
    for key, image in images.items():
        there = way
        if key != anchor:
            there = [*way, part / f"to_{key}.mat"]
            reg.rigid(images[anchor], image, there[-1])
        placed = reg.resample(image, grid, there).numpy()
        reg.write(np.where(on_grid, placed, 0), affine, part / f"{name}_{key}.nii.gz", np.float32)
    if mask is not None:
        volume, mask_affine = read_volume(paths["seg"])
        scan = _same_grid(paths["seg"], volume, mask_affine, scans)
        there = way if scan == anchor else [*way, part / f"to_{scan}.mat"]
        placed = reg.resample(reg.to_image(volume, mask_affine), grid, there, labels=True).numpy()
        reg.write(placed, affine, part / f"{name}_seg.nii.gz", np.uint8)
    return {
        "anchor": anchor,
        "brain": "was extracted before" if stripped else "extracted here",
        "scans": {key: {"shape": list(v.shape), "affine": a.tolist()} for key, (v, a) in scans.items()},
    }


def _is_stripped(volume: np.ndarray, affine: np.ndarray) -> bool:
    """Whether a scan holds a brain alone: much of it zero, and what is not fits into a brain."""
    litres = float((volume != 0).sum()) * abs(float(np.linalg.det(affine[:3, :3]))) / 1e6
    return bool((volume == 0).mean() > 0.3 and litres < HEAD_LITRES)


def _same_grid(
    path: Path, volume: np.ndarray, affine: np.ndarray, scans: dict[str, tuple[np.ndarray, np.ndarray]]
) -> str:
    """The modality on whose grid a segmentation was drawn."""
    for key in ANCHORS:
        if key in scans and scans[key][0].shape == volume.shape and np.allclose(scans[key][1], affine, atol=1e-2):
            return key
    raise DataError(f"{path}: lies on the grid of none of the scans", "save it on the grid of the scan it was drawn on")


def _write_manifest(cases: list[Case], path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*COLUMNS, *PATHS))
    for case in cases:
        labels = [case.labels[label_name(column)] for column in VOCABULARY]
        words = [
            "" if value < 0 else LABELS[label_name(column)][value]
            for column, value in zip(VOCABULARY, labels, strict=True)
        ]
        files = [f"{case.id}/{case.id}_{part}.nii.gz" if part in files_of(case) else "" for part in PATHS]
        table.writerow((case.id, case.patient, *words, *files))
    write_bytes(path, text.getvalue().encode())


def to_scan(case: Path, labels: np.ndarray, modality: str, out: Path) -> None:
    """Bring a segmentation of a prepared case back to the grid of one of its scans.

    Args:
        case: folder of the prepared case.
        labels: (197, 233, 189) on its grid.

    Raises:
        DataError: the case has no such scan.
    """
    from client.data.preparation import registration as reg

    facts = _facts(case)
    if modality not in facts["scans"]:
        raise DataError(f"{case}: was prepared without {modality}", f"use one of {', '.join(facts['scans'])}")
    _, affine = reg.grid()
    native = np.array(facts["scans"][modality]["affine"])
    reference = reg.to_image(np.zeros(facts["scans"][modality]["shape"], np.float32), native)
    way = [case / "to_anchor.mat"] + ([] if modality == facts["anchor"] else [case / f"to_{modality}.mat"])
    placed = reg.resample(reg.to_image(labels, affine), reference, way, labels=True, back=True).numpy()
    reg.write(placed, native, out, np.uint8)
