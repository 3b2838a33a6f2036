"""Cost of a training step of MTS-UNET beside a stock SwinUNETR's of the same size.

    python -m benchmarks.train_step --preset base --size 96 --pairs 10 --json

Ours: forward with TAFE, CMD and six heads, the multi-task loss, backward, clipping, AdamW. Stock: MONAI's SwinUNETR
with three outputs, its Dice plus cross-entropy by sigmoid, backward, clipping, AdamW. Batch 1, random images; float32
on a CPU, both under bfloat16 autocast with a fused AdamW on CUDA. The two take turns, so that what else the machine
does falls on both; the ratio is the median over pairs of steps. The table goes into docs/benchmarks.md.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceLoss
from monai.networks.nets import SwinUNETR
from torch import nn

from benchmarks.tables import machine, update_rows
from shared_model.config import ModelConfig, TrainingConfig
from shared_model.losses import Targets, multi_task_loss
from shared_model.network import backbone_shape, build_network
from shared_model.tasks import TASKS

PAGE = Path("docs/benchmarks.md")
HEAD = ("preset", "crop", "on", "pairs", "ours, s", "stock, s", "ratio, median", "least to most")
AT_MOST = 1.05
"""Of the stock step's seconds, asked of base at 96 cubed on a CPU over 10 pairs."""

Step = Callable[[], None]


def _stepper(network: nn.Module, loss: Callable[[], torch.Tensor], device: torch.device) -> Step:
    """What every step does with its loss; it returns when the device is done."""
    cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5, fused=cuda or None)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            found = loss()
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if cuda:
            torch.cuda.synchronize(device)

    return step


def our_step(preset: str, images: torch.Tensor, truth: torch.Tensor) -> Step:
    """A step of the whole network; all labels known and the gate half teacher-forced."""
    network = build_network(ModelConfig.model_validate({"preset": preset}), tuple(TASKS)).to(images.device)
    weights = TrainingConfig.model_validate({}).task_weights
    labels = Targets(truth.cpu(), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1, 0, 2]]))
    targets = labels.to(images.device)
    present = torch.ones(1, 4, dtype=torch.bool)

    def loss() -> torch.Tensor:
        logits = network(images, present, truth[:, :1], targets.region_known[:, 0], forcing=0.5)
        return multi_task_loss(logits, targets, weights)[0].sum()

    return _stepper(network, loss, images.device)


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
    ).to(images.device)
    dice = DiceLoss(sigmoid=True)
    entropy = nn.BCEWithLogitsLoss()

    def loss() -> torch.Tensor:
        logits = network(images).float()
        found: torch.Tensor = dice(logits, truth) + entropy(logits, truth)
        return found

    return _stepper(network, loss, images.device)


def _timed(step: Step) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(preset: str, size: int, pairs: int, device: torch.device) -> dict[str, Any]:
    """Median seconds of either step, and median, smallest and largest ratio of the interleaved pairs."""
    torch.manual_seed(0)
    images = torch.randn(1, 4, size, size, size).to(device)
    truth = (torch.rand(1, 3, size, size, size) < 0.1).float().to(device)
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
        "device": device.type,
        "on": machine(device),
        "ours_s": statistics.median(row[0] for row in rows),
        "stock_s": statistics.median(row[2] for row in rows),
        "wall_ratio": statistics.median(wall),
        "wall_ratio_min": min(wall),
        "wall_ratio_max": max(wall),
        "cpu_ratio": statistics.median(cpu),
        "at_most": AT_MOST,
    }


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A measurement under the words of HEAD."""
    extent = f"{row['wall_ratio_min']:.2f} to {row['wall_ratio_max']:.2f}"
    seconds = [f"{row[name]:.3g}" for name in ("ours_s", "stock_s")]
    crop, ratio = f"{row['size']} cubed", f"{row['wall_ratio']:.2f}"
    return (row["preset"], crop, row["on"], str(row["pairs"]), *seconds, ratio, extent)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step of MTS-UNET against a stock SwinUNETR's.")
    parser.add_argument("--preset", action="append", choices=["tiny", "base", "small"], help="default: tiny and base")
    parser.add_argument("--size", type=int, default=64, help="edge of the cubic crop in voxels, a multiple of 32")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is brought up to date")
    given = parser.parse_args()
    results = [measure(preset, given.size, given.pairs, given.device) for preset in given.preset or ["tiny", "base"]]
    rows = [table_row(row) for row in results]
    update_rows(given.page, "train step", HEAD, rows, key=3)
    if given.json:
        print(json.dumps(results, indent=2))
    else:
        print("\n".join(" | ".join(row) for row in (HEAD, *rows)))


if __name__ == "__main__":
    main()
