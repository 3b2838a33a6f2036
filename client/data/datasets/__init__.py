"""The public glioma data sets, one description each: a YAML file in this folder. To add a set, add its file.

A description says how the files lie after download and what the label table's words mean; nothing of the data is here.
"""

import re
from functools import cache
from importlib.resources import as_file, files
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from client.data.cases import LABELS, MaskValues
from shared_model.config import Config, load_config
from shared_model.errors import ConfigError
from shared_model.tasks import MODALITIES

UNKNOWN_WORD = "unknown"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class Column(Config):
    """Where a label stands, and what its words mean."""

    column: str
    values: dict[str, str]
    """Word in the table, in any case of letters, to a class or `unknown`. A blank is unknown without being named."""


class Table(Config):
    """A label table: CSV, tab-separated text, or a JSON file in each case's folder."""

    file: str
    """Its name, in the data set's folder or the one above; for JSON a path with {case} in it."""
    id: str = ""
    """Column with the name of the case or patient; leading zeros do not count. JSON has none."""
    section: str = ""
    """JSON: the object that holds the labels."""
    delimiter: Literal[",", "\t"] = ","
    also: tuple[str, ...] = ()
    """Columns with other names of the patient."""
    only: dict[str, str] = Field(default_factory=dict)
    """Column to word: rows with any other word belong to other data sets."""
    repeats: bool = False
    """Several rows a patient, which must agree."""
    labels: dict[str, Column]


class Skipped(Config):
    """Cases that are left out."""

    case: Pattern
    """Searched for in the case's name."""
    why: str


class Dataset(Config):
    """One public data set, as it lies on disk after download."""

    title: str
    source: str
    """DOI or page where it is got."""
    terms: str
    """Conditions of use, in short."""
    unpack: str
    """What to download and which folder to name."""
    size: str
    """Patients and exams."""
    case: Pattern
    """Name of a case; a group `patient` holds the patient's part, a group `number` what other releases share."""
    also: tuple[str, ...] = ()
    """Other names of a patient, with {number} in them."""
    images: dict[str, tuple[str, ...]]
    """Modality to paths with {case} in them; `*` stands for anything. The first path that is there is used."""
    mask: tuple[str, ...]
    mask_values: MaskValues
    brain_mask: str | None = None
    """For images that are not skull-stripped: one mask for all cases, or a path with {case}."""
    background: Literal["zero", "corner"] = "zero"
    table: Table | None = None
    fixed: dict[str, str] = Field(default_factory=dict)
    """Labels that every case of the set has."""
    skipped: tuple[Skipped, ...] = ()
    in_brats: bool = False
    """Patients of the set are in BraTS, and its own files do not say which."""
    same_as_brats_sites: tuple[str, ...] = ()
    """Institutions of the BraTS mapping whose unnamed cases may be patients of this set; no table tells which."""
    remarks: tuple[str, ...] = ()
    """What a user should know."""

    @property
    def where(self) -> str:
        """Where it is got and what to do with it: the remedy for a folder that is not there."""
        return f"get it from {self.source}. {self.unpack.rstrip('.')}"

    @model_validator(mode="after")
    def _known(self) -> "Dataset":
        if set(self.images) != set(MODALITIES):
            raise ValueError(f"images: give {', '.join(MODALITIES)}")
        columns = self.table.labels if self.table else {}
        for label in (*columns, *self.fixed):
            if label not in LABELS:
                raise ValueError(f"'{label}' is no label; known are {', '.join(LABELS)}")
        words = [(label, word) for label, column in columns.items() for word in column.values.values()]
        for label, word in (*words, *self.fixed.items()):
            if word != UNKNOWN_WORD and word not in LABELS[label]:
                raise ValueError(f"{label}: '{word}' is no class; known are {', '.join(LABELS[label])}, {UNKNOWN_WORD}")
        return self


@cache
def datasets() -> dict[str, Dataset]:
    """Every described data set by name."""
    found = {}
    for entry in sorted(files(__package__).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            with as_file(entry) as path:
                found[path.stem] = load_config(Dataset, path)
    return found


def dataset(name: str) -> Dataset:
    """A data set by name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in datasets():
        known = ", ".join(("manifest", "bids", *datasets()))
        raise ConfigError(f"data.layout: '{name}' is not known", f"use one of {known}")
    return datasets()[name]
