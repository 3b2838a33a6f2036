"""All of a site's cases, whatever their layout: the one entrance to the data for training, checks and simulation."""

from dataclasses import replace

from client.data.bids import read_bids
from client.data.cases import Case, Finding, GradeEdition, LeftOut, Reading
from client.data.datasets.reader import read_public
from client.data.identity import key, same_people
from client.data.manifest import read_manifest
from client.data.tables import read_list
from shared_model.config import DataConfig
from shared_model.errors import DataError


def read(data: DataConfig, edition: GradeEdition = "who2021", *, series: bool = False) -> Reading:
    """Every case, row and folder of a site, with what is wrong about them.

    Excluded patients, and cases beside those that `data.cases` names, are left out. Cases of one person carry one
    patient's name, also where a table knows him by several.

    Args:
        series: a manifest may name folders of DICOM files, for preparation.

    Raises:
        DataError: a table or folder that cannot be read at all.
        ConfigError: an unknown layout.
    """
    if data.layout == "manifest":
        reading = read_manifest(data, edition, series)
    else:
        reading = (read_bids if data.layout == "bids" else read_public)(data, edition)
    reading.cases = one_name_each(reading.cases)
    _leave_out_excluded(data, reading)
    _check_chosen(data, reading)
    if not reading.cases and all(finding.severity != "error" for finding in reading.findings):
        where = data.labels or data.folder
        reading.findings.append(Finding("error", str(where), "the site has no cases", "add cases, or exclude fewer"))
    return reading


def read_cases(data: DataConfig, edition: GradeEdition) -> list[Case]:
    """The cases of a site.

    Raises:
        DataError: the first thing that is wrong.
    """
    return read(data, edition).require()


def one_name_each(cases: list[Case]) -> list[Case]:
    """The cases, where all of one person carry the name that his first case has."""
    person = same_people(case.also or {case.patient} for case in cases)
    owners = [person[min(case.also or {case.patient})] for case in cases]
    names: dict[str, str] = {}
    for owner, case in zip(owners, cases, strict=True):
        names.setdefault(owner, case.patient)
    return [replace(case, patient=names[owner]) for owner, case in zip(owners, cases, strict=True)]


def _leave_out_excluded(data: DataConfig, reading: Reading) -> None:
    if data.exclude is None:
        return
    excluded = {key(name) for name in read_list(data.exclude)}
    gone = {case.patient for case in reading.cases if excluded & {key(case.patient), key(case.id), *case.also}}
    reading.left_out += [LeftOut(case.id, "excluded") for case in reading.cases if case.patient in gone]
    reading.cases = [case for case in reading.cases if case.patient not in gone]


def _check_chosen(data: DataConfig, reading: Reading) -> None:
    """Every case that data.cases names is there."""
    seen = {case.id for case in reading.cases} | {left.what for left in reading.left_out}
    for name in data.cases or ():
        if name not in seen and all(finding.severity != "error" for finding in reading.findings):
            raise DataError(
                f"{data.labels or data.folder}: case '{name}' is configured but not in the table",
                "add its row, or take it out of data.cases",
            )
