"""What a compressed update weighs, what it loses, and whether the federation minds.

    python -m benchmarks.compression [--out runs/compression] [--json compression.json]

First, one site's update of the base preset after 50 steps, by each codec, for all parts and for the small ones; beside
it the error that no code of as many bits a number could go below, were the changes Gaussian: 2^-bits of their size.
Then federations of the tiny preset over three seeds, which begin with one pretrained model: mean Dice, and by how much
it differs from that with 32-bit numbers, paired over test cases. Synthetic patients. Writes docs/benchmarks.md.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cached_cohort import read_patients, write_patients
from benchmarks.cached_federation import CPU, Pooled, federated, mean_dices, tested
from benchmarks.tables import replace_table
from client.data.phantom.cohort import HOSPITALS, TEST
from client.training import round_job, train
from shared_model.checkpoint import read_json, write_json
from shared_model.compression import CODECS, through
from shared_model.config import Plan, parse_config
from shared_model.metrics import estimate, mean_statistic
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state
from shared_model.parts import before_round

SEEDS, PRETRAINING_SEED = (71, 72, 73), 74
PRETRAINING = Pooled("pretraining", PRETRAINING_SEED, steps=100, batch=4)
PATIENTS, TEST_PATIENTS, PRETRAINING_PATIENTS = 40, 100, 60
UPDATE_STEPS = 50
SMALL = ("adapters", "decoder", "heads")
PARTS = {"all": ("all",), "adapters, decoder, heads": SMALL}
WAYS = [("all", "none"), ("all", "fp16"), ("all", "int8"), ("adapters, decoder, heads", "int8")]


def plan_of(parts: str, compression: str, seed: int, preset: str = "tiny") -> Plan:
    values = {
        "name": "compression",
        "seed": seed,
        "synthetic": True,
        "rounds": 5,
        "model": {"preset": preset},
        "compression": compression,
        "training": {
            "local_steps": UPDATE_STEPS if preset == "base" else 10,
            "batch_size": 2 if preset == "tiny" else 1,
            "crop": [64, 32, 32] if preset == "tiny" else [64, 64, 64],
            "learning_rate": 2e-3 if preset == "tiny" else 1e-4,
            "class_learning_rate": 2e-3 if preset == "tiny" else 1e-4,
            "warmup_steps": 5,
            "parts": PARTS[parts],
        },
    }
    return parse_config(Plan, values, "compression")


def update_rows(folder: Path, parts: str) -> list[dict[str, Any]]:
    """One site's update of the base preset from fresh weights, by each codec.

    From crops of 64 cubed at least: over a smaller one most taps of the deepest convolutions see padding alone, and
    never change.
    """
    torch.set_num_threads(1)
    path = folder / f"update-{'-'.join(PARTS[parts])}.json"
    if path.exists():
        return list(read_json(path))
    plan = plan_of(parts, "none", SEEDS[0], "base")
    torch.manual_seed(plan.seed)
    network = build_network(plan.model, plan.tasks)
    base = shared_state(network)
    done = train(network, read_patients(folder / "alder"), round_job(plan, plan.tasks, "alder", 1, {}), CPU)
    before = before_round(base, plan.tasks, plan.training)
    numbers, whole = sum(value.size for value in before.values()), sum(value.nbytes for value in base.values())
    rows = []
    for name, codec in CODECS.items():
        started = time.perf_counter()
        sent, _, lost = through(codec, done.tensors, before)
        seconds = time.perf_counter() - started
        size = sum(frame.nbytes for frame in sent.values())
        bits = 8 * size / numbers
        rows.append(
            {
                **{"parts": parts, "codec": name, "bytes": size, "less": whole / size, "bits": bits},
                **{"error": lost, "bound": 2**-bits, "seconds": seconds},
            }
        )
    write_json(path, rows)
    return rows


def pretrained(folder: Path) -> Tensors:
    """What all federations of the tiny preset begin with, trained on other patients of one hospital."""
    plan = plan_of("all", "none", PRETRAINING_SEED)
    return PRETRAINING.trained(folder / "pretrained.safetensors", [folder / PRETRAINING.name], plan)


def run_cell(folder: Path, parts: str, compression: str, seed: int) -> dict[str, Any]:
    """Mean Dice of each test case, and bytes a site sent in a round; kept once done."""
    torch.set_num_threads(1)
    path = folder / "cells" / f"{'-'.join(PARTS[parts])}-{compression}-{seed}.json"
    if not path.exists():
        plan = plan_of(parts, compression, seed)
        model, sent = federated(folder, pretrained(folder), plan)
        dices = mean_dices(tested(folder, plan, model))
        write_json(path, {"dices": dices.tolist(), "bytes": sent / plan.rounds / len(HOSPITALS)})
    return dict(read_json(path))


def start_dice(folder: Path) -> float:
    torch.set_num_threads(1)
    plan = plan_of("all", "none", PRETRAINING_SEED)
    return float(mean_dices(tested(folder, plan, pretrained(folder))).mean())


def quality_rows(cells: dict[tuple[str, str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each way the mean over seeds, and its paired difference to 32-bit numbers with everything trained."""
    first = np.mean([cells[(*WAYS[0], seed)]["dices"] for seed in SEEDS], axis=0)
    rows = []
    for way in WAYS:
        dices = np.array([cells[(*way, seed)]["dices"] for seed in SEEDS])  # (seeds, cases)
        mean = dices.mean(axis=0)
        difference = estimate(mean_statistic(mean - first), len(first), SEEDS[0])
        assert difference is not None
        rows.append(
            {
                **{"parts": way[0], "codec": way[1], "dice": mean.mean(), "seeds": dices.mean(axis=1).tolist()},
                **{"difference": difference.value, "low": difference.low, "high": difference.high},
                "bytes": statistics.mean(cells[(*way, seed)]["bytes"] for seed in SEEDS),
            }
        )
    return rows


def table(updates: list[dict[str, Any]], start: float, quality: list[dict[str, Any]]) -> str:
    lines = [
        f"One site's update of the base preset after {UPDATE_STEPS} steps from fresh weights; less: than the whole "
        "model as 32-bit numbers. Bound: of the error of any code of as many bits, were the changes Gaussian.",
        "",
        "| trained | codec | MB | times less | bits a number | error | bound | there and back, s |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {r['parts']} | {r['codec']} | {r['bytes'] / 1e6:.2f} | {r['less']:.1f} | {r['bits']:.1f} "
            f"| {100 * r['error']:.2g} % | {100 * r['bound']:.2g} % | {r['seconds']:.1f} |"
            for r in updates
        ),
        "",
        f"Tiny preset, synthetic: four sites, 5 rounds of 10 steps from one pretrained model of mean Dice {start:.4f}, "
        f"{len(SEEDS)} seeds, {TEST_PATIENTS} test cases; difference paired over cases, 95 % bootstrap.",
        "",
        "| trained | codec | kB a site and round | mean Dice | of each seed | difference |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['parts']} | {r['codec']} | {r['bytes'] / 1e3:.0f} | {r['dice']:.4f} "
            f"| {', '.join(f'{seed:.4f}' for seed in r['seeds'])} | {_difference(r)} |"
            for r in quality
        ),
    ]
    return "\n".join(lines)


def _difference(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return "0"
    return f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure compressed updates.")
    parser.add_argument("--out", type=Path, default=Path("runs/compression"))
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    out: Path = arguments.out
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        write_patients(out / PRETRAINING.name, "alder", PRETRAINING_PATIENTS, PRETRAINING_SEED, pool)
        for site in HOSPITALS:
            write_patients(out / site, site, PATIENTS, SEEDS[0], pool)
        write_patients(out / TEST, TEST, TEST_PATIENTS, SEEDS[0], pool)
        pool.submit(pretrained, out).result()
        found = pool.map(partial(update_rows, out), PARTS)
        start = pool.submit(start_dice, out)
        keys = [(*way, seed) for way in WAYS for seed in SEEDS]
        cells = dict(zip(keys, pool.map(partial(run_cell, out), *zip(*keys, strict=True)), strict=True))
        updates = [row for rows in found for row in rows]
        begin = start.result()
    quality = quality_rows(cells)
    text = table(updates, begin, quality)
    print(text)
    replace_table(Path("docs/benchmarks.md"), "compression", text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"updates": updates, "start": begin, "quality": quality}, indent=2) + "\n")


if __name__ == "__main__":
    main()
