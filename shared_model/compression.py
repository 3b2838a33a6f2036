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
from shared_model.parameters import Tensors, each, row_blocks, squared_distance

_LEVEL = 1
_SCALE_BYTES = 4


class Codec(ABC):
    """Turns tensors into what travels, and back."""

    changes: ClassVar[bool]
    """Whether what travels means something beside the tensors before alone."""

    def encode(self, value: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What travels of one tensor: float32 of its shape, or a row of bytes."""
        return self.both(value, before)[0]

    @abstractmethod
    def both(self, value: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What travels of one tensor, and what `decode` makes of that, to the bit."""

    @abstractmethod
    def decode(self, sent: np.ndarray, before: np.ndarray, spend: bool = False) -> np.ndarray:
        """The tensor. What came whole is as it came, and a change may make NaN or infinity: wire.check_tensors refuses.

        Args:
            spend: the tensor may take the place of `before`, which nobody needs any more: new memory costs more time
                than the arithmetic.

        Raises:
            WireError: no frame, or one of another length than the shape of `before` asks.
        """

    def decode_all(
        self, sent: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray], spend: bool = False
    ) -> Tensors:
        """The tensors that were sent.

        Raises:
            WireError: a tensor that `before` lacks, or see `decode`; it names the tensor.
        """
        return each(lambda name: self.decode_named(name, sent[name], before, spend), sent)

    def decode_named(
        self, name: str, sent: np.ndarray, before: Mapping[str, np.ndarray], spend: bool = False
    ) -> np.ndarray:
        """One of them, by name."""
        if name not in before:
            raise WireError(f"tensor '{name}' was not asked for", "send exactly the tensors of the declared tasks")
        try:
            return self.decode(sent, before[name], spend)
        except WireError as error:
            raise WireError(f"tensor '{name}' {error.what}", error.remedy) from None


class Whole(Codec):
    """Every number as it is."""

    changes = False

    def both(self, value: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return value, value

    def decode(self, sent: np.ndarray, before: np.ndarray, spend: bool = False) -> np.ndarray:
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

    def both(self, value: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = _rows(before)
        raw = np.empty(self._size(before), np.uint8)
        scales, planes = self._views(raw, rows)
        old, new = before.reshape(rows, -1), value.reshape(rows, -1)  # (rows, numbers of a row)
        decoded = np.empty_like(old)
        for at in row_blocks(old):
            change = new[at] - old[at]
            scale = np.abs(change).max(axis=1, keepdims=True) / np.float32(self.peak)
            change /= np.where(scale > 0, scale, np.float32(1))
            if self.dtype.kind == "i":
                np.rint(change, out=change)
            scales[at] = scale
            numbers = change.astype(self.dtype)
            for place, plane in enumerate(planes):
                plane[at] = numbers.view(self._bits) >> (8 * place)
            self._decode(numbers, scale, old[at], decoded[at])
        sent = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(raw.data)
        return np.frombuffer(sent, np.uint8), decoded.reshape(before.shape)

    def decode(self, sent: np.ndarray, before: np.ndarray, spend: bool = False) -> np.ndarray:
        rows = _rows(before)
        scales, planes = self._views(_decompress(sent, self._size(before)), rows)
        old = before.reshape(rows, -1)  # (rows, numbers of a row)
        decoded = old if spend else np.empty_like(old)
        with np.errstate(over="ignore", invalid="ignore"):  # of a hostile scale; what is not finite is refused later
            for at in row_blocks(old):
                bits = planes[-1, at].astype(self._bits)
                for plane in planes[-2::-1]:
                    bits = bits << 8 | plane[at]
                self._decode(bits.view(self.dtype), scales[at], old[at], decoded[at])
        return decoded.reshape(before.shape)

    def _decode(self, numbers: np.ndarray, scale: np.ndarray, old: np.ndarray, decoded: np.ndarray) -> None:
        """Some rows, into `decoded`, which may be `old`; all but `scale` (rows, 1) are (rows, numbers of a row)."""
        np.add(np.multiply(numbers, scale, dtype=np.float32), old, out=decoded)

    @property
    def _bits(self) -> np.dtype:
        return np.dtype(f"<u{self.dtype.itemsize}")

    def _size(self, before: np.ndarray) -> int:
        """Bytes of a frame that is not yet compressed."""
        return _SCALE_BYTES * _rows(before) + self.dtype.itemsize * before.size

    def _views(self, raw: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Its scales (rows, 1), and its numbers' bytes, like bytes together (bytes of a number, rows, numbers of a
        row).
        """
        scales, planes = raw[: _SCALE_BYTES * rows], raw[_SCALE_BYTES * rows :]
        return scales.view("<f4").reshape(rows, 1), planes.reshape(self.dtype.itemsize, rows, -1)


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
    decoded: Tensors = {}
    sent, lost = compressed(codec, values, before, decoded)
    return sent, decoded, lost


def compressed(
    codec: Codec,
    values: Mapping[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    decoded: Tensors | None = None,
) -> tuple[Tensors, float]:
    """The first and the last of `through`, for a side that does not need the other; what is given gets the rest."""

    def one(name: str) -> tuple[np.ndarray, float, float]:
        value, base = values[name], before[name]
        sent, other = codec.both(value, base)
        if decoded is not None:
            decoded[name] = other
        return sent, squared_distance(other, value), squared_distance(value, base)

    done = each(one, values)
    lost, changed = math.fsum(row[1] for row in done.values()), math.fsum(row[2] for row in done.values())
    return {name: row[0] for name, row in done.items()}, math.sqrt(lost / changed) if changed else 0.0


def _rows(before: np.ndarray) -> int:
    return before.shape[0] if before.ndim > 1 else 1


def _decompress(sent: np.ndarray, size: int) -> np.ndarray:
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
    return np.frombuffer(raw, np.uint8)
