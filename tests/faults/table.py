"""The tables in docs/reliability.md, each written when every row or cell of it has run and passed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel

from benchmarks.tables import replace_table
from tests.faults.cells import POSSIBLE, PROCESSES, STATES, WHERE, Cell

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PROPERTY = "outcome"
"""Under which a test's report carries its outcome."""
WEATHER = {
    "cut": "the connection is cut four times in mid-upload",
    "slow": "a link of 1 Mbit/s with 500 ms of delay",
    "announced": "an upload stops after its announcement",
    "late": "an answer after the round's deadline",
    "for ever": "a site trains for ever",
    "comes and goes": "a site goes and comes again",
    "full coordinator": "the coordinator can write no more",
    "full site": "a site can write no more",
    "read-only coordinator": "the run's folder can only be read",
    "read-only site": "a site's state folder can only be read",
    "read-only start": "a start in a folder that can only be read",
    "site's clock": "a site's clock jumps by two hours either way, and is set right",
    "coordinator's clock": "the coordinator's clock does",
    "many rounds": "twenty rounds in a row",
}
"""Row -> what happens there; what comes of it, the tests tell."""
TOLD = "told"
"""Under which a test's report carries a row and what came of it."""
Tell = Callable[[str, str], None]
IMPOSSIBLE = "n/a [1]"
NOTE = "[1] A site works on no message then, or on one whose kill is that of training or uploading."


class Outcome(BaseModel):
    """How a run went on after a kill.

    Attributes:
        resumed: whether it took `mtsunet-server resume`.
        seconds: from the kill to the run's end.
        equal: whether every round's model has the bytes of the unbroken run's.
    """

    state: str
    process: str
    resumed: bool
    seconds: float
    equal: bool

    @property
    def cell(self) -> Cell:
        return Cell(self.state, self.process)


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """A Markdown table of states by processes."""
    known = {outcome.cell: outcome for outcome in outcomes}
    rows = [["killed while", *PROCESSES.values()], ["---"] * (1 + len(PROCESSES))]
    for state in STATES:
        cells = [Cell(state, process) for process in PROCESSES]
        told = [_told(known[cell]) if cell in known else IMPOSSIBLE for cell in cells]
        rows.append([f"**{state}**: {WHERE[state]}", *told])
    return [f"| {' | '.join(row)} |" for row in rows] + ["", NOTE]


def _told(outcome: Outcome) -> str:
    how = "resumed" if outcome.resumed else "by itself"
    return f"{how}, {outcome.seconds:.0f} s{'' if outcome.equal else ', **other bytes**'}"


def write_weather(told: Sequence[tuple[str, str]]) -> bool:
    """Put the table of rough weather between its marks if it is whole; whether it was."""
    if {row for row, _ in told} != set(WEATHER):
        return False
    rows = ["| what | what comes of it |", "|---|---|"]
    for row, what in WEATHER.items():
        rows.append(f"| {what} | {'; '.join(sorted({came for name, came in told if name == row}))} |")
    replace_table(DOCUMENT, "weather", "\n".join(rows))
    return True


def write(outcomes: Sequence[Outcome]) -> bool:
    """Put the table between its marks if it is whole; whether it was."""
    if {outcome.cell for outcome in outcomes} != set(POSSIBLE):
        return False
    replace_table(DOCUMENT, "kills", "\n".join(lines(outcomes)))
    return True
