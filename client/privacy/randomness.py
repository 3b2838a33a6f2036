"""Randomness that nobody can foretell, for the sampling and the noise of private training.

A key stream of AES-256 in counter mode under a key of the operating system's, made anew with each object. A plan's
seed reaches nothing here: who knows the noise can take it off again.
"""

import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

CHUNK = 1 << 16
"""Values made at a time; few enough for a processor's cache."""
SUMMANDS = 4
"""Gaussians that make one value of noise: that many floating-point draws leave an attacker too many to try
(Holohan and Braghin 2021, section 5.1, n = 2), as in Opacus' secure mode."""


class SecureStream:
    """A stream of random words. It belongs to one thread of one process: do not fork with it."""

    def __init__(self) -> None:
        self._cipher = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> np.ndarray:
        """(count,) uint64, uniform."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), np.uint64)

    def sample(self, count: int, rate: float) -> list[int]:
        """Poisson sampling: each index below `count` by itself, with probability `rate` to 2^-64; sorted.

        Raises:
            ValueError: the rate is no probability.
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"rate: {rate} is no probability")
        if rate == 1:
            return list(range(count))
        chosen: list[int] = np.flatnonzero(self.words(count) < np.uint64(int(rate * 2**64))).tolist()
        return chosen

    def add_gaussian(self, values: torch.Tensor, deviation: float) -> None:
        """Add independent noise N(0, deviation^2) to a contiguous tensor, in place; made in float64 on the CPU."""
        flat = values.view(-1)  # (n,)
        for start in range(0, len(flat), CHUNK):
            part = flat[start : start + CHUNK]
            total = torch.zeros(len(part), dtype=torch.float64)
            for _ in range(SUMMANDS):
                total += self._gaussian(len(part))
            part += (total * (deviation / SUMMANDS**0.5)).to(part)

    def _gaussian(self, count: int) -> torch.Tensor:
        """(count,) float64 from N(0, 1), by Box and Muller."""
        half = (count + 1) // 2
        uniform = torch.from_numpy((self.words(2 * half) >> np.uint64(11)).astype(np.float64)).mul_(2.0**-53)
        radius = uniform[:half].neg_().add_(1).log_().mul_(-2).sqrt_()  # of 1 - u, which is never 0
        angle = uniform[half:].mul_(2 * torch.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
