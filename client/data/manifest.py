"""A hospital's own data: its table, checked row by row.

The manifest is a CSV with the columns `case, patient, idh, codel_1p19q, grade_histologic, grade_who2021`; a blank label
is unknown, and unknown is never negative. The columns `t1, t1ce, t2, flair, seg` hold paths below the data's folder,
blank where the case has no such file; a table without them means BraTS 2021 names, CASE/CASE_t1.nii.gz and so on, with
all five files there. Any other column is ignored.
"""

import re
from collections import Counter
from pathlib import Path

from client.data.cases import CONFLICT_REMEDY, NOT_CHOSEN, Case, Finding, GradeEdition, LeftOut, Reading, conflict
from client.data.tables import is_file, read_table
from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MISSING, MODALITIES

VOCABULARY: dict[str, dict[str, int]] = {
    "idh": {"wildtype": 0, "mutant": 1},
    "codel_1p19q": {"intact": 0, "codeleted": 1},
    "grade_histologic": {"2": 0, "3": 1, "4": 2},
    "grade_who2021": {"2": 0, "3": 1, "4": 2},
}
"""What each label column may hold besides nothing, and the label it stands for."""
COLUMNS = ("case", "patient", *VOCABULARY)
PATHS = (*MODALITIES, "seg")

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_manifest(data: DataConfig, edition: GradeEdition, series: bool = False) -> Reading:
    """All cases of a table, in its order, with every fault of every row.

    Args:
        series: a path may be a folder, of a DICOM series.

    Raises:
        DataError: the table as a whole cannot be read.
    """
    assert data.labels is not None
    hint = f"; the columns are {', '.join(COLUMNS)}, and an unknown label is left blank"
    rows = read_table(data.labels, COLUMNS, hint=hint)
    if not rows:
        raise DataError(f"{data.labels}: the site has no cases", "add a row for each case")
    with_paths = any(name in rows[0][1] for name in MODALITIES)
    if with_paths and (lacking := [name for name in PATHS if name not in rows[0][1]]):
        raise DataError(
            f"{data.labels}: column '{lacking[0]}' is missing", f"give all of {', '.join(PATHS)}, or none of them"
        )
    reading = Reading()
    seen: dict[str, int] = {}
    for number, row in rows:
        if data.cases is not None and row["case"] not in data.cases:
            reading.left_out.append(LeftOut(row["case"], NOT_CHOSEN))
            continue
        try:
            case = _case(data, number, row, edition, with_paths, series)
            if case.id in seen:
                raise DataError(
                    f"{data.labels}: row {number}, column case: '{case.id}' stands in row {seen[case.id]} too",
                    "keep one row for each case",
                )
            seen[case.id] = number
            reading.cases.append(case)
        except DataError as error:
            reading.findings.append(Finding.of(error))
    reading.findings += _shared_files(reading.cases)
    return reading


def _shared_files(cases: list[Case]) -> list[Finding]:
    """A file that two cases, or two modalities of one, name."""
    uses = Counter(path for case in cases for path in (*case.images.values(), *((case.mask,) if case.mask else ())))
    return [
        Finding("error", str(path), f"is named {times} times in the table", "give each case and modality its own file")
        for path, times in uses.items()
        if times > 1
    ]


def _case(
    data: DataConfig, number: int, row: dict[str, str], edition: GradeEdition, with_paths: bool, series: bool
) -> Case:
    where = f"{data.labels}: row {number}"
    name = row["case"]
    if not FOLDER_NAME.fullmatch(name):
        raise DataError(
            f"{where}, column case: {name!r} is no plain folder name",
            "use letters, digits, dots, dashes and underscores only, the first a letter or digit",
        )
    if not row["patient"]:
        raise DataError(f"{where}, column patient: blank", "give the patient's pseudonym, the case's name if in doubt")
    labels = {label_name(column): read_label(where, column, row[column]) for column in VOCABULARY}
    if said := conflict(labels):
        raise DataError(f"{where}, columns idh and codel_1p19q: {said}", CONFLICT_REMEDY)
    paths = _paths(data, row, where, with_paths, series)
    mask = paths.pop("seg", None)
    if not paths:
        raise DataError(f"{where}: all four modalities are blank", "take this case out of the table")
    return Case(
        id=name,
        patient=row["patient"],
        images=paths,
        mask=mask,
        labels=labels,
        grade_edition=edition,
        mask_values=data.masks or "regions",
    )


def label_name(column: str) -> str:
    """The label that a column of the table holds."""
    return "codeletion" if column == "codel_1p19q" else column


def read_label(where: str, column: str, value: str) -> int:
    """Class of a word in a label column, MISSING for a blank.

    Raises:
        DataError: a word that is no label.
    """
    if not value:
        return MISSING
    words = VOCABULARY[column]
    if value.lower() not in words:
        raise DataError(
            f"{where}, column {column}: {value!r} is no label", f"write {', '.join(words)}, or nothing if it is unknown"
        )
    return words[value.lower()]


def _paths(data: DataConfig, row: dict[str, str], where: str, with_paths: bool, series: bool) -> dict[str, Path]:
    assert data.labels is not None
    name = row["case"]
    if with_paths:
        paths = {part: data.folder / row[part] for part in PATHS if row[part]}
        remedy = "put it there, or leave the field blank if the case has none"
    else:
        paths = {part: data.folder / name / f"{name}_{part}.nii.gz" for part in PATHS}
        remedy = f"put it there, or give each file's path in the columns {', '.join(PATHS)}, blank where there is none"
    for path in paths.values():
        if not is_file(path) and not (series and path.is_dir()):
            raise DataError(f"{path}: no such file, named in {where.rpartition(': ')[2]} of {data.labels.name}", remedy)
    return paths
