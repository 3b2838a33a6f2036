"""A new run in its folder, with the weights that it starts from."""

from dataclasses import asdict
from pathlib import Path

import torch

from server.store import RunStore
from shared_model.config import Plan
from shared_model.network import build_network
from shared_model.parameters import shared_state
from shared_model.pretrained import load_brainsegfounder


def create_run(folder: Path, run: str, plan: Plan, pretrained: Path | None) -> RunStore:
    """Draw the initial weights from the plan's seed, or load them, and write the run.

    Raises:
        WeightsError: the pretrained file cannot be used.
    """
    torch.manual_seed(plan.seed)
    network = build_network(plan.model, plan.tasks)
    origin = None if pretrained is None else asdict(load_brainsegfounder(network, pretrained, plan.model))
    store = RunStore(folder)
    store.create(run, plan, shared_state(network), origin)
    return store
