"""A public data set's label table: every row gives a record, or is left out with a reason."""

import json
from collections.abc import Mapping as Words
from dataclasses import dataclass
from pathlib import Path

from client.data.cases import LABELS, UNKNOWN, LeftOut
from client.data.datasets import UNKNOWN_WORD, Column, Dataset, Table
from client.data.identity import NOWHERE, key
from client.data.manifest import VOCABULARY, label_name
from client.data.tables import read_table
from shared_model.errors import DataError
from shared_model.tasks import MISSING

OWN = Table(
    file="",
    id="case",
    labels={
        label_name(column): Column(
            column=column, values={word: LABELS[label_name(column)][index] for word, index in words.items()}
        )
        for column, words in VOCABULARY.items()
    },
)
"""For sets that come without labels: a table in the columns of a hospital's manifest."""

ReadAs = Words[str, Words[str, str]]
"""Label -> word in the table -> class: what a user reads differently from the description."""


@dataclass(frozen=True)
class Record:
    """What a table says of one exam or patient.

    Attributes:
        name: as the table has it.
        labels: as Case.labels.
        also: other names of the patient.
        where: table and row.
    """

    name: str
    labels: dict[str, int]
    also: frozenset[str]
    where: str


def meaning(label: str, column: Column, word: str, where: str, read_as: ReadAs) -> int:
    """Class of a table's word, MISSING for a blank or what the description calls unknown.

    Raises:
        DataError: a word that nobody has given a meaning.
    """
    if not word:
        return MISSING
    given = {**column.values, **read_as.get(label, {})}
    words = {name.lower(): value for name, value in given.items()}
    if word.lower() not in words:
        raise DataError(
            f"{where}, column {column.column}: {word!r} is not known",
            f"say what it means in data.read_as.{label}: {', '.join(LABELS[label])} or {UNKNOWN_WORD}",
        )
    value = words[word.lower()]
    if value != UNKNOWN_WORD and value not in LABELS[label]:
        raise DataError(
            f"data.read_as.{label}: '{value}' is no class", f"use {', '.join(LABELS[label])} or {UNKNOWN_WORD}"
        )
    return MISSING if value == UNKNOWN_WORD else LABELS[label].index(value)


def fixed_labels(dataset: Dataset) -> dict[str, int]:
    """Labels of every case of the set, the others unknown."""
    return UNKNOWN | {label: LABELS[label].index(word) for label, word in dataset.fixed.items()}


def _labels(dataset: Dataset, table: Table, row: Words[str, str], where: str, read_as: ReadAs) -> dict[str, int]:
    return fixed_labels(dataset) | {
        label: meaning(label, column, row[column.column], where, read_as) for label, column in table.labels.items()
    }


def read_records(dataset: Dataset, path: Path, read_as: ReadAs) -> tuple[list[Record], list[LeftOut]]:
    """Records of a delimited table in its order, and the rows that give none.

    Raises:
        DataError: the table cannot be read, a word is not known, a name stands twice, two rows of a patient disagree.
    """
    table = dataset.table or OWN
    needed = (table.id, *table.also, *table.only, *(column.column for column in table.labels.values()))
    records: dict[str, Record] = {}
    left_out = []
    for number, row in read_table(path, needed, delimiter=table.delimiter):
        where = f"{path}: row {number}"
        name = row[table.id]
        if foreign := [column for column, word in table.only.items() if row[column] != word]:
            left_out.append(LeftOut(where, f"{foreign[0]} is {row[foreign[0]] or 'blank'}"))
            continue
        if not name:
            raise DataError(f"{where}, column {table.id}: blank", "give the name of the case, or delete the row")
        also = frozenset(row[column] for column in table.also if row[column].lower() not in NOWHERE)
        record = Record(name, _labels(dataset, table, row, where, read_as), also, where)
        earlier = records.get(key(name))
        if earlier is None:
            records[key(name)] = record
        elif not table.repeats:
            raise DataError(f"{where}, column {table.id}: '{name}' stands twice", "keep one row for each")
        elif earlier.labels != record.labels:
            raise DataError(f"{where}: disagrees with {earlier.where} on {name}", "mend or blank one of them")
        else:
            left_out.append(LeftOut(where, "a further row of a patient, with the same labels"))
    return list(records.values()), left_out


def read_json_record(dataset: Dataset, path: Path, name: str, read_as: ReadAs) -> Record:
    """The record of one case from its own JSON file.

    Raises:
        DataError: no such file, no JSON, or without the labels.
    """
    table = dataset.table
    assert table is not None
    try:
        section = json.loads(path.read_text(encoding="utf-8-sig"))[table.section]
        row = {column.column: str(section[column.column]) for column in table.labels.values()}
    except (OSError, UnicodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON with {table.section} ({type(error).__name__})", "copy it again"
        ) from None
    return Record(name, _labels(dataset, table, row, str(path), read_as), frozenset(), str(path))
