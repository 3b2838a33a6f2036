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
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.data.manifest import read_cases
from server.simulation.comparison import read_results
from server.simulation.preparation import load_plan, prepare
from server.simulation.reaper import watch
from server.simulation.simulate import Run, new_run, resumed_run
from server.summary import AVERAGED_LOCAL, CENTRALISED, FEDERATED, local
from shared_model.metrics import auc_statistic, mean_statistic
from shared_model.scores import CaseResult
from shared_model.tasks import MISSING, REGIONS, TASKS

SEEDS = (11, 12, 13)
PLAN = Path(__file__).with_name("quality.yaml")
RESAMPLES = 2000

Results = dict[str, list[CaseResult]]
"""Way of training -> results of the test cases, in the same order for every way."""
Value = Callable[[np.ndarray], np.ndarray]
"""Weights (R, n) of a seed's cases -> (R,)."""


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
    cases = read_cases(prepared.test, run.simulation.plan.grade_edition)
    tasks = {terms.site: terms.tasks for terms in run.store.terms()[0]}
    return read_results(run.folder / "results" / "all", cases), tasks


def _masked_mean(values: np.ndarray) -> Value:
    """Weighted mean of values (n,) over the cases that are not NaN."""
    known = np.isfinite(values)
    return lambda weights: mean_statistic(values[known])(weights[:, known])


def region_dice(results: Results, way: str, region: str) -> np.ndarray:
    """(n,) Dice of each case; NaN where the truth has no such region."""
    rows = [case.regions[region] for case in results[way]]
    return np.array([np.nan if row.empty else row.dice for row in rows])


def mean_dice(results: Results, way: str) -> Value:
    """Mean over the three regions of the mean Dice."""
    single = [_masked_mean(region_dice(results, way, region.name)) for region in REGIONS]
    return lambda weights: np.mean([value(weights) for value in single], axis=0)


def class_auc(results: Results, way: str, task: str) -> Value:
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


def mean_of(values: Sequence[Value]) -> Value:
    return lambda weights: np.mean([value(weights) for value in values], axis=0)


def bound(values: Sequence[Value], counts: Sequence[int], seed: int) -> tuple[float, float, float]:
    """(value, low, high) of the mean over seeds."""
    rng = np.random.default_rng(seed)
    drawn = []
    for value, n in zip(values, counts, strict=True):
        weights = np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)])  # (1 + R, n)
        drawn.append(value(weights))
    mean = np.mean(drawn, axis=0)  # (1 + R,)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


Make = Callable[[Results, dict[str, tuple[str, ...]]], Value]


def ratio(first: Value, second: Value) -> Value:
    return lambda weights: first(weights) / second(weights)


def difference(first: Value, second: Value) -> Value:
    return lambda weights: first(weights) - second(weights)


def _of_task(results: Results, way: str, task: str) -> Value:
    if TASKS[task].is_region:
        return _masked_mean(region_dice(results, way, task))
    return class_auc(results, way, task)


def _mean_local(results: Results, tasks: dict[str, tuple[str, ...]], task: str) -> Value:
    """Over the sites that have the task's labels."""
    return mean_of([_of_task(results, local(site), task) for site, known in tasks.items() if task in known])


def rows() -> list[tuple[str, Make, float | None]]:
    """What is measured: title, how, and the least lower bound where one is asked for."""
    table: list[tuple[str, Make, float | None]] = [
        (
            "federated / centralised, mean Dice",
            lambda r, t: ratio(mean_dice(r, FEDERATED), mean_dice(r, CENTRALISED)),
            0.98,
        ),
        (
            "federated - averaged local, mean Dice",
            lambda r, t: difference(mean_dice(r, FEDERATED), mean_dice(r, AVERAGED_LOCAL)),
            None,
        ),
    ]
    for task in TASKS:
        name = "Dice" if TASKS[task].is_region else "AUC"
        floor = 0.03 if TASKS[task].is_region else None
        auc_floor = 0.60 if task == "idh" else None
        table += [
            (f"{task} {name}, federated", lambda r, t, k=task: _of_task(r, FEDERATED, k), auc_floor),
            (f"{task} {name}, centralised", lambda r, t, k=task: _of_task(r, CENTRALISED, k), None),
            (f"{task} {name}, averaged local", lambda r, t, k=task: _of_task(r, AVERAGED_LOCAL, k), None),
            (f"{task} {name}, mean local", lambda r, t, k=task: _mean_local(r, t, k), None),
            (
                f"{task} {name}, federated - mean local",
                lambda r, t, k=task: difference(_of_task(r, FEDERATED, k), _mean_local(r, t, k)),
                floor,
            ),
            (
                f"{task} {name}, federated - centralised",
                lambda r, t, k=task: difference(_of_task(r, FEDERATED, k), _of_task(r, CENTRALISED, k)),
                None,
            ),
        ]
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
    lines, reached = [], True
    for title, make, floor in rows():
        value, low, high = bound([make(results, tasks) for results, tasks in found], counts, seed=0)
        met = floor is None or low >= floor
        reached &= met
        lines.append({"what": title, "value": value, "low": low, "high": high, "floor": floor})
        target = "" if floor is None else f"  lower bound >= {floor}: {'yes' if met else 'NO'}"
        print(f"{title:<44} {value:7.3f}  {low:7.3f} to {high:7.3f}{target}")
    report = {
        "synthetic": True,
        "seeds": list(arguments.seeds),
        "test_cases": counts,
        "seconds": time.monotonic() - started,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "rows": lines,
    }
    (arguments.out / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    print("Synthetic cases: these numbers show that the software works, and nothing of glioma.")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
