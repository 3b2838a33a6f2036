"""The simulation with 4, 23 and 100 sites, and on a cluster of two nodes: seconds, memory, and where the time goes.

    python -m benchmarks.scale [--out runs/scale] [--json] [--cells 4 100]

Sites have two small synthetic patients each; the 23 have sizes like FeTS' institutions (benchmarks/scale_run.py). Tiny
preset, one step a round, two sites at a time: what counts is what a federation costs besides its training. Each cell
runs in a process of its own and is kept, and done again where its file is removed. Writes the table into
docs/benchmarks.md and the plot beside it.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.scale_cost import Outcome
from benchmarks.scale_run import CELLS, FETS_SHARE, PROCESSES, STEPS
from benchmarks.tables import replace_table
from shared_model.checkpoint import read_json

PAGE, PLOT = Path("docs/benchmarks.md"), Path("docs/scale.png")
PHASES = {
    "sending": "#999999",
    "evaluation": "#56B4E9",
    "training": "#0072B2",
    "carrying": "#E69F00",
    "reduction": "#D55E00",
    "commit": "#CC79A7",
}
COLUMNS = (
    "sites",
    "patients",
    "nodes",
    "opening",
    "first round",
    "last round",
    *(f"of it {phase}" for phase in PHASES),
    "closing",
    "last round, a site",
    "coordinator, MB",
    "worker, MB",
)


def run(name: str, out: Path) -> Outcome:
    """A cell's outcome, which is kept."""
    path = out / f"{name}.json"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.scale_run", name, "--out", str(out)], check=True)
    return Outcome.from_json(read_json(path))


def table(outcomes: list[Outcome]) -> str:
    lines = [
        f"Synthetic patients, tiny preset, {STEPS} step of one crop a round, {PROCESSES} sites at a time; seconds. "
        f"23 sites are sized like FeTS' institutions, a patient for {FETS_SHARE} of its cases and two at least.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
    ]
    for found in outcomes:
        last = found.rounds[-1]
        cells = [
            str(found.sites),
            str(found.patients),
            "2, one CPU each" if found.cluster else "1",
            f"{found.opening:.1f}",
            f"{found.rounds[0].seconds:.1f}",
            f"{last.seconds:.1f}",
            *(f"{getattr(last, phase):.1f}" for phase in PHASES),
            f"{found.closing:.1f}",
            f"{last.seconds / found.sites:.2f}",
            f"{found.coordinator:.0f}",
            f"{found.worker:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(outcomes: list[Outcome], path: Path) -> None:
    """Seconds of the last round by phase, and memory beside it."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    places = range(len(outcomes))
    names = [f"{found.sites}\n{'two nodes' if found.cluster else 'one node'}" for found in outcomes]
    bottom = [0.0] * len(outcomes)
    for phase, colour in PHASES.items():
        heights = [getattr(found.rounds[-1], phase) for found in outcomes]
        seconds.bar(places, heights, 0.6, bottom, color=colour, label=phase)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    seconds.set_ylabel("seconds of the last round")
    memory.bar([place - 0.18 for place in places], [found.coordinator for found in outcomes], 0.34, label="coordinator")
    memory.bar([place + 0.18 for place in places], [found.worker for found in outcomes], 0.34, label="a worker")
    memory.set_ylabel("most memory of its own, MB")
    for axes in (seconds, memory):
        axes.set_xticks(places, names)
        axes.set_xlabel("sites")
        axes.set_ylim(top=1.25 * axes.get_ylim()[1])
        axes.legend(fontsize=7, frameon=False, ncols=2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("synthetic data", fontsize=8, x=0.99, ha="right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the simulation with more and more sites.")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS), help="all if left out")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON instead of the table")
    arguments = parser.parse_args()
    started = time.monotonic()
    outcomes = [run(name, arguments.out) for name in arguments.cells]
    text = table(outcomes)
    print(json.dumps([asdict(found) for found in outcomes], indent=1) if arguments.json else text)
    print(f"synthetic; {(time.monotonic() - started) / 60:.1f} min", file=sys.stderr)
    replace_table(PAGE, "scale", f"{text}\n\n![Seconds of a round and memory, against sites]({PLOT.name})")
    plot(outcomes, PLOT)


if __name__ == "__main__":
    main()
