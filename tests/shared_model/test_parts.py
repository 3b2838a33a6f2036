"""What a round trains, counted by hand, and that a round over adapters makes what the dense products would."""

import numpy as np
import pytest
import torch

from server.aggregation.fedavg import FedAvg
from shared_model.adapters import adapter_of, projection
from shared_model.config import Plan, TrainingConfig, parse_config
from shared_model.errors import ConfigError
from shared_model.network import build_network
from shared_model.parameters import Tensors, shared_state
from shared_model.parts import after_round, before_round, dense_names, trained_size
from shared_model.tasks import TASKS

RANK = 4


def make_plan(*parts: str) -> Plan:
    values = {"name": "test", "synthetic": True, "training": {"parts": parts, "adapter_rank": RANK}}
    return parse_config(Plan, values, "test")


@pytest.fixture(scope="module")
def base() -> Tensors:
    torch.manual_seed(0)
    return shared_state(build_network(make_plan("all").model, tuple(TASKS)))


def test_the_parts_are_those_that_their_names_say(base: Tensors) -> None:
    everything = sorted(base)
    assert dense_names(base, tuple(TASKS), ("all",)) == everything
    heads = dense_names(base, tuple(TASKS), ("heads",))
    assert heads == [n for n in everything if n.startswith(("heads.", "tumor_aware.", "cross_modality."))]
    decoder = dense_names(base, tuple(TASKS), ("decoder",))
    stages = {name.split(".")[1] for name in decoder}
    assert stages == {"encoder1", "encoder2", "encoder3", "decoder1", "decoder2", "decoder3"}
    assert dense_names(base, tuple(TASKS), ("adapters",)) == []
    assert dense_names(base, ("wt",), ("heads", "decoder")) == sorted([*decoder, "heads.wt.bias", "heads.wt.weight"])


def test_adapters_begin_at_zero_with_the_plans_rank(base: Tensors) -> None:
    before = before_round(base, ("wt",), make_plan("adapters").training)
    linear = [name for name in base if adapter_of(name)]
    assert len(before) == len(linear) > 20
    for name in linear:
        value = before[str(adapter_of(name))]
        assert value.shape == (base[name].shape[0], RANK) and value.dtype == np.float32 and not value.any()


def test_the_size_is_that_of_the_tensors(base: Tensors) -> None:
    shapes = {name: value.shape for name, value in base.items()}
    assert trained_size(shapes, make_plan("all")) == sum(value.size for value in base.values())
    linear = sum(value.shape[0] * RANK for name, value in base.items() if adapter_of(name))
    heads = sum(base[name].size for name in dense_names(base, tuple(TASKS), ("heads",)))
    assert trained_size(shapes, make_plan("adapters", "heads")) == linear + heads


def test_a_round_over_adapters_equals_the_mean_of_dense_products(base: Tensors) -> None:
    plan = make_plan("adapters", "heads")
    rng = np.random.default_rng(0)
    before = before_round(base, plan.tasks, plan.training)
    sites = [
        {name: value + rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in before.items()}
        for _ in range(3)
    ]
    weights = [5, 1, 30]
    rule = FedAvg()
    reduced = {name: rule.reduce([site[name] for site in sites], weights, before[name]) for name in before}
    after = after_round(base, reduced, plan, 7)
    assert sorted(after) == sorted(base)
    for name, value in base.items():
        adapter = adapter_of(name)
        if adapter in before:
            a = projection(plan.seed, 7, name, (RANK, value.shape[1])).astype(np.float64)
            dense = [value + site[str(adapter)].astype(np.float64) @ a for site in sites]
            wanted = np.average(dense, axis=0, weights=weights)
            assert np.abs(after[name] - wanted).max() <= 2e-7 * max(1.0, np.abs(wanted).max()), name
        elif name in before:
            assert np.array_equal(after[name], reduced[name])
        else:
            assert np.array_equal(after[name], value)


@pytest.mark.parametrize("parts", [[], ["all", "heads"], ["heads", "heads"], ["encoder"]], ids=str)
def test_parts_that_make_no_sense_are_refused(parts: list[str]) -> None:
    with pytest.raises(ConfigError, match="parts"):
        make_plan(*parts)


def test_all_is_the_default() -> None:
    assert TrainingConfig().parts == ("all",)
