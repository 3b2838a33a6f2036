"""The preflight beside the data: device, memory and disk, measured; and how the coordinator sees this site."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from client.connection import hello, read_invitation
from client.data.cases import Finding
from client.fit import measure
from shared_model.config import SiteConfig
from shared_model.errors import MtsunetError
from shared_model.signing import read_site_key

CACHE_MB = 12.0
"""Of one case of 240x240x155 voxels in the cache, as benchmarks/data_pipeline measures it."""
STATE_MB = 2000.0
"""For kept answers and optimizer moments of the largest preset."""
CLOCK_SECONDS = 2.0
"""A clock further off is warned of; the coordinator refuses one that is 5 s ahead or 305 s behind."""
DECLARED_SHARE = 0.25
"""A declared number of patients that is further off is warned of."""
DATE_AGE = 1.0
"""Of the coordinator's Date, on average: cut to whole seconds, and made once a second."""


def machine(
    config: SiteConfig, cases: int, preset: str, crop: tuple[int, int, int], batch: int
) -> tuple[dict[str, Any], list[Finding]]:
    """Facts about the machine, and what is wrong with it."""
    facts: dict[str, Any] = {"device": config.device, "cores": torch.get_num_threads()}
    found = []
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        what, remedy = "no CUDA device is visible", "install the driver and a CUDA build of torch, or say device: cpu"
        found.append(Finding("error", "device", what, remedy))
    elif config.gpus > max(1, torch.cuda.device_count()):
        what, remedy = f"{torch.cuda.device_count()} of {config.gpus} GPUs are visible", "lower gpus"
        found.append(Finding("error", "gpus", what, remedy))
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


def declared(config: SiteConfig, patients: int) -> list[Finding]:
    """Whether the patients that private training counts on are near those that there are.

    Args:
        patients: of the site, held-out ones included.
    """
    floor, there = config.policy.privacy, patients * (1 - config.held_out)
    if floor is None or floor.mode == "never" or abs(floor.patients - there) <= DECLARED_SHARE * there:
        return []
    what = f"{floor.patients} training patients are declared, and there are about {there:.0f}"
    remedy = "declare a number near that, before the first private run"
    return [Finding("warning", "policy.privacy.patients", what, remedy)]


def network(
    config: SiteConfig, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> tuple[dict[str, Any], list[Finding]]:
    """How the coordinator sees this site, and the first thing that keeps it from joining."""
    if config.invitation is None:
        what, remedy = "no invitation: not enrolled yet", "send site.pub, and name the invitation that comes back"
        return {}, [Finding("note", "network", what, remedy)]
    facts: dict[str, Any] = {}
    try:
        invitation, key = read_invitation(config), read_site_key(config.key)
        facts["coordinator"] = invitation.address
        asked = clock()  # the Date of an answer is that of its request, however long the answer takes
        seen = hello(invitation, key, lambda: asked)
    except MtsunetError as error:
        return facts, [Finding("error", "network", error.what, error.remedy)]
    ahead = seen.ahead - DATE_AGE
    off = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    facts |= {
        "reached": "yes",
        "certificate": "of the invitation's authority",
        "enrolment": "this site's key is enrolled",
        "release": f"{seen.release} on both sides",
        "clock": f"{off}, give or take a second",
        "connected": "yes" if seen.online else "not now",
    }
    found = []
    if abs(ahead) > CLOCK_SECONDS:
        found.append(Finding("warning", "network", f"the site's clock is {off}", "let NTP set it"))
    return facts, found
