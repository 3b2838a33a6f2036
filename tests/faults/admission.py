"""What one of three sites sends in each round of a run, and its answers as files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from shared_model import wire
from shared_model.parameters import Tensors
from tests.tampering import FLAGGED, REFUSED, Change

REPLAYED = "its answer of the round before"
WORDS = {
    **{name: words for name, (_, words) in REFUSED.items() if name != "a stale round"},
    REPLAYED: "another base",
    **{name: words for name, (_, words) in FLAGGED.items()},
}
"""Fault -> words of its refusal or flag; the stale round is one that is replayed whole."""
FAULTS = tuple(WORDS)
"""The fault of each round, from the second on: the first is honest."""
ROUNDS = 1 + len(FAULTS)
MADE, SENT = "made", "sent"


@dataclass(frozen=True)
class Reply:
    """A reply as a site made it, or as it sent it."""

    update: wire.Update
    tensors: Tensors


def encode(update: wire.Update, tensors: Mapping[str, np.ndarray]) -> bytes:
    """A reply as a file."""
    return save(dict(tensors), {"header": wire.encode(update)})


def read(folder: Path, index: int, site: str, kind: str) -> Reply:
    """What a site made or sent in a round."""
    data = (folder / f"{index:02d}-{site}.{kind}").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["header"]
    update = wire.decode(header)
    assert isinstance(update, wire.Update)
    return Reply(update, load(data))


def change_of(index: int, folder: Path, site: str) -> Change:
    """What the site does to its answer of a round."""
    fault = FAULTS[index - 2] if index > 1 else None
    if fault is None:
        return lambda update, tensors, base: (update, tensors)
    if fault == REPLAYED:
        before = read(folder, index - 1, site, MADE)
        return lambda update, tensors, base: (before.update, before.tensors)
    return {**REFUSED, **FLAGGED}[fault][0]
