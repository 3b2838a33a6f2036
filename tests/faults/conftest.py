"""Collects what became of each kill, from whatever worker, and writes the table when all of them ran; makes federations
for tests of rough weather.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from tests.faults.table import DOCUMENT, PROPERTY, Outcome, write
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


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.when == "call"]
    told = [str(value) for report in reports for name, value in report.user_properties if name == PROPERTY]
    outcomes = [Outcome.model_validate_json(text) for text in told]
    for one in outcomes:
        how = "by resume" if one.resumed else "by itself"
        terminalreporter.write_line(f"{one.cell.name}: ended {how} after {one.seconds:.0f} s")
    if write(outcomes):
        terminalreporter.write_line(f"written: {DOCUMENT}")
