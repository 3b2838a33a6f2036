"""A public data set as it lies on disk after download: its folders joined with its label table."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from client.data.cases import CONFLICT_REMEDY, NOT_CHOSEN, Case, Finding, GradeEdition, LeftOut, Reading, conflict
from client.data.datasets import Dataset, dataset
from client.data.datasets.tables import Record, fixed_labels, read_json_record, read_records
from client.data.identity import Mapping, key
from client.data.tables import is_file
from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MISSING, MODALITIES


def read_public(data: DataConfig, edition: GradeEdition) -> Reading:
    """Cases of a public data set, in the order of their names.

    Raises:
        DataError: the folder holds no case, or a table cannot be read.
        ConfigError: the data set is not known.
    """
    described = dataset(data.layout)
    reading = Reading()
    found = _case_folders(described, data, reading)
    mapping = None if data.mapping is None else Mapping(data.mapping)
    book = _Book(described, data, mapping, reading)
    for name, match in found:
        try:
            reading.cases += _case(described, data, edition, name, match, book, reading)
        except DataError as error:
            reading.findings.append(Finding.of(error))
    book.close(reading)
    return reading


def case_folders(described: Dataset) -> tuple[list[str], re.Pattern[str]]:
    """The folders in which the set's case folders lie, and what these are called; the group `case` is the case."""
    parts = described.images[MODALITIES[0]][0].split("/")
    depth = next(index for index, part in enumerate(parts) if "{case}" in part)
    prefix, suffix = (re.escape(piece) for piece in parts[depth].split("{case}"))
    return parts[:depth], re.compile(f"{prefix}(?P<case>{described.case}){suffix}")


def _case_folders(described: Dataset, data: DataConfig, reading: Reading) -> list[tuple[str, re.Match[str]]]:
    """Name of each case folder that is to be read, and the match of its name."""
    above, pattern = case_folders(described)
    parent = data.folder.joinpath(*above)
    try:
        names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        raise DataError(f"{parent}: no such folder, or not readable", described.where) from None
    found = []
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            reading.left_out.append(LeftOut(str(parent / name), "its name is not that of a case"))
            continue
        case = match["case"]
        reasons = [skipped.why for skipped in described.skipped if re.search(skipped.case, case)]
        if data.cases is not None and case not in data.cases:
            reasons.append(NOT_CHOSEN)
        if reasons:
            reading.left_out.append(LeftOut(case, reasons[0]))
        else:
            found.append((case, match))
    if not found and data.cases is None:
        raise DataError(f"{parent}: holds no case of {described.title}", described.where)
    return found


class _Book:
    """The records of all tables, found by any name of the patient."""

    def __init__(self, described: Dataset, data: DataConfig, mapping: Mapping | None, reading: Reading) -> None:
        self.mapping = mapping
        self._own: dict[str, Record] = {}
        self._foreign: dict[str, list[Record]] = {}
        self._used: set[str] = set()
        if described.table is None or described.table.id:
            path = data.labels or _default_table(described, data.folder)
            if path is not None:
                records, left_out = read_records(described, path, data.read_as)
                reading.left_out += left_out
                for record in records:
                    if reasons := [s.why for s in described.skipped if re.search(s.case, record.name)]:
                        reading.left_out.append(LeftOut(record.where, reasons[0]))
                    else:
                        self._own[key(record.name)] = record
        for name, path in data.label_tables.items():
            source = dataset(name)
            for record in read_records(source, path, data.read_as)[0]:
                match = re.fullmatch(source.case, record.name)
                also = also_named(source, match) if match else frozenset()
                patient = {match.groupdict().get("patient") or record.name} if match else set()
                known = replace(record, also=record.also | also | patient)
                for one in self.all_names((record.name, *also, *record.also)):
                    self._foreign.setdefault(one, []).append(known)

    def all_names(self, names: Iterable[str]) -> frozenset[str]:
        """As Mapping.all_names; without a mapping the names themselves."""
        return frozenset(key(name) for name in names) if self.mapping is None else self.mapping.all_names(names)

    def find(self, case: str, patient: str, names: frozenset[str]) -> list[Record]:
        """Records of the case itself, else of its patient, and those of other data sets' tables."""
        own = self._own.get(key(case)) or self._own.get(key(patient))
        records = [own] if own else []
        for name in sorted(names):
            records += [record for record in self._foreign.get(name, ()) if record not in records]
        self._used |= {record.where for record in records}
        return records

    def close(self, reading: Reading) -> None:
        """Leave out the rows that no folder belongs to."""
        idle = [record for record in self._own.values() if record.where not in self._used]
        reading.left_out += [LeftOut(record.where, "no folder for its case") for record in idle]


def _default_table(described: Dataset, folder: Path) -> Path | None:
    """The set's own table in its folder or the one above; None for a set that has none."""
    if described.table is None:
        return None
    for place in (folder, folder.parent):
        if is_file(place / described.table.file):
            return place / described.table.file
    raise DataError(f"{folder / described.table.file}: no such label table", "put it there, or name it in data.labels")


def also_named(described: Dataset, match: re.Match[str]) -> frozenset[str]:
    """Other names of a patient that follow from the name of his case."""
    return frozenset(name.format(**match.groupdict()) for name in described.also)


def _case(
    described: Dataset,
    data: DataConfig,
    edition: GradeEdition,
    name: str,
    match: re.Match[str],
    book: _Book,
    reading: Reading,
) -> list[Case]:
    """The case, or nothing if it has no image."""
    groups = match.groupdict()
    patient = groups.get("patient") or name
    images = images_of(described, data.folder, name)
    if not images:
        reading.left_out.append(LeftOut(name, "none of the four modalities is there"))
        return []
    for modality in MODALITIES:
        if modality not in images:
            said = f"has no {modality} ({described.images[modality][0].format(case=name)})"
            reading.findings.append(
                Finding("warning", f"case {name}", said, "it is used without; copy the file if it should be there")
            )
    mask = None if name in data.without_mask else first_file(data.folder, described.mask, name)
    if mask is None:
        reading.findings.append(
            Finding("note", f"case {name}", "has no segmentation", "it trains the class tasks alone")
        )
    names = book.all_names((name, patient, *also_named(described, match)))
    records = book.find(name, patient, names)
    if described.table is not None and not described.table.id:
        records.append(
            read_json_record(described, data.folder / described.table.file.format(case=name), name, data.read_as)
        )
    if not records and (described.table is not None or data.labels is not None):
        reading.findings.append(
            Finding("note", f"case {name}", "is not in the label table", "its labels are unknown; add a row if known")
        )
    return [
        Case(
            id=name,
            patient=patient,
            images=images,
            mask=mask,
            labels=_merged(described, records, reading),
            grade_edition=edition,
            mask_values=data.masks or described.mask_values,
            brain_mask=brain_mask_of(described, data.folder, name),
            background=described.background,
            also=book.all_names((*names, *(other for record in records for other in record.also))),
        )
    ]


def images_of(described: Dataset, folder: Path, case: str) -> dict[str, Path]:
    """The modalities of a case that are there; `folder` is the set's."""
    return {m: path for m in MODALITIES if (path := first_file(folder, described.images[m], case)) is not None}


def brain_mask_of(described: Dataset, folder: Path, case: str) -> Path | None:
    """What tells brain from skull in a case; None where the set's images are skull-stripped.

    Raises:
        DataError: it is not there.
    """
    if described.brain_mask is None:
        return None
    path = folder / described.brain_mask.format(case=case)
    if not is_file(path):
        raise DataError(f"{path}: no such file", described.where)
    return path


def first_file(folder: Path, templates: tuple[str, ...], case: str) -> Path | None:
    """The first of the paths that is there; one pattern that fits several files is an error."""
    for template in templates:
        path = template.format(case=case)
        if "*" not in path:
            if is_file(folder / path):
                return folder / path
            continue
        fits = sorted(folder.glob(path))
        if len(fits) > 1:
            raise DataError(f"{folder / path}: fits {len(fits)} files, {fits[0].name} and others", "keep one of them")
        if fits:
            return fits[0]
    return None


def _merged(described: Dataset, records: list[Record], reading: Reading) -> dict[str, int]:
    """Labels on which all records that know one agree; unknown where they do not, or contradict themselves."""
    labels = fixed_labels(described)
    for label in labels:
        known = {record.labels[label]: record for record in records if record.labels[label] != MISSING}
        if len(known) > 1:
            first, second, *_ = known.values()
            said = f"disagrees with {second.where} on {label}"
            reading.findings.append(Finding("warning", first.where, said, "taken as unknown; find out which is right"))
            labels[label] = MISSING
        elif known:
            labels[label] = next(iter(known))
    if said_conflict := conflict(labels):
        where = records[0].where
        what = f"{said_conflict}; both taken as unknown"
        reading.findings.append(Finding("warning", where, what, CONFLICT_REMEDY))
        labels |= {"idh": MISSING, "codeletion": MISSING}
    return labels
