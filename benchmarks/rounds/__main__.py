"""A round over loopback with TLS and SQLite, two sites and a step of two seconds: ours with each way to carry an
update, stock Flower FedAvg and NVIDIA FLARE, all in one run; and what a round costs without model and step.

    python -m benchmarks.rounds [--rounds 4] [--turns 1] [--only WAY ...] [--flare COMMAND] [--json FILE]

A machine's speed changes within minutes: with several turns all ways run one after another, again and again.

COMMAND is given CLIENTS, --params and --rounds, runs NVIDIA FLARE, and prints `round N: ... SECONDS s` for each round;
without it that way is left out. The tables go into docs/benchmarks.md, but not with --only or another --preset.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds.counting import COUNTS, Span, read_counts
from benchmarks.rounds.ours import SITES, run_ours
from benchmarks.rounds.results import FLARE, FLOWER, Result, table
from benchmarks.rounds.step import NOISE, SECONDS, make_noise
from benchmarks.rounds.stock import run_stock
from benchmarks.rounds.watch import MARK, Watch
from benchmarks.tables import replace_table

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).with_name("stub")
WEIGHTS = {"tiny": 4_125_123, "base": 62_542_791}
STEP_SECONDS = 2.0
PRESET = "base"
OURS, STOCK = "ours", "stock"
LINE = re.compile(r"^round \d+:.*? ([0-9.]+) s\b", re.MULTILINE)


@dataclass(frozen=True)
class Way:
    """How rounds are run.

    Attributes:
        fixed: without a step, with the smallest preset.
        changes: of ours, keys of the plan.
    """

    name: str
    by: str
    fixed: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


ADAPTERS = {"training": {"parts": ["adapters", "heads"]}, "compression": "int8"}
WAYS = {
    "none": Way("ours, float32", OURS),
    "fp16": Way("ours, float16", OURS, changes={"compression": "fp16"}),
    "int8": Way("ours, int8", OURS, changes={"compression": "int8"}),
    "adapters": Way("ours, adapters and heads, int8", OURS, changes=ADAPTERS),
    FLOWER: Way("stock Flower FedAvg", STOCK),
    FLARE: Way("NVIDIA FLARE FedAvg", FLARE),
    "fixed": Way("ours", OURS, fixed=True),
    "fixed-flower": Way("stock Flower FedAvg", STOCK, fixed=True),
}


def measure(key: str, rounds: int, preset: str, command: list[str]) -> Result:
    """Run a way in processes of its own."""
    way = WAYS[key]
    preset = "tiny" if way.fixed else preset
    run: dict[str, Callable[[Path], list[Span]]] = {
        OURS: lambda folder: run_ours(folder, rounds, preset, way.changes),
        STOCK: lambda folder: run_stock(folder, rounds, WEIGHTS[preset]),
        FLARE: lambda folder: run_flare(command, rounds, WEIGHTS[preset]),
    }
    watch = Watch(key)
    with tempfile.TemporaryDirectory() as name:
        folder, counted = Path(name), Path(name) / "counts"
        surround(folder, key, WEIGHTS[preset], 0.0 if way.fixed else STEP_SECONDS)
        with watch.watching():
            spans = run[way.by](folder)
        counts = read_counts(counted)
    if len(spans) != rounds:
        raise RuntimeError(f"{key}: {len(spans)} of {rounds} rounds")
    return Result.of(spans, counts, watch.peaks)


def surround(folder: Path, mark: str, weights: int, seconds: float) -> None:
    """Make what the stub of a site's training needs, and let every process that starts from now on find it."""
    make_noise(folder / "noise.npy", weights)
    (folder / "counts").mkdir()
    os.environ |= {
        MARK: mark,
        COUNTS: str(folder / "counts"),
        NOISE: str(folder / "noise.npy"),
        SECONDS: str(seconds),
        "PYTHONPATH": f"{STUB}{os.pathsep}{ROOT}",
    }


def run_flare(command: list[str], rounds: int, weights: int) -> list[Span]:
    """The rounds that a command tells of; only their lengths count."""
    arguments = [str(len(SITES)), "--params", str(weights), "--rounds", str(rounds)]
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*command, *arguments], env=surroundings, stdout=subprocess.PIPE, text=True, check=True)
    return [Span(0.0, float(seconds)) for seconds in LINE.findall(done.stdout)]


def report(results: Mapping[str, Sequence[Result]], rounds: int, preset: str) -> str:
    """A table of the whole rounds, and one of what a round costs by itself, from the turns of each way."""
    turns = max(len(found) for found in results.values())
    by_turns = f", {turns} turns" if turns > 1 else ""
    date = time.strftime("%d %B %Y").lstrip("0")
    whole = {key: (WAYS[key].name, found) for key, found in results.items() if not WAYS[key].fixed}
    fixed = {key.removeprefix("fixed-"): (WAYS[key].name, results[key]) for key in results if WAYS[key].fixed}
    texts = {
        f"{len(SITES)} sites, preset {preset} ({WEIGHTS[preset]:,} weights), a step of {STEP_SECONDS:g} s; medians of "
        f"rounds 2 to {rounds}{by_turns}, {date}. Bytes are a site's, in a round.": whole,
        f"What a round costs by itself: preset tiny ({WEIGHTS['tiny']:,} weights), no step.": fixed,
    }
    return "\n\n".join(f"{title}\n\n{table(rows)}" for title, rows in texts.items() if rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="at least 2")
    parser.add_argument("--turns", type=int, default=1, help="at least 1")
    parser.add_argument("--preset", choices=list(WEIGHTS), default=PRESET)
    parser.add_argument("--only", nargs="+", choices=list(WAYS))
    parser.add_argument("--flare", type=shlex.split, metavar="COMMAND", default=[])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: the first one does not count, so at least 2")
    if arguments.turns < 1:
        parser.error("--turns: at least 1")
    if FLARE in (arguments.only or ()) and not arguments.flare:
        parser.error("--flare: missing, that way runs this command")
    keys = arguments.only or [key for key in WAYS if key != FLARE or arguments.flare]
    results: dict[str, list[Result]] = {key: [] for key in keys}
    for key in keys * arguments.turns:
        results[key].append(measure(key, arguments.rounds, arguments.preset, arguments.flare))
        print(json.dumps({key: asdict(results[key][-1])}), flush=True)
    text = report(results, arguments.rounds, arguments.preset)
    print(text)
    if not arguments.only and arguments.preset == PRESET:
        replace_table(ROOT / "docs" / "benchmarks.md", "rounds", text)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({key: [asdict(turn) for turn in found] for key, found in results.items()}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
