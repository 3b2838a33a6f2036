"""Who is who across data sets: one patient has many names, and must count as one."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from client.data.tables import Row, read_table

MAPPING_NAMES = ("BraTS2021", "BraTS2020", "BraTS2019", "BraTS2018", "BraTS2017")
COHORT = "Cohort Name (if publicly available)"
SITE = "Site No (represents the originating institution)"
LOCAL = "Local ID"
NOWHERE = ("", "n/a", "na")


def key(name: str) -> str:
    """A name as it is compared: small letters, no leading zeros, so that UCSF-PDGM-004 is UCSF-PDGM-0004."""
    return re.sub(r"\d+", lambda digits: str(int(digits.group())), name.strip().lower())


def patient_hash(patient: str) -> str:
    """sha256 of a patient's name as it is compared: what a site's state holds in the name's place."""
    return hashlib.sha256(key(patient).encode()).hexdigest()


class Mapping:
    """The BraTS mapping table: names of one patient in BraTS 2017 to 2021 and in the data set he came from.

    Attributes:
        rows: all rows of the table.
        names: key of each name -> keys of all names of that patient.
        site: key of each BraTS name -> number of the institution.
        anonymous: keys of patients whose data set the table does not tell.
    """

    def __init__(self, path: Path) -> None:
        self.rows: list[Row] = read_table(path, (*MAPPING_NAMES, COHORT, SITE, LOCAL))
        self.names: dict[str, frozenset[str]] = {}
        self.site: dict[str, str] = {}
        self.anonymous: set[str] = set()
        for _, row in self.rows:
            local = row[LOCAL]
            if row[COHORT] == "IvyGAP":
                local = f"IvyGAP-{local}"
            own = [row[name] for name in MAPPING_NAMES]
            keys = frozenset(key(name) for name in (*own, local) if name.lower() not in NOWHERE)
            for one in keys:
                self.names[one] = keys | self.names.get(one, frozenset())
                self.site[one] = row[SITE]
            if local.lower() in NOWHERE:
                self.anonymous |= keys

    def all_names(self, names: Iterable[str]) -> frozenset[str]:
        """These names and all that the table knows of the same patient, as keys."""
        keys = frozenset(key(name) for name in names)
        return keys.union(*(self.names.get(one, frozenset()) for one in keys))


def same_people(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """Name -> the smallest name of that person, where each group holds names of one person (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for group in groups:
        roots = sorted({root(name) for name in group})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {name: root(name) for name in parent}
