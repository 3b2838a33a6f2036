"""Rounds, bytes and seconds until a federation reaches 95 % of the Dice of pooled training.

    python -m benchmarks.time_to_accuracy [--out runs/time_to_accuracy] [--json time_to_accuracy.json]

The reference is one network trained on the four hospitals' patients together, with as many steps as a site takes in all
rounds and the summed batch. Each way of running the federation is tested after every round, and ends where it gets
there. A warm start is a model trained on other synthetic patients, which is made once and not counted; all other ways
begin with the reference's own first weights. One seed. Writes docs/benchmarks.md.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cached_cohort import write_patients
from benchmarks.cached_federation import Pooled, mean_dices, rounds, tested
from benchmarks.tables import replace_table
from client.data.phantom.cohort import HOSPITALS, TEST
from shared_model.checkpoint import read_json, write_json
from shared_model.config import Plan, parse_config
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state

SEED, PRETRAINING_SEED = 81, 82
PATIENTS, TEST_PATIENTS, PRETRAINING_PATIENTS = 16, 30, 60
ROUNDS, STEPS, BATCH = 16, 10, 2
SHARE = 0.95
LINK = 10e6
"""Bits a second of a site's link, for the last column."""
REFERENCE = Pooled("pooled", SEED, ROUNDS * STEPS, BATCH * len(HOSPITALS))
PRETRAINING = Pooled("pretraining", PRETRAINING_SEED, steps=100, batch=4)


@dataclass(frozen=True)
class Way:
    """How a federation is run: its plan's settings beyond the common ones, and whether its start is warm."""

    training: dict[str, Any] = field(default_factory=dict)
    aggregation: dict[str, Any] = field(default_factory=dict)
    compression: str = "none"
    warm: bool = False


SMALL = {"parts": ("adapters", "decoder", "heads")}
WAYS = {
    "FedAvg, constant rate": Way({"schedule": "constant"}),
    "FedAvg": Way(),
    "FedAdam": Way(aggregation={"rule": "fedadam"}),
    "FedAvg, warm start": Way(warm=True),
    "FedAvg, warm start, int8": Way(warm=True, compression="int8"),
    "adapters, decoder and heads, warm start, int8": Way(SMALL, warm=True, compression="int8"),
}


def plan_of(way: Way) -> Plan:
    values = {
        "name": "time-to-accuracy",
        "seed": SEED,
        "synthetic": True,
        "rounds": ROUNDS,
        "aggregation": way.aggregation,
        "compression": way.compression,
        "training": {
            "local_steps": STEPS,
            "batch_size": BATCH,
            "crop": [64, 32, 32],
            "learning_rate": 0.01,
            "class_learning_rate": 0.002,
            "warmup_steps": 20,
            **way.training,
        },
    }
    return parse_config(Plan, values, "time_to_accuracy")


def trained(folder: Path, way: Pooled) -> Tensors:
    """The reference, or the warm start."""
    torch.set_num_threads(1)
    folders = [folder / site for site in HOSPITALS] if way == REFERENCE else [folder / way.name]
    return way.trained(folder / f"{way.name}.safetensors", folders, plan_of(Way()))


def dice_of(folder: Path, plan: Plan, model: Tensors) -> float:
    return float(mean_dices(tested(folder, plan, model)).mean())


def pooled_dice(folder: Path) -> float:
    return dice_of(folder, plan_of(Way()), trained(folder, REFERENCE))


def run_way(folder: Path, goal: float, name: str) -> dict[str, Any]:
    """One way until it reaches the goal or its rounds end: Dice at the start and after each round, and the cost."""
    torch.set_num_threads(1)
    path = folder / "ways" / f"{name.replace(' ', '-')}.json"
    if path.exists():
        return dict(read_json(path))
    way = WAYS[name]
    plan = plan_of(way)
    torch.manual_seed(SEED)
    start = trained(folder, PRETRAINING) if way.warm else shared_state(build_network(plan.model, plan.tasks))
    dices, seconds = [dice_of(folder, plan, start)], 0.0
    up, down, change = 0.0, 0.0, float(sum(value.nbytes for value in start.values()))
    for done in rounds(folder, start, plan):
        down, up, change = down + change, up + done.up / len(HOSPITALS), float(done.down)
        seconds += done.seconds
        dices.append(dice_of(folder, plan, done.model))
        if dices[-1] >= goal:
            break
    found = {"way": name, "dices": dices, "reached": dices[-1] >= goal, "up": up, "down": down, "seconds": seconds}
    write_json(path, found)
    return found


def table(pooled: float, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"Synthetic, tiny preset, four sites of {PATIENTS} patients, at most {ROUNDS} rounds of {STEPS} steps with "
        f"batch {BATCH}, crop 64x32x32; {TEST_PATIENTS} test cases, one seed. Pooled training reaches a mean Dice of "
        f"{pooled:.3f}; the goal is {SHARE:g} of it, {SHARE * pooled:.3f}. MB are a site's. Seconds are those of the "
        f"slowest site's training, on one thread, and of the reduction; then with a link of {LINK / 1e6:g} Mbit/s.",
        "",
        "| way | Dice at the start | rounds | Dice then | MB down | MB up | seconds | with the link |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        count = len(row["dices"]) - 1
        told = f"{count}" if row["reached"] else f"not in {count}"
        link = row["seconds"] + 8 * (row["up"] + row["down"]) / LINK
        lines.append(
            f"| {row['way']} | {row['dices'][0]:.3f} | {told} | {row['dices'][-1]:.3f} | {row['down'] / 1e6:.1f} "
            f"| {row['up'] / 1e6:.1f} | {row['seconds']:.0f} | {link:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure what a federation needs to reach the Dice of pooled training."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_accuracy"))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    out: Path = arguments.out
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        write_patients(out / PRETRAINING.name, "alder", PRETRAINING_PATIENTS, PRETRAINING_SEED, pool)
        for site in HOSPITALS:
            write_patients(out / site, site, PATIENTS, SEED, pool)
        write_patients(out / TEST, TEST, TEST_PATIENTS, SEED, pool)
        warm = pool.submit(trained, out, PRETRAINING)
        pooled = pool.submit(pooled_dice, out).result()
        warm.result()
        rows = []
        for row in pool.map(partial(run_way, out, SHARE * pooled), WAYS):
            rows.append(row)
            print(row["way"], [f"{dice:.3f}" for dice in row["dices"]], flush=True)
    text = table(pooled, rows)
    print(text)
    replace_table(Path("docs/benchmarks.md"), "time to accuracy", text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"pooled": pooled, "ways": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
