"""Which tensors travel, who trains them, and what weighs them. Buffers never travel: they are constants of the config.

Three kinds of tensors, told apart by prefix: the trunk (backbone and missing token) is trained by any task, the class
trunk (TAFE and CMD) by any class task, and a head by its own task. A group's name is also the key of the case counts
that weigh its average.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from shared_model.errors import WeightsError
from shared_model.tasks import CLASSES, TASKS

if TYPE_CHECKING:  # commands that look at a run start without torch
    from torch import nn

TRUNK = "trunk"
CLASS_TRUNK = "class-trunk"
GROUPS: tuple[str, ...] = (TRUNK, CLASS_TRUNK, *TASKS)

T = TypeVar("T")
THREADS = 4
BLOCK = 1 << 16
"""Numbers."""
Tensors = dict[str, np.ndarray]
"""Name -> float32 array. Names are those of the network's parameters."""


def group_of(name: str) -> str:
    """The group of a parameter.

    Raises:
        WeightsError: a name that no part of the network carries.
    """
    if name == "missing_token" or name.startswith("backbone."):
        return TRUNK
    if name.startswith(("tumor_aware.", "cross_modality.")):
        return CLASS_TRUNK
    for task in TASKS.values():
        if name.startswith(task.prefix):
            return task.name
    raise WeightsError(f"parameter '{name}' belongs to no part of the network", "use weights of this release")


def tasks_of(group: str) -> tuple[str, ...]:
    """The tasks that train a group."""
    if group == TRUNK:
        return tuple(TASKS)
    if group == CLASS_TRUNK:
        return tuple(task.name for task in CLASSES)
    return (group,)


def trained_names(names: Iterable[str], tasks: Sequence[str]) -> list[str]:
    """The parameters, out of `names`, that a site with `tasks` trains; sorted."""
    return sorted(name for name in names if set(tasks_of(group_of(name))) & set(tasks))


def shared_state(network: "nn.Module") -> Tensors:
    """Copies of all parameters as float32 arrays."""
    return {name: value.detach().cpu().numpy().astype(np.float32) for name, value in network.named_parameters()}


def load_shared(network: "nn.Module", tensors: Mapping[str, np.ndarray]) -> None:
    """Set all parameters.

    Raises:
        WeightsError: a name or shape that is not the network's, or one that is missing.
    """
    import torch

    own = dict(network.named_parameters())
    if strange := sorted(set(own) ^ set(tensors)):
        raise WeightsError(f"parameters differ, first '{strange[0]}'", "use weights of this model config")
    with torch.no_grad():
        for name, parameter in own.items():
            if tuple(parameter.shape) != tensors[name].shape:
                raise WeightsError(f"parameter '{name}' has shape {tensors[name].shape}", "use weights of this config")
            parameter.copy_(torch.from_numpy(np.array(tensors[name])))


def row_blocks(matrix: np.ndarray) -> Iterator[slice]:
    """Its rows, some at a time: what is computed of them stays in a processor's cache."""
    rows, width = matrix.shape
    step = max(1, BLOCK // max(1, width))
    return (slice(first, first + step) for first in range(0, rows, step))


def each(work: Callable[[str], T], names: Iterable[str], threads: int = THREADS) -> dict[str, T]:
    """Name -> what a function makes of it, in order of name; on several cores, since arrays' arithmetic lets others on.

    Args:
        threads: most names at a time, of which each takes its own memory.
    """
    ordered = sorted(names)
    with ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool:
        return dict(zip(ordered, pool.map(work, ordered), strict=True))


def squared_distance(first: np.ndarray, second: np.ndarray) -> float:
    """||first - second||^2, the squares of each block added in float32, the blocks' sums in float64."""
    one, other = first.reshape(-1, 1), second.reshape(-1, 1)
    changes = ((one[at] - other[at]).ravel() for at in row_blocks(one))
    return math.fsum(float(change @ change) for change in changes)


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and little-endian bytes in order of name, as hex."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name}|{array.dtype.str}|{tensors[name].shape}|".encode())
        sha.update(array.data)
    return sha.hexdigest()
