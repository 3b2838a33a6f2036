"""Adapters against dense sums, and the network that they leave behind."""

import numpy as np
import pytest
import torch

from shared_model.adapters import adapter_of, adapter_shapes, merged, projection
from shared_model.config import ModelConfig
from shared_model.network import MTSUNet, build_network
from shared_model.network.adapters import Adapters
from shared_model.parameters import TRUNK, group_of, shared_state

RANK, SEED, ROUND = 4, 7, 3
TASKS = ("wt", "idh")


@pytest.fixture(scope="module")
def network() -> MTSUNet:
    torch.manual_seed(0)
    return build_network(ModelConfig(), TASKS)


@pytest.fixture(scope="module")
def base(network: MTSUNet) -> dict[str, np.ndarray]:
    return shared_state(network)


def drawn(base: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in sorted(adapter_shapes(base, RANK).items())
    }


def test_every_linear_layer_of_the_encoders_blocks_has_one(base: dict[str, np.ndarray]) -> None:
    shapes = adapter_shapes(base, RANK)
    assert len(shapes) == 4 * 8  # qkv, proj and two linears of 2 blocks in each of 4 stages
    assert sum(out for out, _ in shapes.values()) == 3240
    assert {group_of(name) for name in shapes} == {TRUNK}
    assert adapter_of("backbone.swinViT.patch_embed.proj.weight") is None
    assert adapter_of("backbone.swinViT.layers1.0.blocks.0.attn.qkv.bias") is None


def test_a_projection_is_a_function_of_seed_round_and_layer() -> None:
    a = projection(SEED, ROUND, "x", (RANK, 96))
    assert np.array_equal(a, projection(SEED, ROUND, "x", (RANK, 96)))
    others = [
        projection(*key, (RANK, 96)) for key in ((SEED + 1, ROUND, "x"), (SEED, ROUND + 1, "x"), (SEED, ROUND, "y"))
    ]
    assert all(not np.array_equal(a, other) for other in others)
    assert np.allclose((a * a).sum(1), 1, rtol=1e-6) and np.abs((a @ a.T) - np.eye(RANK)).max() < 0.5
    bits = projection(SEED, ROUND, "x", (2, 8)) > 0  # as on every machine, or sites would train different layers
    assert bits.astype(int).tolist() == [[1, 1, 1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 0, 1, 0]]


def test_the_mean_of_adapters_is_the_mean_of_dense_updates(base: dict[str, np.ndarray]) -> None:
    weights = [3, 1, 2]
    sites = [drawn(base, seed) for seed in range(3)]
    mean = {
        name: np.average([site[name].astype(np.float64) for site in sites], axis=0, weights=weights)
        for name in sites[0]
    }
    ours = merged(base, mean, SEED, ROUND)
    for name, before in base.items():
        dense = np.zeros(before.shape)
        for w, site in zip(weights, sites, strict=True):
            change = 0.0
            if adapter := adapter_of(name):
                change = site[adapter].astype(np.float64) @ projection(SEED, ROUND, name, (RANK, before.shape[1]))
            dense += w * (before.astype(np.float64) + change)
        np.testing.assert_allclose(ours[name], dense / sum(weights), rtol=2e-7, atol=1e-8)


def test_training_and_merging_make_what_the_coordinator_makes(network: MTSUNet, base: dict[str, np.ndarray]) -> None:
    adapters = Adapters(network, RANK, SEED, ROUND)
    images, present = torch.randn(1, 4, 64, 32, 32), torch.ones(1, 4, dtype=torch.bool)
    optimizer = torch.optim.SGD(adapters.parameters.values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(value.square().mean() for value in network(images, present).values()).backward()
        optimizer.step()
    frozen = [n for n, p in network.named_parameters() if n.endswith("original") and p.grad is not None]
    assert frozen == []
    sent = {name: value.detach().numpy().astype(np.float32) for name, value in adapters.parameters.items()}
    assert set(sent) == set(adapter_shapes(base, RANK)) and all(np.abs(value).max() > 0 for value in sent.values())
    network.eval()
    with torch.no_grad():
        before = network(images, present)
        adapters.merge()
        after = network(images, present)
    for name in TASKS:
        torch.testing.assert_close(after[name], before[name])
    state, wanted = shared_state(network), merged(base, sent, SEED, ROUND)
    assert set(state) == set(base)
    for name in base:
        np.testing.assert_allclose(state[name], wanted[name], rtol=1e-6, atol=1e-7)
