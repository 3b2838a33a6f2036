"""Collects what became of each kill, from whatever worker, and writes the table when all of them ran; makes federations
for tests of rough weather.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from tests.faults.table import DOCUMENT, PROPERTY, TOLD, WEATHER, Outcome, Tell, write, write_weather
from tests.faults.weather import Make, Weather
from tests.federation import Cohort


@pytest.fixture
def make(tmp_path: Path, cohort: Cohort) -> Iterator[Make]:
    made: list[Weather] = []

    def build(**choices: Any) -> Weather:
        made.append(Weather(tmp_path / "world", cohort, **choices))
        return made[-1]

    yield build
    for world in made:
        world.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Told a row of the table and what came of it, once that is known."""

    def tell(row: str, came: str) -> None:
        assert row in WEATHER
        record_property(TOLD, json.dumps([row, came]))

    return tell


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    found = [(name, str(value)) for report in reports for name, value in report.user_properties]
    outcomes = [Outcome.model_validate_json(text) for name, text in found if name == PROPERTY]
    told = [(row, came) for row, came in (json.loads(text) for name, text in found if name == TOLD)]
    for one in outcomes:
        how = "by resume" if one.resumed else "by itself"
        terminalreporter.write_line(f"{one.cell.name}: ended {how} after {one.seconds:.0f} s")
    for row, came in told:
        terminalreporter.write_line(f"{WEATHER[row]}: {came}")
    if write(outcomes) or write_weather(told):
        terminalreporter.write_line(f"written: {DOCUMENT}")
