"""A site's label table, checked: which cases there are, where their files lie, and what is known of each.

The table is a CSV with the columns `case, patient, idh, codel_1p19q, grade_histologic, grade_who2021`; a blank label is
unknown, and unknown is never negative. Two columns may be added: `absent` names the modalities that a case lacks
("t1+t2"), and `mask` says "no" for a case without a mask. Any other column is ignored.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MISSING, MODALITIES, REGIONS

GradeEdition = Literal["who2021", "histologic"]

VOCABULARY: dict[str, dict[str, int]] = {
    "idh": {"wildtype": 0, "mutant": 1},
    "codel_1p19q": {"intact": 0, "codeleted": 1},
    "grade_histologic": {"2": 0, "3": 1, "4": 2},
    "grade_who2021": {"2": 0, "3": 1, "4": 2},
}
"""What each label column may hold besides nothing, and the label it stands for."""
COLUMNS = ("case", "patient", *VOCABULARY)

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Case:
    """One exam of one patient.

    Attributes:
        id: name of its folder.
        patient: all cases of a patient carry the same.
        images: file of each modality that is present, in the order of MODALITIES.
        mask: the segmentation, or None.
        regions: region tasks that the mask tells; none without a mask.
        classes: label of `idh`, `codeletion` and `grade`; MISSING where it is unknown.
    """

    id: str
    patient: str
    images: dict[str, Path]
    mask: Path | None
    regions: tuple[str, ...]
    classes: dict[str, int]


def read_cases(data: DataConfig, grade_edition: GradeEdition) -> list[Case]:
    """All cases of a site in the order of its table, after checks of every row and of every file's presence.

    Raises:
        DataError: naming the table with row and column, or the file, that is wrong.
    """
    rows = list(_rows(data.labels))
    if not rows:
        raise DataError(f"{data.labels}: the site has no cases", "add a row for each case")
    seen: dict[str, int] = {}
    for number, row in rows:
        name = row["case"]
        if not _FOLDER_NAME.fullmatch(name):
            raise DataError(
                f"{data.labels}: row {number}, column case: {name!r} is no plain folder name",
                "use letters, digits, dots, dashes and underscores only, the first a letter or digit",
            )
        if name in seen:
            raise DataError(
                f"{data.labels}: row {number}, column case: '{name}' stands in row {seen[name]} too",
                "keep one row for each case",
            )
        seen[name] = number
    if data.cases is not None:
        for name in data.cases:
            if name not in seen:
                raise DataError(
                    f"{data.labels}: case '{name}' is configured but not in the table",
                    "add its row, or take it out of data.cases",
                )
        rows = [(number, row) for number, row in rows if row["case"] in data.cases]
        if not rows:
            raise DataError(f"{data.labels}: the site has no cases", "name at least one in data.cases, or leave it out")
    return [_case(data, number, row, f"grade_{grade_edition}") for number, row in rows]


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped fields of each row."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            for name in COLUMNS:
                if name not in header:
                    raise DataError(
                        f"{table}: column '{name}' is missing",
                        f"add it; the columns are {', '.join(COLUMNS)}, and an unknown label is left blank",
                    )
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise DataError(f"{table}: column '{twice[0]}' stands twice", "keep one of them")
            reader.fieldnames = header
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{table}: row {reader.line_num}: not as many fields as the header has",
                        "add or remove commas, or put text that holds a comma in quotes",
                    )
                yield reader.line_num, {name: value.strip() for name, value in row.items()}
    except FileNotFoundError:
        raise DataError(f"{table}: no such label table", "check data.labels, or write the table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table}: cannot be read as a CSV in UTF-8 ({type(error).__name__})", "save it as CSV in UTF-8"
        ) from None


def _case(data: DataConfig, number: int, row: dict[str, str], grade_column: str) -> Case:
    where = f"{data.labels}: row {number}"
    if not row["patient"]:
        raise DataError(f"{where}, column patient: blank", "give the patient's pseudonym, the case's name if in doubt")
    labels = {column: _label(where, column, row[column]) for column in VOCABULARY}
    if labels["codel_1p19q"] == 1 and labels["idh"] == 0:
        raise DataError(
            f"{where}, columns idh and codel_1p19q: conflict, codeleted with an IDH-wildtype",
            "check both results; a 1p/19q-codeleted glioma is IDH-mutant, so blank the one that is wrong",
        )
    images = _images(data.folder, row["case"], _absent(where, row.get("absent", "")), where)
    mask = _mask(data.folder, row["case"], row.get("mask", ""), where)
    regions = () if mask is None else tuple(task.name for task in REGIONS)
    return Case(
        id=row["case"],
        patient=row["patient"],
        images=images,
        mask=mask,
        regions=regions[:1] if data.masks == "whole-tumor" else regions,
        classes={"idh": labels["idh"], "codeletion": labels["codel_1p19q"], "grade": labels[grade_column]},
    )


def _label(where: str, column: str, value: str) -> int:
    if not value:
        return MISSING
    words = VOCABULARY[column]
    if value.lower() not in words:
        raise DataError(
            f"{where}, column {column}: {value!r} is no label", f"write {', '.join(words)}, or nothing if it is unknown"
        )
    return words[value.lower()]


def _absent(where: str, value: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in value.split("+")) if value else ()
    for name in names:
        if name not in MODALITIES:
            raise DataError(
                f"{where}, column absent: {name!r} is no modality", f"join some of {', '.join(MODALITIES)} by '+'"
            )
    if set(names) == set(MODALITIES):
        raise DataError(f"{where}, column absent: all four modalities are absent", "take this case out of the table")
    return names


def _images(folder: Path, name: str, absent: tuple[str, ...], where: str) -> dict[str, Path]:
    images = {
        modality: folder / name / f"{name}_{modality}.nii.gz" for modality in MODALITIES if modality not in absent
    }
    for modality, path in images.items():
        if not path.is_file():
            raise DataError(
                f"{path}: no such file ({where})", f"put it there, or name {modality} in the case's column 'absent'"
            )
    return images


def _mask(folder: Path, name: str, value: str, where: str) -> Path | None:
    if value.lower() not in ("", "yes", "no"):
        raise DataError(f"{where}, column mask: {value!r} is neither yes nor no", "write yes, no, or nothing for yes")
    if value.lower() == "no":
        return None
    path = folder / name / f"{name}_seg.nii.gz"
    if not path.is_file():
        raise DataError(f"{path}: no such file ({where})", "put it there, or write no in the case's column 'mask'")
    return path
