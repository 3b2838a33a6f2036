"""What travels of an update, or of the next model: 32-bit numbers, or the change since what both sides hold.

A codec takes the change c = w - b of each tensor, scales it by row, s = max |c| / peak, and sends s and round(c / s) in
few bits, compressed without further loss. Both sides then take w' = b + s round(c / s), the same bits on every machine,
since it is an addition and a product of 32-bit numbers, element by element. A row is one output channel; a tensor of
one axis is one row. Not for numbers whose size differs much within a row: the small ones vanish.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import zstandard

from shared_model.errors import WireError
from shared_model.parameters import Tensors

_LEVEL = 1
_SCALE_BYTES = 4


class Codec(ABC):
    """Turns tensors into what travels, and back."""

    changes: ClassVar[bool]
    """Whether what travels means something beside the tensors before alone."""

    @abstractmethod
    def encode(self, value: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What travels of one tensor: float32 of its shape, or a row of bytes."""

    @abstractmethod
    def decode(self, sent: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The tensor. What came whole is as it came, and a change may make NaN or infinity: wire.check_tensors refuses.

        Raises:
            WireError: no frame, or one of another length than the shape of `before` asks.
        """

    def decode_all(self, sent: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> Tensors:
        """The tensors that were sent.

        Raises:
            WireError: a tensor that `before` lacks, or see `decode`; it names the tensor.
        """
        return {name: self.decode_named(name, sent[name], before) for name in sorted(sent)}

    def decode_named(self, name: str, sent: np.ndarray, before: Mapping[str, np.ndarray]) -> np.ndarray:
        """One of them, by name."""
        if name not in before:
            raise WireError(f"tensor '{name}' was not asked for", "send exactly the tensors of the declared tasks")
        try:
            return self.decode(sent, before[name])
        except WireError as error:
            raise WireError(f"tensor '{name}' {error.what}", error.remedy) from None


class Whole(Codec):
    """Every number as it is."""

    changes = False

    def encode(self, value: np.ndarray, before: np.ndarray) -> np.ndarray:
        return value

    def decode(self, sent: np.ndarray, before: np.ndarray) -> np.ndarray:
        return sent


@dataclass(frozen=True)
class Change(Codec):
    """The change, scaled by row, in numbers of few bits.

    Attributes:
        dtype: of these numbers, little-endian.
        peak: the largest of a row becomes this one.
    """

    dtype: np.dtype
    peak: float

    changes = True

    def encode(self, value: np.ndarray, before: np.ndarray) -> np.ndarray:
        change = (value - before).reshape(_rows(before), -1)  # (rows, numbers of a row)
        scales = np.abs(change).max(axis=1, keepdims=True) / np.float32(self.peak)  # (rows, 1)
        np.divide(change, scales, out=change, where=scales > 0)
        if self.dtype.kind == "i":
            np.rint(change, out=change)
        numbers = np.ascontiguousarray(change.astype(self.dtype)).view(np.uint8)
        planes = numbers.reshape(-1, self.dtype.itemsize).T  # (bytes of a number, numbers): like bytes together
        raw = scales.astype("<f4").tobytes() + planes.tobytes()
        return np.frombuffer(zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(raw), np.uint8)

    def decode(self, sent: np.ndarray, before: np.ndarray) -> np.ndarray:
        rows = _rows(before)
        raw = _decompress(sent, _SCALE_BYTES * rows + self.dtype.itemsize * before.size)
        scales = np.frombuffer(raw, "<f4", count=rows).reshape(rows, 1)
        planes = np.frombuffer(raw, np.uint8, offset=_SCALE_BYTES * rows).reshape(self.dtype.itemsize, -1)
        numbers = np.ascontiguousarray(planes.T).view(self.dtype).reshape(rows, -1)  # (rows, numbers of a row)
        change = numbers.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # of a hostile scale; what is not finite is refused later
            change *= scales
            change += before.reshape(rows, -1)
        return change.reshape(before.shape)


CODECS: dict[str, Codec] = {
    "none": Whole(),
    "fp16": Change(np.dtype("<f2"), 1.0),
    "int8": Change(np.dtype("i1"), 127.0),
}
"""By the plan's name for them."""


def through(
    codec: Codec, values: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]
) -> tuple[Tensors, Tensors, float]:
    """What travels of these tensors, what the other side makes of it, and how much of the change is lost on the way:
    ||w' - w|| / ||w - b||, L2 over all tensors; 0 where nothing changed.
    """
    sent, decoded = {}, {}
    lost = changed = 0.0
    for name, value in sorted(values.items()):
        sent[name] = codec.encode(value, before[name])
        decoded[name] = codec.decode(sent[name], before[name])
        lost += _square(decoded[name] - value)
        changed += _square(value - before[name])
    return sent, decoded, math.sqrt(lost / changed) if changed else 0.0


def _square(difference: np.ndarray) -> float:
    flat = difference.ravel()
    return float(flat @ flat)


def _rows(before: np.ndarray) -> int:
    return before.shape[0] if before.ndim > 1 else 1


def _decompress(sent: np.ndarray, size: int) -> bytes:
    """The bytes of a frame that says that it holds `size` of them, and does."""
    if sent.dtype != np.uint8 or sent.ndim != 1:
        raise WireError(f"has dtype {sent.dtype} and {sent.ndim} axes", "send it by the plan's codec")
    frame = sent.tobytes()
    try:
        if zstandard.frame_content_size(frame) != size:
            raise WireError("holds another number of bytes than its shape asks", "send the model's shapes")
        raw = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise WireError("is no frame that can be decompressed", "send it by the plan's codec") from None
    if len(raw) != size:
        raise WireError("holds another number of bytes than its shape asks", "send the model's shapes")
    return raw
