"""AdamW over a site's trained parameters, and what it keeps of them from round to round."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from shared_model.config import TrainingConfig
from shared_model.parameters import TRUNK, Tensors, group_of
from shared_model.tasks import TASKS

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter."""


def adamw(parameters: Mapping[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over named parameters, the class side with its own peak of the learning rate, `peak` in each group.

    On CUDA it is the fused one, which changes all of them in one kernel.
    """
    sides: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in parameters.items():
        group = group_of(name)
        sides[group != TRUNK and not (group in TASKS and TASKS[group].is_region)].append(parameter)
    peaks = {False: config.learning_rate, True: config.class_learning_rate}
    groups = [{"params": side, "peak": peaks[classes]} for classes, side in sides.items() if side]
    fused = all(parameter.is_cuda for parameter in parameters.values()) or None
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=fused)


def moments_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> Tensors:
    """`<moment>/<parameter>` -> array, for the parameters that have taken a step."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].cpu().numpy()
        for name, parameter in parameters.items()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def restore(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], moments: Mapping[str, np.ndarray]
) -> None:
    """The inverse of `moments_of`. Only a fused AdamW counts its steps on the device."""
    fused = optimizer.defaults["fused"]
    for name, parameter in parameters.items():
        if f"step/{name}" in moments:
            kept = {moment: torch.from_numpy(np.array(moments[f"{moment}/{name}"])) for moment in MOMENTS}
            optimizer.state[parameter] = {
                moment: value if moment == "step" and not fused else value.to(parameter.device)
                for moment, value in kept.items()
            }
