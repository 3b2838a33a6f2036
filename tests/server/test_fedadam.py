"""Adam at the server: the formula by hand and against a slow truth, and a memory that outlives the process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.aggregation import build
from server.aggregation.base import Rule
from server.memory import MEMORY
from server.reduction import reduce_round
from server.store import RunStore
from shared_model.compression import CODECS
from shared_model.config import AggregationConfig, Plan, parse_config
from shared_model.errors import ConfigError, WeightsError
from shared_model.parameters import Tensors, digest
from tests.federation import small_simulation
from tests.server.test_store import RUN, update

BASE: Tensors = {"heads.wt.bias": np.array([1.0, -2.0], np.float32), "missing_token": np.arange(4, dtype=np.float32)}


def fedadam(**options: float) -> Rule:
    return build(AggregationConfig(rule="fedadam", options=options))


def test_two_rounds_by_hand() -> None:
    """tau^2 = v = 9/64. d = 3/8: m = 3/16, v = 9/64, and the step (3/16) / (3/8 + 3/8) = 1/4.

    d = 21/8: m = 3/32 + 21/16 = 45/32, v = 9/128 + 441/128 = (15/8)^2, and the step (45/32) / (15/8 + 3/8) = 5/8.
    """
    rule = fedadam(learning_rate=1, beta1=0.5, beta2=0.5, tau=0.375)
    first, memory = rule.step(np.array([1], np.float32), np.array([1.375], np.float32), {})
    assert first.tolist() == [1.25]
    assert {part: value.tolist() for part, value in memory.items()} == {"m": [0.1875], "v": [0.140625]}
    second, memory = rule.step(first, first + np.float32(2.625), memory)
    assert second.tolist() == [1.875]
    assert {part: value.tolist() for part, value in memory.items()} == {"m": [1.40625], "v": [3.515625]}


def slow(values: list[float], rate: float, beta1: float, beta2: float, tau: float) -> float:
    """One coordinate over rounds, its weight first, then each round's mean update."""
    weight, m, v = values[0], 0.0, tau**2
    for change in values[1:]:
        m = beta1 * m + (1 - beta1) * change
        v = beta2 * v + (1 - beta2) * change * change
        weight += rate * m / (v**0.5 + tau)
    return weight


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.floats(1e-3, 1),
    st.floats(0, 0.99),
    st.floats(0, 0.999),
    st.floats(1e-6, 1),
)
def test_every_coordinate_is_that_of_plain_numbers(
    seed: int, rounds: int, rate: float, beta1: float, beta2: float, tau: float
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(3, 4)).astype(np.float32)
    rule = fedadam(learning_rate=rate, beta1=beta1, beta2=beta2, tau=tau)
    weight = base
    memory: dict[str, np.ndarray] = {}
    columns = [[float(value)] for value in base.flat]
    for _ in range(rounds):
        mean = (weight + rng.normal(0, 0.01, size=base.shape)).astype(np.float32)
        for column, change in zip(columns, (mean.astype(np.float64) - weight).flat, strict=True):
            column.append(float(change))
        weight, memory = rule.step(weight, mean, memory)
    wanted = [slow(column, rate, beta1, beta2, tau) for column in columns]
    np.testing.assert_allclose(weight.ravel(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [("learning_rate", 0), ("learning_rate", 1.1), ("beta1", 1), ("beta1", -0.1), ("beta2", 1), ("tau", 0), ("tau", 2)],
)
def test_a_setting_out_of_range_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"aggregation\.options: {option}: input should be "):
        fedadam(**{option: value})


@pytest.mark.parametrize("parts", [["adapters"], ["decoder", "adapters"]])
def test_adapters_which_begin_anew_are_refused_with_the_plan(parts: list[str]) -> None:
    values: dict[str, Any] = {"name": "a", "synthetic": True, "aggregation": {"rule": "fedadam"}}
    assert parse_config(Plan, values | {"training": {"parts": ["decoder"]}}, "plan")
    with pytest.raises(ConfigError, match=r"^plan: aggregation\.rule: fedadam remembers .* leave them out"):
        parse_config(Plan, values | {"training": {"parts": parts}}, "plan")


@pytest.fixture
def store(run_folder: Path) -> RunStore:
    store = RunStore(run_folder)
    store.create(RUN, small_simulation().plan, BASE, None)
    return store


def play(store: RunStore, index: int, sites: dict[str, Tensors]) -> None:
    """A round in which each site sent its tensors, with a weight of 3 each."""
    rule = fedadam(tau=0.01)
    for site, tensors in sites.items():
        reply = update(site, index).model_copy(update={"cases": {"wt": 3, "trunk": 3}})
        store.spool(reply, tensors, 0.5)
    replies = store.spooled(index)
    base = store.model(index - 1)
    trained, memory = reduce_round(rule, base, replies, store.memory(index - 1), CODECS["none"])
    model = base | trained
    store.commit(index, model, digest(model), list(sites), {}, memory)


def shifted(store: RunStore, index: int, shift: float, *names: str) -> Tensors:
    return {name: value + np.float32(shift) for name, value in store.model(index).items() if name in names}


def test_a_tensor_that_nobody_trains_rests_with_its_memory(store: RunStore) -> None:
    everything = tuple(BASE)
    play(store, 1, {"alder": shifted(store, 0, 0.1, *everything), "birch": shifted(store, 0, 0.3, *everything)})
    first = {name: dict(store.memory(1)[name]) for name in everything}
    play(store, 2, {"alder": shifted(store, 1, 0.1, "missing_token")})
    second = store.memory(2)
    assert sorted(second) == sorted(first) and len(second) == 2
    assert store.model(2)["heads.wt.bias"].tobytes() == store.model(1)["heads.wt.bias"].tobytes()
    for part in ("m", "v"):
        assert second["heads.wt.bias"][part].tobytes() == first["heads.wt.bias"][part].tobytes()
        assert not np.array_equal(second["missing_token"][part], first["missing_token"][part])
    # Both rounds by the formula, over the mean of .1 and .3, and over .1.
    wanted = [slow([value, 0.2, 0.1], 0.01, 0.9, 0.99, 0.01) for value in BASE["missing_token"].tolist()]
    np.testing.assert_allclose(store.model(2)["missing_token"], wanted, rtol=1e-6, atol=1e-6)


def test_a_tensor_that_is_first_trained_later_begins_without_a_memory(store: RunStore) -> None:
    play(store, 1, {"alder": shifted(store, 0, 0.1, "missing_token")})
    assert list(store.memory(1)) == ["missing_token"]
    assert store.model(1)["heads.wt.bias"].tobytes() == BASE["heads.wt.bias"].tobytes()
    play(store, 2, {"alder": shifted(store, 1, 0.1, "heads.wt.bias")})
    assert sorted(store.memory(2)) == sorted(BASE)
    wanted = [slow([value, 0.1], 0.01, 0.9, 0.99, 0.01) for value in BASE["heads.wt.bias"].tolist()]
    np.testing.assert_allclose(store.model(2)["heads.wt.bias"], wanted, rtol=1e-6)


def test_only_the_last_round_keeps_a_memory_and_a_rule_without_one_leaves_no_file(store: RunStore) -> None:
    assert dict(store.memory(0)) == {}
    for index in (1, 2, 3):
        play(store, index, {"alder": shifted(store, index - 1, 0.1, "missing_token")})
    files = sorted(path.parent.name for path in (store.folder / "rounds").glob(f"*/{MEMORY}"))
    assert files == ["0003"]
    store.commit(4, store.model(3), store.manifest(3)["digest"], ["alder"], {})
    assert not list((store.folder / "rounds").glob(f"*/{MEMORY}"))
    assert "memory" not in store.manifest(4)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "of another round"])
def test_a_damaged_memory_is_told_by_name_before_sites_are_asked(damage: str, store: RunStore) -> None:
    play(store, 1, {"alder": shifted(store, 0, 0.1, "missing_token")})
    path = store.model_folder(1) / MEMORY
    data = path.read_bytes()
    if damage == "of another round":
        play(store, 2, {"alder": shifted(store, 1, 0.1, "missing_token")})
        path = store.model_folder(2) / MEMORY
    path.write_bytes(
        data[:-1] + bytes([data[-1] ^ 1]) if damage == "changed" else data[:-3] if damage == "cut" else data
    )
    if damage == "gone":
        path.unlink()
    with pytest.raises(WeightsError, match=rf"{path}: .*\. Restore the run's folder from a backup\."):
        store.memory(store.last_round())
