"""Does a training step fit into this machine? One real step in a process of its own, measured.

python -m client.fit --preset base --crop 96 96 96 --batch 2 --device cuda
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from client.data.cases import Finding
from shared_model.config import ModelConfig
from shared_model.losses import Targets, multi_task_loss
from shared_model.network import build_network
from shared_model.tasks import CLASSES, MODALITIES, REGIONS, TASKS

LIMIT_SECONDS = 900


@dataclass(frozen=True)
class Fit:
    """What a step took.

    Attributes:
        peak_mb: of the process on a CPU, of the device's allocator on a GPU.
        free_mb: what the machine or device had before.
        seconds: of the second step; the first one warms up.
    """

    peak_mb: float
    free_mb: float
    seconds: float


def step(preset: str, crop: tuple[int, int, int], batch: int, device: torch.device) -> Fit:
    """Two forward and backward passes with AdamW on noise."""
    free = free_memory(device)
    network = build_network(ModelConfig.model_validate({"preset": preset}), tuple(TASKS)).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    images = torch.randn(batch, len(MODALITIES), *crop, device=device)
    present = torch.ones(batch, len(MODALITIES), dtype=torch.bool, device=device)
    targets = Targets(
        (torch.rand(batch, len(REGIONS), *crop) < 0.05).float(),
        torch.ones(batch, len(REGIONS), dtype=torch.bool),
        torch.zeros(batch, len(CLASSES), dtype=torch.int64),
    ).to(device)
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(images, present, targets.regions[:, :1], targets.region_known[:, 0], forcing=0.5)
        loss = multi_task_loss(logits, targets, dict.fromkeys(TASKS, 1.0))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    if device.type == "cuda":
        peak = torch.cuda.max_memory_reserved(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return Fit(peak, free, seconds)


def free_memory(device: torch.device) -> float:
    """MB that a process could take."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] / 2**20)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**10
    raise OSError("/proc/meminfo has no MemAvailable")


def measure(preset: str, crop: tuple[int, int, int], batch: int, device: str) -> Fit | Finding:
    """Measure in a process of its own, so that running out of memory ends that one alone."""
    command = [sys.executable, "-m", "client.fit", "--preset", preset, "--batch", str(batch), "--device", device]
    command += ["--crop", *(str(side) for side in crop)]
    what = f"a training step of preset {preset} on a crop of {'x'.join(map(str, crop))}, batch {batch},"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding("error", device, f"{what} took over {LIMIT_SECONDS} s", "use a GPU or a smaller preset")
    if done.returncode == 0:
        return Fit(**json.loads(done.stdout.splitlines()[-1]))
    if "out of memory" in done.stderr.lower() or done.returncode == -9:
        return Finding("error", device, f"{what} ran out of memory", "use a smaller preset, crop or batch")
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return Finding("error", device, f"{what} failed: {reason}", "check the device and its driver")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", required=True)
    parser.add_argument("--crop", type=int, nargs=3, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--device", required=True)
    given = parser.parse_args()
    crop = (given.crop[0], given.crop[1], given.crop[2])
    print(json.dumps(vars(step(given.preset, crop, given.batch, torch.device(given.device)))))


if __name__ == "__main__":
    main()
