"""The command runs what is asked for, and writes that attack's table and no other."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import attacks
from shared_model.metrics import Estimate


@dataclass(frozen=True)
class Row:
    epsilon: float | None
    auc: tuple[Estimate | None, ...]


def stub(name: str) -> SimpleNamespace:
    rows = [Row(None, (Estimate(value=0.75, low=0.5), None))]
    return SimpleNamespace(run=lambda: rows, table=lambda found: f"{name}: {len(found)} row")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "page.md"
    path.write_text(
        "".join(f"<!-- attack {name} -->\nold\n<!-- end of attack {name} -->\n" for name in attacks.ATTACKS)
    )
    monkeypatch.setattr(attacks, "PAGE", path)
    monkeypatch.setattr(attacks, "ATTACKS", {name: stub(name) for name in attacks.ATTACKS})
    return path


def test_all_three_are_run(page: Path, tmp_path: Path) -> None:
    attacks.main(["--json", str(tmp_path / "out.json")])
    text = page.read_text()
    assert "old" not in text and all(f"{name}: 1 row" in text for name in ("canary", "membership", "inversion"))
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["membership"]["found"] == [
        {"epsilon": None, "auc": [{"value": 0.75, "low": 0.5, "high": None}, None]}
    ]


def test_one_alone_leaves_the_other_tables(page: Path) -> None:
    attacks.main(["--only", "inversion"])
    assert page.read_text().count("old") == 2 and "inversion: 1 row" in page.read_text()


def test_the_page_has_a_place_for_each_table() -> None:
    text = (Path(__file__).parents[2] / "docs/privacy-attacks.md").read_text()
    for name in attacks.ATTACKS:
        assert text.count(f"<!-- attack {name} -->") == text.count(f"<!-- end of attack {name} -->") == 1
