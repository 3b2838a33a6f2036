"""Tables in a page: a row measured anew takes its place, others stay."""

from pathlib import Path

import pytest

from benchmarks.tables import update_rows

HEAD = ("preset", "crop", "s")


def test_rows_are_replaced_by_their_first_cells(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n\n<!-- step -->\n<!-- end of step -->\n\nafter\n")
    update_rows(page, "step", HEAD, [("tiny", "64", "1"), ("base", "64", "2")], key=2)
    update_rows(page, "step", HEAD, [("tiny", "64", "3"), ("tiny", "96", "4")], key=2)
    rows = ["| tiny | 64 | 3 |", "| base | 64 | 2 |", "| tiny | 96 | 4 |"]
    table = "\n".join(["| preset | crop | s |", "| --- | --- | --- |", *rows])
    assert page.read_text() == f"before\n\n<!-- step -->\n\n{table}\n\n<!-- end of step -->\n\nafter\n"


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="needs the lines"):
        update_rows(page, "step", HEAD, [("tiny", "64", "1")], key=2)
