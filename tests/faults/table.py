"""The matrix in docs/reliability.md, written when every cell of it has run and passed."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from benchmarks.tables import replace_table
from tests.faults.cells import POSSIBLE, PROCESSES, STATES, WHERE, Cell

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
PROPERTY = "outcome"
"""Under which a test's report carries its outcome."""
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


def write(outcomes: Sequence[Outcome]) -> bool:
    """Put the table between its marks if it is whole; whether it was."""
    if {outcome.cell for outcome in outcomes} != set(POSSIBLE):
        return False
    replace_table(DOCUMENT, "kills", "\n".join(lines(outcomes)))
    return True
