"""Does a federation keep the quality of pooled training, and gain over a hospital alone? On the synthetic cohort.

Three seeds fixed beforehand, each with a cohort of its own and 200 test cases. Every bound is a 95 % percentile
bootstrap over test cases, resampled within a seed and averaged over seeds, with the same resample for both sides.

    python -m benchmarks.quality [--out runs/quality] [--seeds 11 12 13]
"""

import server.simulation.environment  # noqa: F401  (before Flower, Ray and torch)

# isort: split
import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from server.simulation.comparison import read_results
from server.simulation.preparation import load_plan, prepare
from server.simulation.reaper import watch
from server.simulation.simulate import Run, new_run, resumed_run
from server.summary import AVERAGED_LOCAL, CENTRALISED, FEDERATED, local
from shared_model.metrics import Statistic, auc_statistic, mean_statistic
from shared_model.scores import CaseResult
from shared_model.tasks import MISSING, REGIONS, TASKS

SEEDS = (11, 12, 13)
PLAN = Path(__file__).with_name("quality.yaml")
RESAMPLES = 2000

Results = dict[str, list[CaseResult]]
"""Way of training -> results of the test cases, in the same order for every way."""


class Lines:
    """Says what is finished, one line each."""

    def progress(self, step: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {step}: {total}", flush=True)

    def event(self, name: str, facts: dict[str, Any]) -> None:
        if name in ("refused", "absent"):
            print(f"  {name}: {facts['site']}: {facts['reason']}", flush=True)


def run_seed(seed: int, folder: Path) -> Run:
    """The run of one seed, done or gone on with."""
    if folder.exists():
        run = resumed_run(folder, Lines())
    else:
        simulation = load_plan(PLAN)
        plan = simulation.plan.model_copy(update={"seed": seed, "name": f"quality-{seed}"})
        run = new_run(folder, simulation.model_copy(update={"plan": plan}), True, Lines())
    run.complete()
    return run


def results_of(run: Run) -> tuple[Results, dict[str, tuple[str, ...]]]:
    """Test results of a finished run, and the tasks of each site."""
    prepared = prepare(run.simulation, run.folder, lambda done, total: None)
    cases = prepared.test_cases(run.simulation)
    tasks = {terms.site: terms.tasks for terms in run.store.terms()[0]}
    return read_results(run.folder / "results" / "all", cases), tasks


def _masked_mean(values: np.ndarray) -> Statistic:
    """Weighted mean of values (n,) over the cases that are not NaN."""
    known = np.isfinite(values)
    return lambda weights: mean_statistic(values[known])(weights[:, known])


def region_dice(results: Results, way: str, region: str) -> np.ndarray:
    """(n,) Dice of each case; NaN where the truth has no such region."""
    rows = [case.regions[region] for case in results[way]]
    return np.array([np.nan if row.empty else row.dice for row in rows])


def class_auc(results: Results, way: str, task: str) -> Statistic:
    """AUC of mutant, of codeleted, of grade 4; 1p/19q within IDH-mutant, where alone it is a question."""
    cases = results[way]
    counted = np.array(
        [case.labels[task] != MISSING and (task != "codeletion" or case.labels["idh"] == 1) for case in cases]
    )
    last = len(TASKS[task].classes) - 1
    chosen = [case for case, counts in zip(cases, counted, strict=True) if counts]
    value = auc_statistic(
        [case.probabilities[task][last] for case in chosen], [case.labels[task] == last for case in chosen]
    )
    return lambda weights: value(weights[:, counted])


def mean_of(values: Sequence[Statistic]) -> Statistic:
    return lambda weights: np.mean([value(weights) for value in values], axis=0)


def bound(values: Sequence[Statistic], counts: Sequence[int], seed: int) -> tuple[float, float, float]:
    """(value, low, high) of the mean over seeds."""
    rng = np.random.default_rng(seed)
    drawn = []
    for value, n in zip(values, counts, strict=True):
        weights = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)])  # (1 + R, n)
        drawn.append(value(weights))
    mean = np.mean(drawn, axis=0)  # (1 + R,)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


Tasks = dict[str, tuple[str, ...]]
"""Site -> the tasks that it has labels for."""
Measure = Callable[[Results, Tasks], Statistic]
MEAN_LOCAL = "mean local"


@dataclass(frozen=True)
class Line:
    """One line of the table: what is measured, how, and the least lower bound where one is asked for."""

    title: str
    measure: Measure
    floor: float | None = None


def value_of(task: str, way: str, results: Results, tasks: Tasks) -> Statistic:
    """Dice or AUC of one way of training; `mean local` is over the sites that have the task's labels."""
    if way == MEAN_LOCAL:
        return mean_of([value_of(task, local(site), results, tasks) for site in tasks if task in tasks[site]])
    if TASKS[task].is_region:
        return _masked_mean(region_dice(results, way, task))
    return class_auc(results, way, task)


def mean_dice(way: str, results: Results, tasks: Tasks) -> Statistic:
    """Mean over the three regions of their mean Dice."""
    return mean_of([value_of(region.name, way, results, tasks) for region in REGIONS])


def difference_of(first: Measure, second: Measure, results: Results, tasks: Tasks) -> Statistic:
    a, b = first(results, tasks), second(results, tasks)
    return lambda weights: a(weights) - b(weights)


def ratio_of(first: Measure, second: Measure, results: Results, tasks: Tasks) -> Statistic:
    a, b = first(results, tasks), second(results, tasks)
    return lambda weights: a(weights) / b(weights)


def lines() -> list[Line]:
    """The whole table."""
    federated = partial(mean_dice, FEDERATED)
    table = [
        Line("mean Dice, federated / centralised", partial(ratio_of, federated, partial(mean_dice, CENTRALISED)), 0.98)
    ]
    for other in (CENTRALISED, AVERAGED_LOCAL):
        table.append(
            Line(f"mean Dice, federated - {other}", partial(difference_of, federated, partial(mean_dice, other)))
        )
    for task in TASKS:
        name = f"{task} {'Dice' if TASKS[task].is_region else 'AUC'}"
        for way in (FEDERATED, CENTRALISED, AVERAGED_LOCAL, MEAN_LOCAL):
            floor = 0.60 if (task, way) == ("idh", FEDERATED) else None
            table.append(Line(f"{name}, {way}", partial(value_of, task, way), floor))
        for way in (CENTRALISED, AVERAGED_LOCAL, MEAN_LOCAL):
            both = partial(difference_of, partial(value_of, task, FEDERATED), partial(value_of, task, way))
            floor = 0.03 if TASKS[task].is_region and way == MEAN_LOCAL else None
            table.append(Line(f"{name}, federated - {way}", both, floor))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    arguments = parser.parse_args()
    watch()
    started = time.monotonic()
    found = []
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        found.append(results_of(run_seed(seed, arguments.out / str(seed))))
    counts = [len(results[FEDERATED]) for results, _ in found]
    rows, reached = [], True
    for line in lines():
        value, low, high = bound([line.measure(results, tasks) for results, tasks in found], counts, seed=0)
        met = line.floor is None or low >= line.floor
        reached &= met
        rows.append({"what": line.title, "value": value, "low": low, "high": high, "floor": line.floor})
        target = "" if line.floor is None else f"  lower bound >= {line.floor}: {'yes' if met else 'NO'}"
        print(f"{line.title:<46} {value:7.3f}  {low:7.3f} to {high:7.3f}{target}")
    report = {
        "synthetic": True,
        "seeds": list(arguments.seeds),
        "test_cases": counts,
        "seconds": time.monotonic() - started,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "rows": rows,
    }
    (arguments.out / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    print("Synthetic cases: these numbers show that the software works, and nothing of glioma.")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
