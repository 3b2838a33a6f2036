"""Cost of a training step of MTS-UNET beside a stock SwinUNETR's of the same size.

    python -m benchmarks.train_step --preset tiny --preset base --pairs 5 --json steps.json

Ours: forward with TAFE, CMD and six heads, the multi-task loss, backward, clipping, AdamW. Stock: MONAI's SwinUNETR
with three outputs, its Dice plus cross-entropy by sigmoid, backward, clipping, AdamW. Batch 1, float32, random images.
The two take turns, so that what else the machine does falls on both; the ratio is the median over pairs of steps.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.losses import DiceLoss
from monai.networks.nets import SwinUNETR
from torch import nn

from shared_model.config import ModelConfig, TrainingConfig
from shared_model.losses import Targets, multi_task_loss
from shared_model.network import backbone_shape, build_network
from shared_model.tasks import TASKS

Step = Callable[[], None]


def _update(network: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def our_step(preset: str, images: torch.Tensor, truth: torch.Tensor) -> Step:
    """A step of the whole network; all labels known and the gate half teacher-forced."""
    network = build_network(ModelConfig.model_validate({"preset": preset}), tuple(TASKS))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5)
    weights = TrainingConfig.model_validate({}).task_weights
    targets = Targets(truth, torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1, 0, 2]]))
    present = torch.ones(1, 4, dtype=torch.bool)

    def step() -> None:
        logits = network(images, present, truth[:, :1], targets.region_known[:, 0], forcing=0.5)
        losses, _ = multi_task_loss(logits, targets, weights)
        _update(network, optimizer, losses.sum())

    return step


def stock_step(preset: str, images: torch.Tensor, truth: torch.Tensor) -> Step:
    """A step of MONAI's SwinUNETR on the three regions."""
    shape = backbone_shape(preset)
    network = SwinUNETR(
        in_channels=4,
        out_channels=3,
        feature_size=shape.feature_size,
        depths=shape.depths,
        num_heads=shape.heads,
        window_size=shape.window,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5)
    dice = DiceLoss(sigmoid=True)
    entropy = nn.BCEWithLogitsLoss()

    def step() -> None:
        logits = network(images)
        _update(network, optimizer, dice(logits, truth) + entropy(logits, truth))

    return step


def _timed(step: Step) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(preset: str, size: int, pairs: int) -> dict[str, float | int | str]:
    """Median seconds of either step, and median, smallest and largest ratio of the interleaved pairs."""
    torch.manual_seed(0)
    images = torch.randn(1, 4, size, size, size)
    truth = (torch.rand(1, 3, size, size, size) < 0.1).float()
    ours, stock = our_step(preset, images, truth), stock_step(preset, images, truth)
    ours()
    stock()
    rows = []
    for pair in range(pairs):
        first, second = (ours, stock) if pair % 2 else (stock, ours)
        times = {first: _timed(first), second: _timed(second)}
        rows.append((*times[ours], *times[stock]))
    wall = [row[0] / row[2] for row in rows]
    cpu = [row[1] / row[3] for row in rows]
    return {
        "preset": preset,
        "size": size,
        "pairs": pairs,
        "threads": torch.get_num_threads(),
        "ours_s": statistics.median(row[0] for row in rows),
        "stock_s": statistics.median(row[2] for row in rows),
        "wall_ratio": statistics.median(wall),
        "wall_ratio_min": min(wall),
        "wall_ratio_max": max(wall),
        "cpu_ratio": statistics.median(cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step of MTS-UNET against a stock SwinUNETR's.")
    parser.add_argument("--preset", action="append", choices=["tiny", "base", "small"], help="default: tiny and base")
    parser.add_argument("--size", type=int, default=64, help="edge of the cubic crop in voxels, a multiple of 32")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    print(f"{'preset':8}{'ours s':>9}{'stock s':>9}{'wall ratio':>12}{'min':>7}{'max':>7}{'cpu ratio':>11}")
    results = []
    for preset in arguments.preset or ["tiny", "base"]:
        row = measure(preset, arguments.size, arguments.pairs)
        results.append(row)
        print(
            f"{preset:8}{row['ours_s']:9.3f}{row['stock_s']:9.3f}{row['wall_ratio']:12.3f}"
            f"{row['wall_ratio_min']:7.3f}{row['wall_ratio_max']:7.3f}{row['cpu_ratio']:11.3f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
