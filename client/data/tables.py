"""Label tables as people send them: byte-order marks, CRLF, blanks around names; anything worse is named by row."""

import csv
from collections.abc import Sequence
from pathlib import Path

from shared_model.errors import DataError

Row = tuple[int, dict[str, str]]
"""Line number, and the stripped field of each column."""


def read_table(
    path: Path, needed: Sequence[str], *, delimiter: str = ",", encoding: str = "utf-8", hint: str = ""
) -> list[Row]:
    """All rows of a delimited table.

    Args:
        needed: columns that must be there.
        hint: said of a missing column, e.g. which there should be.

    Raises:
        DataError: no such file, not in this encoding, a column missing or given twice, a row of another length.
    """
    kind = "CSV" if delimiter == "," else "tab-separated table"
    if encoding == "utf-8":
        encoding = "utf-8-sig"
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            for name in needed:
                if name not in header:
                    raise DataError(f"{path}: column '{name}' is missing", f"add it{hint}")
            if twice := sorted({name for name in header if name and header.count(name) > 1}):
                raise DataError(f"{path}: column '{twice[0]}' stands twice", "keep one of them")
            rows = []
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}: row {reader.line_num}: not as many fields as the header has",
                        "add or remove commas, or put text that holds one in quotes"
                        if delimiter == ","
                        else "add or remove tabs",
                    )
                rows.append((reader.line_num, dict(zip(header, (field.strip() for field in fields), strict=True))))
            return rows
    except FileNotFoundError:
        raise DataError(f"{path}: no such label table", "check data.labels, or write the table") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as a {kind} in {encoding.removesuffix('-sig').upper()} ({type(error).__name__})",
            f"save it as {kind} in {encoding.removesuffix('-sig').upper()}",
        ) from None


def read_list(path: Path) -> tuple[str, ...]:
    """Names, one a line; blank lines and lines that begin with # are passed over.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(
            f"{path}: cannot be read as UTF-8 text ({type(error).__name__})", "write one name a line, in UTF-8"
        ) from None
    return tuple(name for line in lines if (name := line.strip()) and not name.startswith("#"))


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file could have, and a link that leads nowhere, are none."""
    try:
        return path.is_file()
    except OSError:
        return False
