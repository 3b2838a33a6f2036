"""The secure stream against the laws that it should follow; each test fails by chance once in a million times."""

import numpy as np
import pytest
import torch
from scipy import stats

from client.privacy import randomness
from client.privacy.randomness import SecureStream

CHANCE = 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_gaussian_about_what_was_there(dtype: torch.dtype) -> None:
    values = torch.full((300, 999), 5.0, dtype=dtype)  # an odd number
    SecureStream().add_gaussian(values, 3.0)
    flat = values.flatten().double().numpy()
    assert stats.kstest(flat, "norm", args=(5.0, 3.0)).pvalue > CHANCE
    assert stats.pearsonr(flat[:-1], flat[1:]).pvalue > CHANCE
    half = len(flat) // 2  # the two halves of one Box-Muller draw
    assert stats.pearsonr(np.abs(flat[:half] - 5), np.abs(flat[half : 2 * half] - 5)).pvalue > CHANCE


def test_noise_reaches_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "CHUNK", 7)
    values = torch.zeros(3, 10)
    SecureStream().add_gaussian(values, 1.0)
    assert len(values.unique()) == 30


def test_no_seed_reaches_the_stream() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        drawn.append(SecureStream().words(4).tolist())
    assert drawn[0] != drawn[1]


def test_each_patient_is_drawn_by_himself_at_the_rate() -> None:
    count, rate, draws = 20, 0.3, 20_000
    stream = SecureStream()
    taken = np.zeros((draws, count), bool)
    for row in taken:
        row[stream.sample(count, rate)] = True
    for column in taken.T:
        assert stats.binomtest(int(column.sum()), draws, rate).pvalue > CHANCE / count
    sizes = np.bincount(taken.sum(1), minlength=count + 1)
    expected = stats.binom.pmf(np.arange(count + 1), count, rate) * draws
    likely = expected > 5
    observed, wanted = ([*values[likely], values[~likely].sum()] for values in (sizes, expected))
    assert stats.chisquare(observed, np.array(wanted) * draws / np.sum(wanted)).pvalue > CHANCE


def test_rates_at_the_ends() -> None:
    stream = SecureStream()
    assert stream.sample(5, 1.0) == [0, 1, 2, 3, 4]
    assert stream.sample(1000, 0.0) == [] == stream.sample(0, 0.5)
    with pytest.raises(ValueError, match="no probability"):
        stream.sample(5, 1.1)
