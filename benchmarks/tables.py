"""Tables that a command writes into a page of docs/, between two markers."""

from collections.abc import Sequence
from pathlib import Path

import torch


def replace_table(page: Path, name: str, text: str) -> None:
    """Put a table where the page has `<!-- name -->` and `<!-- end of name -->`.

    Raises:
        ValueError: the page lacks a marker.
    """
    whole = page.read_text(encoding="utf-8")
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if whole.count(first) != 1 or whole.count(last) != 1:
        raise ValueError(f"{page}: needs the lines {first} and {last} once each")
    before, rest = whole.split(first)
    page.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{rest.split(last)[1]}", encoding="utf-8")


def update_rows(page: Path, name: str, head: Sequence[str], rows: Sequence[Sequence[str]], key: int) -> None:
    """Put rows into the table that stands between the markers of `replace_table`.

    A row takes the place of the one whose first `key` cells are equal; the others stay.

    Raises:
        ValueError: the page lacks a marker.
    """
    between = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
    lines = [line for line in between.splitlines() if line.startswith("|")][2:]
    kept = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    table = {row[:key]: row for row in [*kept, *map(tuple, rows)]}
    text = [head, ["---"] * len(head), *table.values()]
    replace_table(page, name, "\n".join(f"| {' | '.join(row)} |" for row in text))


def machine(device: torch.device) -> str:
    """What a step ran on, in a table's words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}"
