"""The report of a run: one HTML file that needs nothing beside it, and a table for the terminal."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from server.plots import MAIN_METRIC, SliceImages, learning_curves, slices, way_bars
from server.summary import AVERAGED_LOCAL, CENTRALISED, FEDERATED, Comparison, Round, Row, Summary, Way
from shared_model.metrics import Estimate
from shared_model.scores import METRICS
from shared_model.tasks import TASKS

HEADLINE = tuple(metric for metric in METRICS if metric == "dice" or metric.startswith("auc"))
MEAN_LOCAL = "mean local"


@dataclass(frozen=True)
class Cell:
    """One value as the tables show it."""

    value: str
    interval: str = ""
    support: str = ""


@dataclass(frozen=True)
class Line:
    """One row of a table: what is measured, and its value for each column."""

    title: str
    metric: str
    cells: tuple[Cell, ...]


EMPTY = Cell("–")


def number(value: float | None, metric: str = "") -> str:
    """Three decimals; a distance in mm has one."""
    if value is None:
        return "–"
    return f"{value:.1f}" if metric == "hd95" else f"{value:.3f}"


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float | None) -> str:
    """Seconds below a minute, else minutes, else hours."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def share(part: float | None) -> str:
    """A small part of a whole in per cent."""
    return "–" if part is None else f"{100 * part:.2g} %"


def _interval(low: float | None, high: float | None, metric: str = "") -> str:
    return "" if low is None or high is None else f"{number(low, metric)} to {number(high, metric)}"


def _cell(row: Row | None) -> Cell:
    if row is None:
        return EMPTY
    support = f"n = {row.n}"
    if row.positives is not None:
        support += f", {row.positives} pos."
    if row.undefined:
        support += f", {row.undefined} undefined"
    return Cell(number(row.value, row.metric), _interval(row.low, row.high, row.metric), support)


def _find(rows: Sequence[Row], task: str, metric: str) -> Row | None:
    return next((row for row in rows if (row.task, row.metric) == (task, metric)), None)


def _mean_local(ways: Sequence[Way], task: str, metric: str) -> Cell:
    """Mean and range over the sites trained alone; a site that does not train the task has no part in it."""
    found = [_find(way.rows, task, metric) for way in ways]
    values = [row.value for row in found if row is not None and row.value is not None]
    if not values:
        return EMPTY
    spread = f"sites {number(min(values), metric)} to {number(max(values), metric)}" if len(values) > 1 else ""
    return Cell(number(fmean(values), metric), spread, f"{len(values)} site{'s' * (len(values) > 1)}")


def _measured(ways: Sequence[Way]) -> list[tuple[str, str]]:
    """Every (task, metric) that some way has, in the order of TASKS and METRICS."""
    there = {(row.task, row.metric) for way in ways for row in way.rows}
    return [(task, metric) for task in TASKS for metric in METRICS if (task, metric) in there]


def headline(summary: Summary) -> tuple[list[str], list[Line]]:
    """Columns and lines: federated, centralised and averaged local where the run has them, and the mean local model."""
    columns = [name for name in (FEDERATED, CENTRALISED, AVERAGED_LOCAL) if summary.rows(name)]
    alone = summary.locals()
    lines = []
    for task, metric in _measured(summary.ways):
        if metric in HEADLINE:
            cells = [_cell(_find(summary.rows(name), task, metric)) for name in columns]
            if alone:
                cells.append(_mean_local(alone, task, metric))
            lines.append(Line(TASKS[task].title, METRICS[metric], tuple(cells)))
    return columns + [MEAN_LOCAL] * bool(alone), lines


def every_value(summary: Summary) -> list[Line]:
    """All metrics of all ways of training."""
    return [
        Line(TASKS[task].title, METRICS[metric], tuple(_cell(_find(way.rows, task, metric)) for way in summary.ways))
        for task, metric in _measured(summary.ways)
    ]


def _compared(row: Comparison) -> Line:
    def cell(found: Estimate | None, metric: str = "") -> Cell:
        if found is None:
            return EMPTY
        return Cell(number(found.value, metric), _interval(found.low, found.high, metric))

    cells = (Cell(f"{row.first} vs {row.second}", support=f"n = {row.n}"), cell(row.difference, row.metric))
    return Line(TASKS[row.task].title, METRICS[row.metric], (*cells, cell(row.ratio)))


def _round_values(one: Round, tasks: Sequence[str]) -> list[str]:
    found = [_find(one.pooled, task, MAIN_METRIC[task]) for task in tasks]
    return [number(row.value) if row is not None else "–" for row in found]


def write_report(summary: Summary, slices_of_cases: Sequence[SliceImages], path: Path) -> None:
    """Write the HTML file.

    Args:
        slices_of_cases: test cases to show; each adds some 200 kB.
    """
    environment = Environment(
        loader=PackageLoader("server"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(size=size, duration=duration, share=share)
    columns, lines = headline(summary)
    tasks = [task for task in TASKS if any(task in site.tasks for site in summary.sites)]
    html = environment.get_template("report.html").render(
        summary=summary,
        columns=columns,
        lines=lines,
        compared=[_compared(row) for row in summary.comparisons if row.metric in HEADLINE],
        every_value=every_value(summary),
        tasks=[TASKS[task] for task in tasks],
        rounds=[(one, _round_values(one, tasks)) for one in summary.rounds],
        compressed=any(one.error_up is not None for one in summary.rounds),
        private=any(site.privacy for site in summary.sites),
        missing=[one for one in summary.rounds if one.refusals or one.absent or one.flagged],
        curves=_embedded(learning_curves(summary)) if any(one.pooled for one in summary.rounds) else None,
        bars=_embedded(way_bars(summary)) if summary.ways else None,
        slices=[(images.case, _embedded(slices(images))) for images in slices_of_cases],
        plan=json.dumps(summary.plan, indent=2, sort_keys=True),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def terminal_table(summary: Summary) -> Table:
    """The headline for the end of a run."""
    columns, lines = headline(summary)
    table = Table(
        title=escape(f"{summary.name}: {summary.test_cases} {'synthetic ' * summary.synthetic}test cases"),
        caption="Below each value its 95 % interval, for mean local the range over sites.\nNot for clinical use.",
        show_lines=True,
    )
    table.add_column("task and metric")
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        cells = ["\n".join(filter(None, (cell.value, cell.interval, cell.support))) for cell in line.cells]
        table.add_row(f"{line.title}\n{line.metric}", *cells)
    return table
