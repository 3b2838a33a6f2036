"""Sites made from one data set: by a table of institutions, or by TCGA's tissue source site."""

import re
from collections import Counter
from pathlib import Path

from client.data.cases import Case
from client.data.tables import read_table
from shared_model.errors import DataError

TISSUE_SOURCE_SITE = "tissue-source-site"
REST = "others"


def read_partition(path: Path) -> dict[str, str]:
    """Case -> institution, from a table with Partition_ID and Subject_ID as FeTS 2022 gives it.

    Raises:
        DataError: the table cannot be read, or a case stands in it twice.
    """
    found: dict[str, str] = {}
    for number, row in read_table(path, ("Partition_ID", "Subject_ID")):
        if row["Subject_ID"] in found:
            raise DataError(f"{path}: row {number}: '{row['Subject_ID']}' stands twice", "keep one row for each case")
        found[row["Subject_ID"]] = row["Partition_ID"]
    return found


def partition(cases: list[Case], by: Path | str, smallest: int) -> dict[str, list[Case]]:
    """Site -> cases, in the order of the sites' names; institutions below `smallest` cases become one site, `others`.

    Args:
        by: a partition table, or TISSUE_SOURCE_SITE for cases that are named TCGA-XX-YYYY.

    Raises:
        DataError: a case that the table does not name; a name that is not TCGA's, or not fit for a folder.
    """
    if isinstance(by, Path):
        table = read_partition(by)
        if unknown := [case.id for case in cases if case.id not in table]:
            raise DataError(f"{by}: case '{unknown[0]}' is not in it", "add its row, or take it out of data.cases")
        owner = {case.id: f"institution-{table[case.id]}".lower() for case in cases}
    else:
        if foreign := [case.id for case in cases if not case.id.startswith("TCGA-")]:
            raise DataError(f"case {foreign[0]}: has no tissue source site", "partition it by a table")
        owner = {case.id: f"tcga-{case.id.split('-')[1]}".lower() for case in cases}
    if strange := [name for name in owner.values() if not re.fullmatch(r"[a-z0-9-]{1,40}", name)]:
        raise DataError(f"site '{strange[0]}': is no name for a folder", "name institutions by letters and digits")
    sizes = Counter(owner.values())
    sites: dict[str, list[Case]] = {}
    for case in cases:
        site = owner[case.id]
        sites.setdefault(site if sizes[site] >= smallest else REST, []).append(case)
    return {site: sites[site] for site in sorted(sites, key=_natural)}


def _natural(name: str) -> tuple[str, int]:
    prefix, _, number = name.rpartition("-")
    return (prefix, int(number)) if number.isdigit() else (name, 0)
