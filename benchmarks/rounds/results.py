"""What a way took, and the table of all ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds.counting import Count, Span, traffic
from benchmarks.rounds.watch import NODE, RUN, SERVER

FLOWER, FLARE = "flower", "flare"


@dataclass(frozen=True)
class Result:
    """A way's rounds.

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


def table(rows: Mapping[str, tuple[str, Result]]) -> str:
    """A line for each way, key -> (name, result), with its ratio to those of the keys `flower` and `flare`."""
    lines = [
        "| | seconds | to Flower | to FLARE | down, MB | up, MB | server, GB | run's process, GB | site's node, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in rows.values():
        ratios = (_ratio(result, rows[key][1]) if key in rows else "–" for key in (FLOWER, FLARE))
        sent = (f"{later(values) / 1e6:.1f}" if values else "–" for values in (result.down, result.up))
        memory = (f"{result.peaks[kind] / 1e9:.2f}" if kind in result.peaks else "–" for kind in (SERVER, RUN, NODE))
        cells = (name, f"{later(result.seconds):.1f}", *ratios, *sent, *memory)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(result: Result, other: Result) -> str:
    return f"{later(result.seconds) / later(other.seconds):.2f}"


def later(values: Sequence[float]) -> float:
    """The median without the first round, which lacks what a site already holds in all others."""
    return median(values[1:])
