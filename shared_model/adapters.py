"""Low-rank adapters of a round: what a site trains and sends in place of the linear layers of the Swin encoder.

A layer's weight is W + B A. A, (rank, in), is drawn anew each round from the plan's seed and frozen, the same at
every site; B, (out, rank), starts at zero and is trained. Since A is common, the mean of the sites' B makes the mean
of their products, exactly; the coordinator adds it to W, and the next round begins with plain weights. So aggregation,
admission, clipping and noise see B as any other tensor.

A's entries are +-1 / sqrt(in), the same bits on every machine. Its rows have length 1 and are nearly orthogonal, so
that B has nearly the norm of the change that it makes: what clips B clips the update.
"""

import re
import zlib
from collections.abc import Mapping

import numpy as np

from shared_model.parameters import Tensors

SUFFIX = ".adapter"
_LINEAR = re.compile(r"backbone\.swinViT\..*\.(qkv|attn\.proj|mlp\.linear1|mlp\.linear2)\.weight")


def adapter_of(weight: str) -> str | None:
    """Name of a weight's adapter, B; None for one that has none."""
    return weight.removesuffix(".weight") + SUFFIX if _LINEAR.fullmatch(weight) else None


def projection(seed: int, index: int, weight: str, shape: tuple[int, int]) -> np.ndarray:
    """A of a round, (rank, in) float32.

    Args:
        seed: of the plan.
        index: of the round, from 1.
        weight: name of the weight that is adapted.
        shape: (rank, in).
    """
    bits = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, zlib.crc32(weight.encode())])))
    signs = bits.integers(0, 2, size=shape, dtype=np.int8) * 2.0 - 1.0
    scaled: np.ndarray = (signs / np.sqrt(shape[1])).astype(np.float32)
    return scaled


def adapter_shapes(base: Mapping[str, np.ndarray], rank: int) -> dict[str, tuple[int, int]]:
    """Name -> shape, (out, rank), of every adapter of these weights."""
    named = ((adapter_of(name), value) for name, value in base.items())
    return {name: (value.shape[0], rank) for name, value in named if name}


def merged(base: Tensors, adapters: Mapping[str, np.ndarray], seed: int, index: int) -> Tensors:
    """The weights with each adapter's product added, those without one as they are.

    Summed in float64, one rank after the other, so that each machine makes the same bits of them.
    """
    out = dict(base)
    for name, weight in base.items():
        adapter = adapter_of(name)
        if adapter is not None and adapter in adapters:
            b = adapters[adapter].astype(np.float64)  # (out, rank)
            a = projection(seed, index, name, (b.shape[1], weight.shape[1]))
            total = weight.astype(np.float64)
            for rank in range(len(a)):
                total += np.outer(b[:, rank], a[rank])
            out[name] = total.astype(np.float32)
    return out
