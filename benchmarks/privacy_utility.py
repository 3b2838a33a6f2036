"""What privacy costs: a federation of four hospitals with 300 synthetic patients each, at several epsilons.

    python -m benchmarks.privacy_utility [--out runs/privacy_utility]

All cells begin with one model that was trained without privacy on other synthetic patients, as a hospital would begin
with public weights, and far from finished, so that there is something to gain; it is made once and kept. Each site then
takes part in 5 rounds of 10 steps, with 8 patients a step on average. Epsilon "none" trains plainly. The last cell
trains everything at once, and is there as a warning. A gain is paired over the same test cases. Writes the table into
docs/privacy.md and the plot beside it.
"""

import argparse
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks.cached_cohort import write_patients
from benchmarks.cached_federation import Pooled, federated, mean_dices, tested
from benchmarks.tables import replace_table
from client.data.phantom.cohort import HOSPITALS, TEST
from shared_model.accounting import epsilon, noise_for
from shared_model.checkpoint import read_json, write_json
from shared_model.config import Plan, parse_config
from shared_model.guarantee import Guarantee
from shared_model.metrics import Estimate, Statistic, auc_statistic, estimate, mean_statistic, paired
from shared_model.parameters import Tensors
from shared_model.planning import size
from shared_model.scores import CaseResult
from shared_model.tasks import GRADE_4

SEED, OTHER_SEED = 61, 62
PATIENTS, TEST_PATIENTS, PRETRAINING_PATIENTS = 300, 120, 300
ROUNDS, STEPS, EXPECTED = 5, 10, 8
DELTA, CLIP = 1e-5, 1.0
PRETRAINING = Pooled("pretraining", OTHER_SEED, steps=100, batch=4)
PARTS = {"heads": ("heads",), "adapters and heads": ("adapters", "heads"), "all": ("all",)}
NONE = math.inf
CELLS = [(parts, target) for parts in list(PARTS)[:2] for target in (NONE, 8.0, 3.0, 1.0)] + [("all", 8.0)]
MEASURES = ("mean Dice", "IDH AUC", "1p/19q AUC", "grade 4 AUC")


@dataclass(frozen=True)
class Outcome:
    """Of one cell.

    Attributes:
        noise, epsilon: of each site; 0 and None for plain training.
        numbers: trained in a round.
        results: of the test cases, in order.
        seconds: of all sites' training.
    """

    noise: float
    epsilon: float | None
    numbers: int
    results: list[CaseResult]
    seconds: float


def plan_of(parts: str, noise: float | None) -> Plan:
    values = {
        "name": "privacy-utility",
        "seed": SEED,
        "synthetic": True,
        "rounds": ROUNDS,
        "training": {
            "local_steps": STEPS,
            "batch_size": EXPECTED,
            "crop": [64, 32, 32],
            "learning_rate": 1e-3,
            "class_learning_rate": 1e-3,
            "warmup_steps": 5,
            "parts": PARTS[parts],
        },
        "privacy": noise and {"noise": noise, "clip": CLIP, "patients_per_step": EXPECTED, "delta": DELTA},
    }
    return parse_config(Plan, values, "privacy_utility")


def pretrained(folder: Path) -> Tensors:
    """The model that all cells begin with, trained on other patients of one hospital."""
    return PRETRAINING.trained(folder / "pretrained.safetensors", [folder / PRETRAINING.name], plan_of("all", None))


def statistics(results: list[CaseResult]) -> dict[str, Statistic]:
    """Mean Dice over regions that are there, and the AUC of mutant, of codeleted, of grade 4."""
    found = {"mean Dice": mean_statistic(mean_dices(results))}
    for name, task, positive in (
        ("IDH AUC", "idh", 1),
        ("1p/19q AUC", "codeletion", 1),
        ("grade 4 AUC", "grade", GRADE_4),
    ):
        scores = [row.probabilities[task][positive] for row in results]
        found[name] = auc_statistic(scores, [row.labels[task] == positive for row in results])
    return found


def measured(results: list[CaseResult]) -> dict[str, Estimate]:
    """Each measure with its 95 % bootstrap interval over test cases."""
    return {name: _told(estimate(statistic, len(results), SEED)) for name, statistic in statistics(results).items()}


def gained(results: list[CaseResult], begin: list[CaseResult]) -> dict[str, Estimate]:
    """What each measure gained over the beginning, paired over the same cases."""
    first = statistics(begin)
    pairs = {name: paired(statistic, first[name], len(begin), SEED) for name, statistic in statistics(results).items()}
    return {name: _told(difference) for name, (difference, _) in pairs.items()}


def _told(value: Estimate | None) -> Estimate:
    if value is None:
        raise ValueError("the test cases do not tell a measure; there must be cases of each class")
    return value


def run_cell(folder: Path, parts: str, target: float) -> Outcome:
    """Train and test one cell, unless it is kept."""
    torch.set_num_threads(1)
    path = folder / "cells" / f"{parts}-{target:g}.json".replace(" ", "-")
    if not path.exists():
        rate = EXPECTED / PATIENTS
        noise = 0.0 if target == NONE else noise_for(target, DELTA, rate, ROUNDS * STEPS)
        plan = plan_of(parts, noise or None)
        guarantee = Guarantee(noise=noise, clip=CLIP, rate=rate, delta=DELTA) if noise else None
        started = time.perf_counter()
        model, _ = federated(folder, pretrained(folder), plan, guarantee)
        seconds = time.perf_counter() - started
        cost = epsilon([guarantee.of(ROUNDS * STEPS)], DELTA) if guarantee else None
        results = [result.to_json() for result in tested(folder, plan, model)]
        values = {"noise": noise, "epsilon": cost, "numbers": size(plan), "results": results, "seconds": seconds}
        write_json(path, values)
    kept = read_json(path)
    return Outcome(**{**kept, "results": [CaseResult.from_json(result) for result in kept["results"]]})


def table(begin: list[CaseResult], outcomes: dict[tuple[str, float], Outcome]) -> str:
    lines = [
        f"Synthetic. Four sites of {PATIENTS} patients, {ROUNDS} rounds of {STEPS} steps, {EXPECTED} patients a step, "
        f"clip {CLIP:g}, delta {DELTA:g}; one seed, {TEST_PATIENTS} test cases. The beginning's values, then what each "
        "cell gained over it, with 95 % bootstrap intervals paired over cases.",
        "",
        f"| trained | numbers | epsilon | noise | {' | '.join(MEASURES)} |",
        "|---|---|---|---|" + "---|" * len(MEASURES),
        f"| nothing: the beginning | 0 | | | {_values(measured(begin))} |",
    ]
    for (parts, _), found in outcomes.items():
        cost = "none" if found.epsilon is None else f"{found.epsilon:.2g}"
        noise = f"{found.noise:.2f}" if found.noise else "none"
        lines.append(f"| {parts} | {found.numbers} | {cost} | {noise} | {_values(gained(found.results, begin), '+')} |")
    return "\n".join(lines)


def _values(values: dict[str, Estimate], sign: str = "") -> str:
    shown = []
    for name in MEASURES:
        low, high = _bounds(values[name])
        shown.append(f"{values[name].value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})")
    return " | ".join(shown)


def _bounds(value: Estimate) -> tuple[float, float]:
    return (
        value.value if value.low is None else value.low,
        value.value if value.high is None else value.high,
    )


def plot(begin: list[CaseResult], outcomes: dict[tuple[str, float], Outcome], path: Path) -> None:
    """What each measure gained over the beginning, against epsilon, with paired intervals."""
    gains = {cell: gained(found.results, begin) for cell, found in outcomes.items()}
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    places = {1.0: 0, 3.0: 1, 8.0: 2, NONE: 3}
    colours = {"heads": "#0072B2", "adapters and heads": "#009E73", "all": "#D55E00"}
    for axes, name in zip(panels, MEASURES, strict=True):
        for number, parts in enumerate(PARTS):
            cells = [(places[target], found[name]) for (own, target), found in gains.items() if own == parts]
            cells.sort(key=lambda cell: cell[0])
            x = [place + 0.08 * (number - 1) for place, _ in cells]
            y = [value.value for _, value in cells]
            bounds = [_bounds(value) for _, value in cells]
            errors = [
                [a - low for a, (low, _) in zip(y, bounds, strict=True)],
                [high - a for a, (_, high) in zip(y, bounds, strict=True)],
            ]
            axes.errorbar(x, y, errors, marker="o", markersize=4, capsize=2, color=colours[parts], label=parts)
        axes.axhline(0, color="#333333", linestyle=":", linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_xticks(list(places.values()), ["1", "3", "8", "none"])
        axes.set_xlabel("epsilon", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("gain over the beginning", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    figure.suptitle("synthetic data", fontsize=8, x=0.99, ha="right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what privacy costs on the synthetic cohort.")
    parser.add_argument("--out", type=Path, default=Path("runs/privacy_utility"))
    out = parser.parse_args().out
    started = time.perf_counter()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        write_patients(out / PRETRAINING.name, "alder", PRETRAINING_PATIENTS, OTHER_SEED, pool)
        for site in HOSPITALS:
            write_patients(out / site, site, PATIENTS, SEED, pool)
        write_patients(out / TEST, TEST, TEST_PATIENTS, SEED, pool)
        print(f"patients: {time.perf_counter() - started:.0f} s", flush=True)
        began = time.perf_counter()
        first = pool.submit(pretrained, out).result()
        left_out = time.perf_counter() - began
        beginning = pool.submit(tested, out, plan_of("all", None), first)
        outcomes = {}
        found = pool.map(partial(run_cell, out), *zip(*CELLS, strict=True))
        for cell, outcome in zip(CELLS, found, strict=True):
            outcomes[cell] = outcome
            print(cell, f"{outcome.seconds:.0f} s", _values(measured(outcome.results)), flush=True)
        begin = beginning.result()
    text = table(begin, outcomes)
    print(text)
    print(f"{(time.perf_counter() - started - left_out) / 60:.0f} min, the first model left out")
    replace_table(Path("docs/privacy.md"), "privacy utility", text)
    plot(begin, outcomes, Path("docs/privacy-utility.png"))


if __name__ == "__main__":
    main()
