"""Tables that a command writes into a page of docs/, between two markers."""

from pathlib import Path


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
