"""What an aggregation rule remembers from a round to the next: a file beside the model that the round made.

The round's manifest holds the file's sha256, as it holds the model's. Tensors of the file are named NAME/PART: the
model's tensor, and the rule's own name for what it remembers of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open

from shared_model.checkpoint import file_sha256, readable, write_tensors
from shared_model.errors import WeightsError
from shared_model.parameters import Tensors

MEMORY = "memory.safetensors"
RESTORE = "restore the run's folder from a backup"

Memory = Mapping[str, Tensors]
"""Tensor of the model -> what a rule remembers of it: part -> array."""


class KeptMemory(Memory):
    """A memory on disk, read for one tensor of the model at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, list[str]] = {}
        with readable(path, RESTORE), safe_open(path, framework="numpy") as tensors:
            for key in sorted(tensors.keys()):
                name, _, part = key.rpartition("/")
                self._parts.setdefault(name, []).append(part)

    def __getitem__(self, name: str) -> Tensors:
        parts = self._parts[name]
        with readable(self._path, RESTORE), safe_open(self._path, framework="numpy") as tensors:
            return {part: tensors.get_tensor(f"{name}/{part}") for part in parts}

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def write_memory(folder: Path, memory: Memory) -> str:
    """Write a memory into a round's folder; its sha256, as hex."""
    named = {f"{name}/{part}": value for name, parts in memory.items() for part, value in parts.items()}
    write_tensors(folder / MEMORY, named)
    return file_sha256(folder / MEMORY)


def read_memory(folder: Path, sha256: object) -> Memory:
    """The memory in a round's folder; empty where the round left none.

    Args:
        sha256: what the round's manifest says of it; None if nothing.

    Raises:
        WeightsError: missing, or not the bytes that the manifest vouches for.
    """
    path = folder / MEMORY
    if sha256 is None and not path.exists():
        return {}
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__})", RESTORE) from None
    if found != sha256:
        raise WeightsError(f"{path}: is not the file its manifest vouches for", RESTORE)
    return KeptMemory(path)
