"""What a round trains: which parts of the network, and what of them travels.

A part is trained as it is, and its own tensors travel; or adapters are trained in the place of the Swin encoder's
linear layers (adapters.py), and travel in theirs. The committed model is a plain one either way.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from shared_model.adapters import adapter_shapes, merged
from shared_model.config import Plan, TrainingConfig
from shared_model.parameters import TRUNK, Tensors, group_of, trained_names

_DECODER = re.compile(r"backbone\.(encoder|decoder)[123]\.")


def dense_names(names: Iterable[str], tasks: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The parameters, out of `names`, that a site with `tasks` trains as they are; sorted."""
    return [name for name in trained_names(names, tasks) if "all" in parts or _part(name) in parts]


def _part(name: str) -> str | None:
    if group_of(name) != TRUNK:
        return "heads"
    return "decoder" if _DECODER.match(name) else None


def before_round(base: Mapping[str, np.ndarray], tasks: Sequence[str], training: TrainingConfig) -> Tensors:
    """What a site with `tasks` trains in a round, as it is before: tensors of the base, and zeros for the adapters."""
    tensors = {name: base[name] for name in dense_names(base, tasks, training.parts)}
    if "adapters" in training.parts:
        shapes = adapter_shapes(base, training.adapter_rank)
        tensors |= {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return tensors


def after_round(base: Tensors, trained: Mapping[str, np.ndarray], plan: Plan, index: int) -> Tensors:
    """The next model from what round `index` made of the trained tensors; adapters are merged into their weights."""
    dense = {name: trained.get(name, value) for name, value in base.items()}
    return merged(dense, trained, plan.seed, index)


def trained_size(shapes: Mapping[str, tuple[int, ...]], plan: Plan) -> int:
    """How many numbers a site with all of the plan's tasks trains in a round."""
    base = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    return sum(value.size for value in before_round(base, plan.tasks, plan.training).values())
