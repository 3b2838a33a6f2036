"""The summary file and the report made of it."""

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from server.plots import SliceImages, learning_curves, slice_images, slices, way_bars
from server.report import duration, headline, number, size, terminal_table, write_report
from server.summary import (
    AVERAGED_LOCAL,
    CENTRALISED,
    FEDERATED,
    Missing,
    Round,
    Site,
    Summary,
    Totals,
    Way,
    evaluated,
    local,
    read_summary,
    write_summary,
)
from shared_model.errors import ConfigError
from shared_model.metrics import AucCount, DiceSum
from shared_model.scores import Comparison, Row, SiteScores

HOSTILE = "<script>alert(1)</script>$x^{$"
PNG = b"\x89PNG\r\n\x1a\n"


def table(wt: float, idh: float | None) -> tuple[Row, ...]:
    return (
        Row(task="wt", metric="dice", value=wt, low=wt - 0.05, high=wt + 0.05, n=8),
        Row(task="wt", metric="hd95", value=6.25, low=4.0, high=9.0, n=7, undefined=1),
        Row(task="idh", metric="auc", value=idh, n=8, positives=3),
    )


def summary(**changes: object) -> Summary:
    scores = {
        HOSTILE: SiteScores(dice={"wt": DiceSum.of([0.4, 0.6])}, auc={"idh": AucCount.of([0.9, 0.1], [True, False])}),
        "south": SiteScores(dice={"wt": DiceSum.of([0.8])}),
    }
    refusal = Missing(site="south", reason="a value of encoder.weight is not finite")
    values: dict[str, object] = {
        "name": "demo",
        "seed": 3,
        "synthetic": True,
        "plan": {"name": "demo", "rounds": 2},
        "plan_digest": "0f" * 32,
        "sites": (
            Site(name=HOSTILE, tasks=("wt", "idh"), training={"wt": 12}, held_out={"wt": 2, "idh": 2}, minimum_cell=1),
            Site(
                name="south", tasks=("wt",), training={"wt": 9}, held_out={"wt": 1}, minimum_cell=3, notes=("old <b>",)
            ),
        ),
        "rounds": (
            Round(index=1, present=(HOSTILE, "south"), seconds=2, bytes_down=2000, bytes_up=2000, **evaluated(scores)),
            Round(
                index=2,
                present=(HOSTILE,),
                refusals=(refusal,),
                absent=(Missing(site="east", reason="not connected"),),
                seconds=3,
                bytes_down=2,
                bytes_up=1,
            ),
        ),
        "test_cases": 8,
        "ways": (
            Way(name=FEDERATED, rows=table(0.8, 0.75), seconds=5, bytes=4003),
            Way(name=CENTRALISED, rows=table(0.82, 0.8)),
            Way(name=AVERAGED_LOCAL, rows=table(0.7, 0.6)),
            Way(name=local(HOSTILE), rows=table(0.6, 0.5)),
            Way(name=local("south"), rows=table(0.5, None)),
        ),
        "comparisons": (
            Comparison(task="wt", metric="dice", first=FEDERATED, second=CENTRALISED, n=8, difference=None, ratio=None),
        ),
        "totals": Totals(bytes_down=2002, bytes_up=2001, seconds=61),
        "caveats": ("8 cases prove the path, not accuracy.",),
    }
    return Summary(**{**values, **changes})


def images(seed: int) -> SliceImages:
    generator = np.random.default_rng(seed)
    truth = np.zeros((3, 60, 70, 50), dtype=bool)
    truth[0, 20:40, 30:50, 10:30] = truth[1, 25:35, 35:45, 15:25] = truth[2, 28:32, 38:42, 18:22] = True
    return slice_images(f"case-{seed}", generator.random((4, 60, 70, 50)), truth, truth * 0.9, (1.0, 1.0, 3.0), True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(summary(), [images(0), images(1)], path)
    return path


def text_of(report: Path) -> str:
    """Without the images, and with white space as a reader sees it."""
    return " ".join(re.sub(r"data:image/png;base64,[^\"]*", "PNG", report.read_text(encoding="utf-8")).split())


def test_a_summary_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "summary.json"
    write_summary(summary(), path)
    write_summary(summary(seed=4), path)
    assert read_summary(path) == summary(seed=4)
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("field", "value"), [("patients", ["x"]), ("version", "2"), ("plan_digest", "x"), ("seed", None)]
)
def test_a_strange_summary_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**summary().to_json(), field: value}))
    with pytest.raises(ConfigError, match=field):
        read_summary(path)


def test_no_summary_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_summary(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        read_summary(tmp_path / "bad.json")


def test_a_name_stands_once() -> None:
    with pytest.raises(ValueError, match="ways: one stands twice"):
        summary(ways=(Way(name=FEDERATED, rows=()), Way(name=FEDERATED, rows=())))


def test_every_field_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "summary.md").read_text(encoding="utf-8")
    for record in (Summary, Site, Round, Way, Row, Comparison):
        for field in record.model_fields:
            assert f"`{field}`" in page, f"{record.__name__}.{field}"


def test_a_round_pools_sums_and_not_means() -> None:
    first = summary().rounds[0]
    dice = next(row for row in first.pooled if row.task == "wt")
    assert dice.value == pytest.approx(0.6) and dice.n == 3
    assert first.sites[HOSTILE][0].value == pytest.approx(0.5)
    assert [row.task for row in first.sites["south"]] == ["wt"]


def test_headline_by_hand() -> None:
    columns, lines = headline(summary())
    assert columns == [FEDERATED, CENTRALISED, AVERAGED_LOCAL, "mean local"]
    assert [line.metric for line in lines] == ["Dice", "AUC"]
    dice, auc = lines
    assert (dice.cells[0].value, dice.cells[0].interval, dice.cells[0].support) == ("0.800", "0.750 to 0.850", "n = 8")
    assert (dice.cells[3].value, dice.cells[3].interval) == ("0.550", "sites 0.500 to 0.600")
    assert (auc.cells[0].support, auc.cells[3].value, auc.cells[3].support) == ("n = 8, 3 pos.", "0.500", "1 site")


def test_units() -> None:
    assert [size(count) for count in (None, 12, 2_500, 16_400_000, 3_000_000_000)] == [
        "–",
        "12 B",
        "2.5 kB",
        "16.4 MB",
        "3.0 GB",
    ]
    assert [duration(seconds) for seconds in (None, 4.2, 61, 7_500)] == ["–", "4.2 s", "1 min", "2 h 05 min"]
    assert (number(None), number(0.12345), number(6.25, "hd95")) == ("–", "0.123", "6.2")


def test_the_report_needs_nothing_beside_it(report: Path) -> None:
    text = text_of(report)
    assert not re.search(r"https?:|//[a-z]|<script|<link|<iframe|@import|url\(", text, re.IGNORECASE)
    assert len(re.findall('src="PNG"', text)) == 4
    assert report.stat().st_size < 1_500_000


def test_the_report_says_what_it_must(report: Path) -> None:
    text = text_of(report)
    for phrase in (
        "Synthetic data.",
        "Not for clinical use.",
        "8 cases prove the path, not accuracy.",
        "refused: a value of encoder.weight is not finite",
        "absent: not connected",
        "n = 7, 1 undefined",
        "hidden<small>2 held out",
        "0f" * 32,
    ):
        assert phrase in text, phrase


def test_names_are_text_and_never_markup(report: Path) -> None:
    text = text_of(report)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "old &lt;b&gt;" in text


def test_a_real_run_is_not_called_synthetic(tmp_path: Path) -> None:
    bare = summary(synthetic=False, rounds=(), ways=(), comparisons=(), caveats=())
    write_report(bare, [], tmp_path / "report.html")
    text = text_of(tmp_path / "report.html")
    assert "ynthetic" not in text
    assert "This run measured nothing on a test set." in text and "Not for clinical use." in text


def test_figures_are_drawn_even_when_there_is_nothing_to_draw() -> None:
    for one in (summary(), summary(rounds=(), ways=())):
        assert learning_curves(one).startswith(PNG)
        assert way_bars(one).startswith(PNG)
    nothing = np.zeros((3, 8, 9, 7))
    empty = slice_images("$none$", np.zeros((4, 8, 9, 7)), nothing > 0, nothing, (1.0, 1.0, 1.0), False)
    assert slices(empty).startswith(PNG)


def test_slices_are_cut_where_the_tumour_is_widest() -> None:
    truth = np.zeros((3, 6, 8, 10), dtype=bool)
    truth[0, 2, 3, 4] = truth[0, 2, 3, 5] = truth[0, 2, 4, 5] = True
    image = np.zeros((4, 6, 8, 10))
    image[3, 2, 3, 5] = 7.0  # FLAIR
    image[1, 2, 3, 5] = 5.0  # T1ce
    planes = {plane.name: plane for plane in slice_images("a", image, truth, truth * 0.0, (1, 2, 3), True).planes}
    assert planes["axial"].flair.shape == (8, 6) and planes["axial"].flair[3, 5 - 2] == 7
    assert planes["coronal"].t1ce.shape == (10, 6) and planes["coronal"].t1ce[5, 5 - 2] == 5
    assert planes["sagittal"].truth[0].shape == (10, 8) and planes["sagittal"].truth[0, 5].sum() == 2
    assert [planes[name].aspect for name in ("axial", "coronal", "sagittal")] == [2, 3, 1.5]
    assert not planes["axial"].prediction.any()


def test_terminal_table() -> None:
    out = StringIO()
    Console(file=out, width=120).print(terminal_table(summary(name="[red]demo")))
    text = out.getvalue()
    for phrase in (
        "[red]demo: 8 synthetic test cases",
        "0.800",
        "0.750 to 0.850",
        "mean local",
        "Not for clinical use",
    ):
        assert phrase in text
