"""A private step beside a plain one: seconds, and memory at its peak, for one logical step over so many patients.

    python -m benchmarks.dp_step --preset tiny --preset base --repeats 3 --json dp_step.json

Each takes one patient at a time, so that memory can be compared: plain is a backward pass a patient, clipping of their
mean and AdamW; ours is client/privacy/dp_sgd.py; beside them Opacus' hooks on the network that keeps patients apart,
and vmap over gradients, both with Opacus' clipping and our noise. A process each; they take turns. Memory is the peak
of what tensors hold, counted by torch's profiler in a process of its own over two patients, since a third needs no more
than the second. It begins before the optimizer's moments are there; the weights are not in it.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.profiler import ProfilerActivity, profile

from benchmarks.tables import replace_table
from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.config import ModelConfig, TrainingConfig
from shared_model.losses import Targets, multi_task_loss
from shared_model.network import MTSUNet, build_network
from shared_model.tasks import TASKS
from tests.client.privacy.restructured import restructure

NOISE, CLIP = 1.0, 1.0
WEIGHTS = TrainingConfig.model_validate({}).task_weights


class TimedStream(SecureStream):
    """Keeps the seconds that its noise took."""

    seconds = 0.0

    def add_gaussian(self, values: torch.Tensor, deviation: float) -> None:
        started = time.perf_counter()
        super().add_gaussian(values, deviation)
        self.seconds += time.perf_counter() - started


def loss_of(network: Callable[..., dict[str, torch.Tensor]], images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Loss of one patient, images (1, 4, *crop) and truth (1, 3, *crop), all labels known."""
    known = torch.ones(1, 3, dtype=torch.bool)
    targets = Targets(truth, known, torch.tensor([[1, 0, 2]]))
    logits = network(images, torch.ones(1, 4, dtype=torch.bool), truth[:, :1], known[:, 0], 0.5)
    return multi_task_loss(logits, targets, WEIGHTS)[0].sum()


def plain(network: MTSUNet, images: torch.Tensor, truth: torch.Tensor, stream: TimedStream) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        for row in range(len(images)):
            (loss_of(network, images[row : row + 1], truth[row : row + 1]) / len(images)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()

    return step


def private(network: nn.Module, stream: TimedStream, patients: int) -> PrivateOptimizer:
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=1e-4)
    return PrivateOptimizer(optimizer, stream, noise=NOISE, clip=CLIP, expected=patients)


def ours(network: MTSUNet, images: torch.Tensor, truth: torch.Tensor, stream: TimedStream) -> Callable[[], None]:
    optimizer = private(network, stream, len(images))

    def patient(row: int) -> torch.Tensor:
        return loss_of(network, images[row : row + 1], truth[row : row + 1])

    return lambda: private_step(optimizer, range(len(images)), patient)


def add_up(optimizer: PrivateOptimizer, patients: int, sample: Callable[[int], None]) -> None:
    """A logical step by Opacus' own accumulation; `sample` leaves each parameter's `grad_sample`."""
    optimizer.zero_grad()
    for row in range(patients):
        sample(row)
        optimizer.signal_skip_step(do_skip=row < patients - 1)
        optimizer.step()
        if row < patients - 1:
            optimizer.zero_grad()


def hooks(network: MTSUNet, images: torch.Tensor, truth: torch.Tensor, stream: TimedStream) -> Callable[[], None]:
    """Without the two bare parameters that Opacus cannot sample."""
    restructure(network, 1)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in ("missing_token", "cross_modality.absent"))
    sampled = GradSampleModule(network, loss_reduction="sum")
    optimizer = private(network, stream, len(images))

    def sample(row: int) -> None:
        loss_of(sampled, images[row : row + 1], truth[row : row + 1]).backward()

    return lambda: add_up(optimizer, len(images), sample)


def mapped(network: MTSUNet, images: torch.Tensor, truth: torch.Tensor, stream: TimedStream) -> Callable[[], None]:
    """vmap over one patient; labels and images are all there, so the loss is a sum without branches on data."""
    optimizer = private(network, stream, len(images))
    network._fill = lambda images, present: images  # type: ignore[method-assign]

    def loss(parameters: dict[str, torch.Tensor], images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        def call(*arguments: Any) -> dict[str, torch.Tensor]:
            return cast(dict[str, torch.Tensor], functional_call(network, parameters, arguments))

        return loss_of(call, images[None], truth[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

    def sample(row: int) -> None:
        own = dict(network.named_parameters())
        found = gradients({n: p.detach() for n, p in own.items()}, images[row : row + 1], truth[row : row + 1])
        for name, value in found.items():
            cast(Any, own[name]).grad_sample = value

    return lambda: add_up(optimizer, len(images), sample)


WAYS = {"plain": plain, "ours": ours, "hooks": hooks, "vmap": mapped}


def drawn(preset: str, patients: int, size: int) -> tuple[MTSUNet, torch.Tensor, torch.Tensor]:
    """A network, images (patients, 4, size, size, size) and truth (patients, 3, size, size, size)."""
    torch.manual_seed(0)
    network = build_network(ModelConfig.model_validate({"preset": preset}), tuple(TASKS)).train()
    images = torch.randn(patients, 4, size, size, size)
    return network, images, (torch.rand(patients, 3, size, size, size) < 0.1).float()


def measure(way: str, preset: str, patients: int, size: int) -> dict[str, float]:
    """Seconds of one step after one over a single patient, which warms up."""
    network, images, truth = drawn(preset, patients, size)
    stream = TimedStream()
    WAYS[way](copy.deepcopy(network), images[:1], truth[:1], stream)()
    step = WAYS[way](network, images, truth, stream)
    stream.seconds = 0.0
    started = time.perf_counter()
    step()
    return {"seconds": time.perf_counter() - started, "noise": stream.seconds}


def peak(way: str, preset: str, patients: int, size: int) -> dict[str, float]:
    """The most that tensors hold at once in a step, beyond the weights, and the size of what is trained, in MB."""
    network, images, truth = drawn(preset, patients, size)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        WAYS[way](network, images, truth, TimedStream())()
    results = cast(Any, profiled.profiler).kineto_results
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda event: event.start_ns())
    trainable = sum(parameter.numel() * 4 for parameter in network.parameters())
    return {"peak_mb": max(accumulate(e.nbytes() for e in events)) / 1e6, "trainable_mb": trainable / 1e6}


def in_process(what: str, way: str, preset: str, patients: int, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.dp_step", what, way, "--preset", preset]
    command += ["--patients", str(patients), "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: dict[str, dict[str, list[dict[str, float]]]], patients: int, size: int) -> str:
    lines = [
        f"{patients} patients, {size} cubed, one at a time, {torch.get_num_threads()} threads; medians. Peak of what "
        "tensors hold beyond the weights; above the plain step's in sizes of what is trained.",
        "",
        "| preset | way | step, s | of it noise, s | of plain | peak, MB | above plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset, ways in results.items():
        plain_rows = ways["plain"]
        for way, rows in ways.items():
            ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(rows, plain_rows, strict=True))
            middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            above = (middle["peak_mb"] - statistics.median(r["peak_mb"] for r in plain_rows)) / middle["trainable_mb"]
            lines.append(
                f"| {preset} | {way} | {middle['seconds']:.1f} | {middle['noise']:.1f} | {ratio:.2f} "
                f"| {middle['peak_mb']:.0f} | {above:+.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a private step against a plain one.")
    parser.add_argument("--preset", action="append", choices=["tiny", "base"], help="default: both")
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="edge of the cubic crop in voxels, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    presets = arguments.preset or ["tiny", "base"]
    if arguments.way:
        print(json.dumps(measure(arguments.way, presets[0], arguments.patients, arguments.size)))
        return
    if arguments.peak:
        print(json.dumps(peak(arguments.peak, presets[0], arguments.patients, arguments.size)))
        return
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for preset in presets:
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        peaks = {way: in_process("--peak", way, preset, 2, arguments.size) for way in WAYS}
        for _ in range(arguments.repeats):
            for way in WAYS:
                found = in_process("--way", way, preset, arguments.patients, arguments.size)
                rows[way].append(found | peaks[way])
                print(preset, way, rows[way][-1], flush=True)
        results[preset] = rows
    text = table(results, arguments.patients, arguments.size)
    print(text)
    replace_table(Path("docs/benchmarks.md"), "dp step", text)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
