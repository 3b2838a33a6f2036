"""The machine's part of the preflight: device, memory and disk, measured."""

import shutil
from typing import Any

import torch

from client.data.cases import Finding
from client.fit import measure
from shared_model.config import SiteConfig

CACHE_MB = 12.0
"""Of one case of 240x240x155 voxels in the cache, as benchmarks/data_pipeline measures it."""
STATE_MB = 2000.0
"""For kept answers and optimizer moments of the largest preset."""


def machine(
    config: SiteConfig, cases: int, preset: str, crop: tuple[int, int, int], batch: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Facts about the machine, and what is wrong with it."""
    facts: dict[str, Any] = {"device": config.device, "cores": torch.get_num_threads()}
    found = []
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        what, remedy = "no CUDA device is visible", "install the driver and a CUDA build of torch, or say device: cpu"
        found.append(Finding("error", "device", what, remedy))
    else:
        if config.device.startswith("cuda"):
            facts["device"] = torch.cuda.get_device_name(torch.device(config.device))
        fit = measure(preset, crop, batch, config.device)
        if isinstance(fit, Finding):
            found.append(fit)
        else:
            facts["training_step"] = f"{fit.seconds:.1f} s, {fit.peak_mb:.0f} MB of {fit.free_mb:.0f} MB free"
            if fit.peak_mb > 0.9 * fit.free_mb:
                what = f"a training step takes {fit.peak_mb:.0f} MB of the {fit.free_mb:.0f} MB that are free"
                found.append(Finding("warning", "memory", what, "free memory, or use a smaller preset or crop"))
    place = next(path for path in (config.state, *config.state.parents) if path.exists())
    free, needed = shutil.disk_usage(place).free / 1e6, STATE_MB + CACHE_MB * cases
    facts["disk"] = f"{needed:.0f} MB needed, {free:.0f} MB free"
    if free < needed:
        what = f"{free:.0f} MB are free, and the cache needs {needed:.0f} MB"
        found.append(Finding("error", str(config.state), what, "free space, or name another state folder"))
    return facts, found
