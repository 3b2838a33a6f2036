"""The same network trained without a federation: on pooled data, and at each site alone. Equal samples are seen.

Centralised training takes rounds x local steps with the summed batch of all sites; a site alone takes as many with its
own batch. Both start from the federation's initial weights, with the same schedule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from client.site import Site
from client.training import Job, train
from server.summary import CENTRALISED
from shared_model.checkpoint import MANIFEST, read_model, write_model
from shared_model.config import Plan, SiteConfig
from shared_model.network import build_network
from shared_model.parameters import load_shared, shared_state


@dataclass(frozen=True)
class Baseline:
    """One way of training without a federation.

    Attributes:
        name: `centralised`, or the site's name.
        sites: whose training cases are used, as each site labels them.
        folder: where the trained model goes.
    """

    name: str
    sites: tuple[SiteConfig, ...]
    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / MANIFEST).exists()


def baselines(configs: Sequence[SiteConfig], folder: Path) -> list[Baseline]:
    """The centralised one, which takes longest, first; then each site alone."""
    pooled = Baseline(CENTRALISED, tuple(configs), folder / CENTRALISED)
    return [pooled, *(Baseline(config.site, (config,), local_folder(folder, config.site)) for config in configs)]


def local_folder(folder: Path, site: str) -> Path:
    """Where the model of a site alone goes, below the baselines' folder; no site's name can meet `centralised`."""
    return folder / f"local-{site}"


def train_baseline(baseline: Baseline, plan: Plan, initial: Path, on_step: Callable[[], None]) -> None:
    """Train from the weights in folder `initial` and write the model folder."""
    sites = [Site(config, plan, baseline.name) for config in baseline.sites]
    tasks = tuple(task for task in plan.tasks if any(task in site.tasks for site in sites))
    job = Job(
        plan=plan,
        tasks=tasks,
        name=baseline.name,
        first_step=0,
        steps=plan.rounds * plan.training.local_steps,
        batch_size=plan.training.batch_size * len(sites),
    )
    network = build_network(plan.model, plan.tasks)
    load_shared(network, read_model(initial))
    cases = [case for site in sites for case in site.learner.training_cases]
    train(network, cases, job, torch.device(baseline.sites[0].device), on_step=on_step)
    write_model(baseline.folder, shared_state(network), {"way": baseline.name, "tasks": list(tasks)})
