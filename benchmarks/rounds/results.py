"""What a way took, and the table of all ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds.counting import Count, Span, traffic
from benchmarks.rounds.watch import NODE, RUN, SERVER

FLOWER, FLARE = "flower", "flare"


@dataclass(frozen=True)
class Result:
    """A way's rounds, in one turn.

    Attributes:
        seconds: of each round.
        down, up: bytes to and from a site in each round; empty where they are not counted.
        peaks: kind of process -> resident memory in bytes.
    """

    seconds: list[float]
    down: list[float]
    up: list[float]
    peaks: dict[str, int]

    @classmethod
    def of(cls, spans: Sequence[Span], counts: Mapping[str, list[Count]], peaks: dict[str, int]) -> "Result":
        """From what was seen; counts are empty where nobody counts."""
        bytes_of = [traffic(counts, span) for span in spans] if counts else []
        seconds = [span.seconds for span in spans]
        return cls(seconds, [down for down, _ in bytes_of], [up for _, up in bytes_of], peaks)


def table(rows: Mapping[str, tuple[str, Sequence[Result]]]) -> str:
    """A line for each way, key -> (name, its turns), with its ratio to those of the keys `flower` and `flare`.

    A ratio is taken within each turn; told are the median, and the least and largest.
    """
    lines = [
        "| | seconds | to Flower | to FLARE | down, MB | up, MB | server, GB | run's process, GB | site's node, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, turns in rows.values():
        ratios = (_ratio(turns, rows[key][1]) if key in rows else "–" for key in (FLOWER, FLARE))
        sent = (_megabytes([turn.down for turn in turns]), _megabytes([turn.up for turn in turns]))
        memory = (_gigabytes([turn.peaks.get(kind, 0) for turn in turns]) for kind in (SERVER, RUN, NODE))
        cells = (name, f"{later([turn.seconds for turn in turns]):.1f}", *ratios, *sent, *memory)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(turns: Sequence[Result], others: Sequence[Result]) -> str:
    ratios = [later([own.seconds]) / later([other.seconds]) for own, other in zip(turns, others, strict=True)]
    least, most = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return f"{median(ratios):.2f}" + (f" ({least}–{most})" if least != most else "")


def _megabytes(turns: Sequence[Sequence[float]]) -> str:
    return f"{later(turns) / 1e6:.1f}" if all(turns) else "–"


def _gigabytes(peaks: Sequence[int]) -> str:
    return f"{max(peaks) / 1e9:.2f}" if any(peaks) else "–"


def later(turns: Sequence[Sequence[float]]) -> float:
    """The median without each turn's first round, which lacks what a site already holds in all others."""
    return median(value for turn in turns for value in turn[1:])
