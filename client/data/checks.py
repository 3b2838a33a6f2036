"""The preflight of a site's data: every case opened and looked at, every finding with a remedy.

The bounds of the contrast checks leave a margin to what real gliomas show: over eight pre-operative BraTS cases, FLAIR
inside the tumour lies 1.1 to 2.6 standard deviations above the brain's mean, and the brightest healthy 2 % of T2
(cerebrospinal fluid) lie 0.4 to 2.0 below it on FLAIR.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.data.cache import content_hash
from client.data.cases import Case, Finding, LeftOut, Severity, counts, has_label
from client.data.datasets import datasets
from client.data.loading import Files, LoadedCase, assemble, files_of, read_volume
from client.data.phi import scan_header, scan_name, scan_sidecar, sidecars
from client.data.reading import read
from client.withdrawal import Withdrawals
from shared_model.config import SiteConfig
from shared_model.disclosure import rounded_down
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES, TASKS

HEAD_LITRES = 2.6
"""A brain has less; voxels that are not zero and fill more hold a skull."""
SATURATED = 0.005
"""Share of the brain at one modality's largest value from which on it is called saturated."""
OUTLIER = 30.0
"""Standard deviations; beyond, a single voxel decides the scale of a modality."""
OUTSIDE = 0.05
"""Share of a mask outside the brain from which on it is called another patient's."""


@dataclass
class Report:
    """What the preflight found.

    Attributes:
        cases: usable cases.
        findings: worst first.
        left_out: rows and folders that give no case.
        counts: cases of each region, and of each class of each label.
    """

    cases: int
    patients: int
    findings: list[Finding] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def number(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def sort(self) -> None:
        order = ("error", "warning", "note")
        self.findings.sort(key=lambda finding: order.index(finding.severity))


def check_site(config: SiteConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Open every case of a site.

    Raises:
        DataError, ConfigError: the table or folder as a whole cannot be read.
    """
    reading = read(config.data)
    report = Report(len(reading.cases), len({case.patient for case in reading.cases}), list(reading.findings))
    report.left_out, report.counts = reading.left_out, counts(reading.cases)
    hashes: dict[str, list[str]] = defaultdict(list)
    spacings: Counter[tuple[float, ...]] = Counter()
    with ThreadPoolExecutor(4) as pool:
        for done, looked in enumerate(pool.map(look_at, reading.cases), start=1):
            report.findings += looked.findings
            spacings.update([looked.spacing] if looked.spacing else [])
            for digest, name in looked.hashes:
                hashes[digest].append(name)
            progress(done, len(reading.cases))
    report.findings += _duplicates(hashes)
    report.findings += _names(config, reading.cases)
    report.findings += _tasks(config, reading.cases)
    report.findings += _withdrawn(config)
    if len(spacings) > 1:
        sizes = ", ".join(f"{'x'.join(f'{side:g}' for side in size)} ({n})" for size, n in spacings.most_common(4))
        what = f"voxels differ in size between cases: {sizes} mm"
        report.findings.append(
            Finding("warning", str(config.data.folder), what, "bring all to one size with mtsunet-client prepare")
        )
    report.sort()
    return report


@dataclass(frozen=True)
class Looked:
    """What one case showed: findings, spacing in mm (none if unreadable), and (hash, modality file) pairs."""

    findings: list[Finding]
    spacing: tuple[float, ...]
    hashes: list[tuple[str, str]]


def look_at(case: Case) -> Looked:
    """All findings of one case's files."""
    findings: list[Finding] = []
    files: Files = {}
    hashes = []
    paths = files_of(case)
    for name, path in paths.items():
        findings += scan_header(path)
        try:
            files[name] = read_volume(path)
        except DataError as error:
            findings.append(Finding.of(error))
        else:
            if name != "brain":
                hashes.append((content_hash(path), str(path)))
    if len(files) < len(paths):
        return Looked(findings, (), hashes)
    try:
        loaded = assemble(case, files)
    except DataError as error:
        return Looked([*findings, Finding.of(error)], (), hashes)
    spacing = tuple(float(round(side, 2)) for side in np.linalg.norm(loaded.grid.affine[:3, :3], axis=0))
    findings += look_inside(case, files, loaded) + _anatomy(case, loaded)
    return Looked(findings, spacing, hashes)


def look_inside(case: Case, files: Files, loaded: LoadedCase) -> list[Finding]:
    """What can be seen without a segmentation: intensities, background, and a skull."""
    return _intensities(case, files) + _skull(case, loaded)


def _intensities(case: Case, files: Files) -> list[Finding]:
    """Saturation, outliers, and a background that is not zero."""
    found = []
    for name, path in case.images.items():
        volume = files[name][0]
        corner = volume[0, 0, 0]
        if case.background == "zero" and corner != 0 and (volume == corner).mean() > 0.2:
            remedy = "set what is no brain to zero, e.g. with mtsunet-client prepare"
            found.append(Finding("error", str(path), f"its background is {corner:g} and not zero", remedy))
            continue
        inside = volume[volume != (corner if case.background == "corner" else 0)]
        share = float((inside == inside.max()).mean())
        if share > SATURATED:
            what = f"{share:.1%} of its voxels have its largest value, {inside.max():g}: saturated"
            found.append(Finding("warning", str(path), what, "convert it again with a larger data type"))
        elif inside.std() > 0 and (peak := float(np.abs(inside - inside.mean()).max() / inside.std())) > OUTLIER:
            what = f"one voxel lies {peak:.0f} standard deviations from the mean"
            found.append(Finding("warning", str(path), what, "clip outliers, or convert it again"))
    return found


def _skull(case: Case, loaded: LoadedCase) -> list[Finding]:
    litres = float((loaded.image[:] != 0).any(0).sum() * abs(np.linalg.det(loaded.grid.affine[:3, :3])) / 1e6)
    if litres <= HEAD_LITRES:
        return []
    what = f"{litres:.1f} litres are not zero: it is not skull-stripped"
    return [Finding("error", f"case {case.id}", what, "extract the brain, e.g. with mtsunet-client prepare")]


def _anatomy(case: Case, loaded: LoadedCase) -> list[Finding]:
    """Mask and contrasts that do not fit."""
    where = f"case {case.id}"
    image = loaded.image[:].astype(np.float32)  # (4, D, H, W)
    brain = (image != 0).any(0)
    found = []
    tumor = loaded.regions[:][0].astype(bool) if loaded.region_known[0] else np.zeros_like(brain)
    if tumor.any() and (share := float((tumor & ~brain).sum() / tumor.sum())) > OUTSIDE:
        what = f"{share:.0%} of the segmentation lies outside the brain"
        found.append(Finding("error", where, what, "check that the segmentation is this patient's"))
    found += [Finding("warning", where, what, remedy) for what, remedy in _contrasts(loaded, image, brain, tumor)]
    return found


def _contrasts(loaded: LoadedCase, image: np.ndarray, brain: np.ndarray, tumor: np.ndarray) -> list[tuple[str, str]]:
    """What the contrasts say against the names of the modalities, and against the mask."""
    volumes = {name: volume for name, volume, there in zip(MODALITIES, image, loaded.present, strict=True) if there}
    healthy = brain & ~tumor
    if not healthy.any():
        return [("the segmentation fills the brain", "check the segmentation")]

    def of(name: str, at: np.ndarray) -> float:
        return float(np.median(volumes[name][at])) if at.any() else float("nan")

    def bright(name: str) -> np.ndarray:
        return np.asarray(healthy & (volumes[name] > np.percentile(volumes[name][healthy], 98)))

    swapped = "check which is which, and rename them"
    found = []
    if {"t2", "flair"} <= set(volumes) and of("flair", bright("t2")) > of("t2", bright("flair")):
        found.append(("t2 and flair look swapped: fluid is bright on flair", swapped))
    elif {"t1", "t2"} <= set(volumes) and of("t1", bright("t2")) > of("t2", bright("t1")):
        found.append(("t1 and t2 look swapped: fluid is bright on t1", swapped))
    elif {"t1", "flair"} <= set(volumes) and of("t1", tumor) > max(0.5, of("flair", tumor)):
        found.append(("t1 and flair look swapped: the tumour is brighter on t1", swapped))
    elif "flair" in volumes and of("flair", tumor) < 0.5:
        found.append(("the segmentation is not bright on flair", "check that it is this patient's"))
    enhancing = loaded.regions[:][2].astype(bool)
    if {"t1", "t1ce"} <= set(volumes) and enhancing.sum() >= 50 and of("t1", enhancing) > of("t1ce", enhancing):
        found.append(("t1 and t1ce look swapped: what enhances is brighter on t1", swapped))
    return found


def _duplicates(hashes: dict[str, list[str]]) -> list[Finding]:
    return [
        Finding("error", names[0], f"has the same content as {names[1]}", "keep one, and find the file that is missing")
        for names in hashes.values()
        if len(names) > 1
    ]


def _names(config: SiteConfig, cases: Sequence[Case]) -> list[Finding]:
    """Names and sidecars; those of public data sets are published, and their names are left alone."""
    if config.data.layout in datasets():
        return []
    files = [path for case in cases for path in files_of(case).values()]
    found = [finding for path in files for finding in scan_name(path, config.data.folder)]
    for folder in sorted({path.parent for path in files}):
        for path in sidecars(folder):
            found += scan_sidecar(path)
    seen: set[tuple[str, str]] = set()
    unique = []
    for finding in found:
        # a folder's name is reported once, not with each of its files
        where = str(Path(finding.where).parent) if "folder" in finding.what else finding.where
        mark = (where, finding.what)
        if mark not in seen:
            seen.add(mark)
            unique.append(finding)
    return unique


def _withdrawn(config: SiteConfig) -> list[Finding]:
    """Runs that patients took part in who have withdrawn since."""
    runs = Counter(run for part in Withdrawals(config.state).patients.values() for run in part)
    return [
        Finding("note", f"run {run}", f"{count} withdrawn patients took part", "its released models hold them")
        for run, count in sorted(runs.items())
    ]


def _tasks(config: SiteConfig, cases: Sequence[Case]) -> list[Finding]:
    """Declared tasks without labels, and labels of tasks that are not declared."""
    found = []
    for name, task in TASKS.items():
        labelled = sum(has_label(case, name) for case in cases)
        usable = rounded_down(labelled, config.minimum_cell)
        if name in config.tasks and not usable:
            what = f"{task.title}: {labelled} labelled cases, fewer than the minimum cell of {config.minimum_cell}"
            found.append(Finding("warning", "tasks", what, f"it will not be trained; add labels, or drop {name}"))
        elif name not in config.tasks and usable:
            what = f"{task.title}: {labelled} labelled cases, and the task is not declared"
            found.append(Finding("note", "tasks", what, f"add {name} to tasks if it should be trained"))
    return found
