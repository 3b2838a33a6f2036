"""A BIDS folder: sub-*/anat (or sub-*/ses-*/anat) with T1w, ce-*_T1w, T2w, FLAIR; labels in participants.tsv.

Segmentations lie beside the images or below derivatives/*/ in the same folders, as *_dseg.nii.gz or *_mask.nii.gz
whose name holds `tumor` or `lesion`. participants.tsv holds participant_id and the label columns of a manifest; n/a and
blank are unknown. A subject with several sessions has to be told apart by data.cases: one of them is before surgery.
"""

import re
from pathlib import Path

from client.data.cases import (
    CONFLICT_REMEDY,
    NOT_CHOSEN,
    UNKNOWN,
    Case,
    Finding,
    GradeEdition,
    LeftOut,
    Reading,
    conflict,
)
from client.data.manifest import VOCABULARY, label_name, read_label
from client.data.tables import is_file, read_table
from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES

SUFFIXES = {"t1": "T1w", "t1ce": "T1w", "t2": "T2w", "flair": "FLAIR"}
_ENTITY = re.compile(r"(?:^|_)ce-[A-Za-z0-9]+(?=_)")
_TUMOR = re.compile(r"(tumou?r|lesion)", re.IGNORECASE)


def read_bids(data: DataConfig, edition: GradeEdition) -> Reading:
    """One case for each subject, or for each session named in data.cases.

    Raises:
        DataError: no such folder, no subject, or participants.tsv cannot be read.
    """
    reading = Reading()
    try:
        subjects = sorted(p for p in data.folder.iterdir() if p.is_dir() and re.fullmatch(r"sub-[A-Za-z0-9]+", p.name))
    except OSError:
        raise DataError(f"{data.folder}: no such folder, or not readable", "check data.folder") from None
    if not subjects:
        raise DataError(f"{data.folder}: holds no sub-* folder", "name the root of the BIDS data set")
    labels = _labels(data, reading)
    for subject in subjects:
        try:
            reading.cases += _cases(data, edition, subject, labels, reading)
        except DataError as error:
            reading.findings.append(Finding.of(error))
    known = {subject.name for subject in subjects}
    reading.left_out += [LeftOut(f"participants.tsv: {name}", "no folder") for name in labels if name not in known]
    return reading


def _labels(data: DataConfig, reading: Reading) -> dict[str, dict[str, int]]:
    """Participant -> labels; a participant with a faulty label becomes a finding and has none."""
    table = data.labels or data.folder / "participants.tsv"
    columns = tuple(VOCABULARY)
    found: dict[str, dict[str, int]] = {}
    hint = f"; its columns are participant_id, {', '.join(columns)}"
    for number, row in read_table(table, ("participant_id", *columns), delimiter="\t", hint=hint):
        where, name = f"{table}: row {number}", row["participant_id"]
        name = name if name.startswith("sub-") else f"sub-{name}"
        try:
            words = {column: "" if row[column].lower() == "n/a" else row[column] for column in columns}
            labels = {label_name(column): read_label(where, column, word) for column, word in words.items()}
            if said := conflict(labels):
                raise DataError(f"{where}, columns idh and codel_1p19q: {said}", CONFLICT_REMEDY)
            if name in found:
                raise DataError(f"{where}, column participant_id: '{name}' stands twice", "keep one row for each")
            found[name] = labels
        except DataError as error:
            reading.findings.append(Finding.of(error))
    return found


def _cases(
    data: DataConfig, edition: GradeEdition, subject: Path, labels: dict[str, dict[str, int]], reading: Reading
) -> list[Case]:
    """The subject's case; several if data.cases names several of its sessions."""
    sessions = sorted(p for p in subject.iterdir() if p.is_dir() and re.fullmatch(r"ses-[A-Za-z0-9]+", p.name))
    places = {f"{subject.name}_{session.name}": session for session in sessions} or {subject.name: subject}
    if data.cases is not None:
        reading.left_out += [LeftOut(name, NOT_CHOSEN) for name in places if name not in data.cases]
        places = {name: place for name, place in places.items() if name in data.cases}
    if len(places) > 1 and data.cases is None:
        raise DataError(
            f"{subject}: has {len(places)} sessions",
            f"name the one before surgery in data.cases, e.g. {next(iter(places))}",
        )
    if subject.name not in labels and places:
        said = "is not in participants.tsv"
        reading.findings.append(Finding("note", f"case {subject.name}", said, "its labels are unknown; add a row"))
    return [_case(data, edition, subject, name, place, labels, reading) for name, place in places.items()]


def _case(
    data: DataConfig,
    edition: GradeEdition,
    subject: Path,
    name: str,
    place: Path,
    labels: dict[str, dict[str, int]],
    reading: Reading,
) -> Case:
    images = {m: path for m in MODALITIES if (path := image_file(place / "anat", name, m)) is not None}
    if not images:
        raise DataError(f"{place / 'anat'}: none of T1w, ce-*_T1w, T2w and FLAIR is there", "check the names")
    for modality in MODALITIES:
        if modality not in images:
            reading.findings.append(
                Finding("warning", f"case {name}", f"has no {modality}", "it is used without; check the file's name")
            )
    mask = None if name in data.without_mask else _mask(data.folder, place, name)
    if mask is None:
        reading.findings.append(
            Finding("note", f"case {name}", "has no segmentation", "it trains the class tasks alone")
        )
    return Case(
        id=name,
        patient=subject.name,
        images=images,
        mask=mask,
        labels=labels.get(subject.name, UNKNOWN),
        grade_edition=edition,
        mask_values=data.masks or "regions",
    )


def image_file(anat: Path, name: str, modality: str) -> Path | None:
    """The one file of a modality; a T1w is contrast-enhanced if and only if its name has a ce entity."""
    files = sorted(anat.glob(f"{name}_*{SUFFIXES[modality]}.nii.gz")) + sorted(
        anat.glob(f"{name}_*{SUFFIXES[modality]}.nii")
    )
    if modality in ("t1", "t1ce"):
        files = [path for path in files if (_ENTITY.search(path.name) is not None) == (modality == "t1ce")]
    return _only([path for path in files if is_file(path)], anat, modality)


def _mask(root: Path, place: Path, name: str) -> Path | None:
    below = place.relative_to(root)
    folders = [place / "anat", *sorted((root / "derivatives").glob(f"*/{below.as_posix()}/anat"))]
    files = [p for folder in folders for end in ("dseg", "mask") for p in sorted(folder.glob(f"{name}_*{end}.nii.gz"))]
    return _only([path for path in files if _TUMOR.search(path.name) and is_file(path)], place, "segmentation")


def _only(files: list[Path], folder: Path, what: str) -> Path | None:
    if len(files) > 1:
        raise DataError(
            f"{folder}: {len(files)} files could be the {what}, {files[0].name} and {files[1].name}",
            "keep one, or list the files in a manifest",
        )
    return files[0] if files else None
