"""Memory of the server and of a run's process in real federations of more and more sites, base preset, TLS and SQLite.

    python -m benchmarks.rounds.memory [--sites 2 4] [--compression none int8] [--rounds 3] [--json FILE]

Training is the stub of `benchmarks.rounds`, without its wait. The server's memory is told above what it has when all
sites are connected and nothing runs; a run's process starts with the run, and is told whole. Writes docs/benchmarks.md.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds.__main__ import PRESET, ROOT, WEIGHTS, surround
from benchmarks.rounds.ours import run_ours
from benchmarks.rounds.watch import RUN, SERVER, Watch
from benchmarks.tables import replace_table
from shared_model.compression import CODECS

MODEL_GB = WEIGHTS[PRESET] * 4 / 1e9


def measure(compression: str, sites: int, rounds: int) -> dict[str, float]:
    """GB of the server when idle, of the server above that, and of a run's process."""
    key = f"{compression}, {sites} sites"
    watch = Watch(key)
    names = [f"site-{number}" for number in range(sites)]
    with tempfile.TemporaryDirectory() as name:
        surround(Path(name), key, WEIGHTS[PRESET], 0.0)
        with watch.watching():
            run_ours(Path(name), rounds, PRESET, {"compression": compression}, names, watch.begin)
    idle, peak, run = watch.idle[SERVER] / 1e9, watch.peaks[SERVER] / 1e9, watch.peaks[RUN] / 1e9
    return {"idle": idle, "above": peak - idle, "run": run}


def table(rows: Sequence[tuple[str, int, dict[str, float]]], rounds: int) -> str:
    lines = [
        f"Preset {PRESET} ({MODEL_GB * 1e3:.0f} MB), {rounds} rounds; the largest process of its kind.",
        "",
        "| compression | sites | server idle, GB | above idle, GB | in models | run's process, GB | in models |",
        "|---|---|---|---|---|---|---|",
    ]
    for compression, sites, found in rows:
        above, run = found["above"], found["run"]
        lines.append(
            f"| {compression} | {sites} | {found['idle']:.2f} | {above:.2f} | {above / MODEL_GB:.1f} "
            f"| {run:.2f} | {run / MODEL_GB:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--compression", nargs="+", choices=list(CODECS), default=["none", "int8"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    rows = []
    for compression in given.compression:
        for sites in given.sites:
            rows.append((compression, sites, measure(compression, sites, given.rounds)))
            print(rows[-1], flush=True)
    text = table(rows, given.rounds)
    print(text)
    replace_table(ROOT / "docs" / "benchmarks.md", "memory", text)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
