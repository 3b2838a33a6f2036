"""Memory of the server and of a run's process in real federations of more and more sites, base preset, TLS and SQLite.

    python -m benchmarks.rounds.memory [--sites 2 4 8 32] [--compression none int8] [--json FILE]

Up to four sites are real clients and do three rounds, with the stub of `benchmarks.rounds` without its wait; more are
threads that answer over the fleet API, and do one. The server's memory is told above what it has when all sites are
connected and nothing runs, and so is its floor, beneath which it does not fall once half of the run is over; a run's
process starts with the run, and is told whole. Writes docs/benchmarks.md.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds.__main__ import PRESET, ROOT, WEIGHTS, surround
from benchmarks.rounds.ours import hospitals, run_ours
from benchmarks.rounds.protocol import senders
from benchmarks.rounds.watch import RUN, SERVER, Watch
from benchmarks.tables import replace_table
from shared_model.compression import CODECS

MODEL_GB = WEIGHTS[PRESET] * 4 / 1e9
REAL, ROUNDS = 4, 3
"""Most sites that are real clients, and their rounds."""


def measure(compression: str, sites: int) -> dict[str, float]:
    """GB of the server when idle, of its floor and its peak in the run above that, and of a run's process."""
    key = f"{compression}, {sites} sites"
    watch = Watch(key)
    names = [f"site-{number}" for number in range(sites)]
    with tempfile.TemporaryDirectory() as name:
        surround(Path(name), key, WEIGHTS[PRESET], 0.0)
        with watch.watching():
            rounds, joined = (ROUNDS, hospitals) if sites <= REAL else (1, senders)
            run_ours(Path(name), rounds, PRESET, {"compression": compression}, names, joined, watch.begin)
    idle, floor, peak = watch.idle[SERVER] / 1e9, watch.floor(SERVER) / 1e9, watch.peaks[SERVER] / 1e9
    return {"idle": idle, "floor": floor - idle, "above": peak - idle, "run": watch.peaks[RUN] / 1e9}


def table(rows: Sequence[tuple[str, int, dict[str, float]]]) -> str:
    lines = [
        f"Preset {PRESET} ({MODEL_GB * 1e3:.0f} MB), the largest process of its kind. Up to {REAL} sites are real "
        f"clients, with {ROUNDS} rounds; more are senders over the fleet API, with one.",
        "",
        "| compression | sites | server idle, MB | its floor in the run, above that | its peak, above idle | in models "
        "| run's process, GB | in models |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for compression, sites, found in rows:
        above, run = found["above"], found["run"]
        lines.append(
            f"| {compression} | {sites} | {found['idle'] * 1e3:.0f} | {found['floor'] * 1e3:.1f} | {above * 1e3:.1f} "
            f"| {above / MODEL_GB:.2f} | {run:.2f} | {run / MODEL_GB:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4, 8, 32])
    parser.add_argument("--compression", nargs="+", choices=list(CODECS), default=["none", "int8"])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    rows = []
    for compression in given.compression:
        for sites in given.sites:
            rows.append((compression, sites, measure(compression, sites)))
            print(rows[-1], flush=True)
    text = table(rows)
    print(text)
    replace_table(ROOT / "docs" / "benchmarks.md", "memory", text)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
