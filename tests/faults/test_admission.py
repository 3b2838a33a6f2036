"""A hostile site over Flower and TLS: each of its answers is refused or flagged by name, and harms no model.

The same replies go to stock Flower's FedAvg, and the table in docs/reliability.md shows both.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp.strategy import FedAvg

from benchmarks.tables import replace_table
from server.store import RunStore
from shared_model.parameters import Tensors, group_of
from tests.faults.admission import FAULTS, MADE, ROUNDS, SENT, WORDS, Reply, read
from tests.faults.table import DOCUMENT
from tests.faults.weather import Make
from tests.tampering import FLAGGED

pytestmark = pytest.mark.faults
HONEST, HOSTILE = ("alder", "birch"), "dogwood"
SITES = (*HONEST, HOSTILE)
TASKS = ["wt", "tc", "et", "idh", "grade"]
END_SECONDS = 580.0


def mean(replies: Sequence[Reply], base: Tensors) -> Tensors:
    """The slow truth: each tensor's mean by the cases of its group, in float64, over those who sent it."""
    result = {}
    for name, value in base.items():
        of = [reply for reply in replies if name in reply.tensors]
        weights = [reply.update.cases[group_of(name)] for reply in of]
        stack = [reply.tensors[name].astype(np.float64) for reply in of]
        result[name] = np.tensordot(weights, np.stack(stack), 1) / sum(weights) if of else value
    return result


def fedavg(replies: Sequence[Reply]) -> Tensors | str:
    """The weights that stock Flower makes of replies, or the error by which it loses the round."""
    messages: list[Any] = []
    for reply in replies:
        arrays = ArrayRecord({name: Array(value) for name, value in reply.tensors.items()})
        metrics = MetricRecord({"num-examples": reply.update.cases["trunk"]})
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        messages.append(SimpleNamespace(content=content, has_error=lambda: False))
    try:
        averaged, _ = FedAvg().aggregate_train(1, messages)
    except (AppExitException, ValueError, TypeError) as error:
        return type(error).__name__
    assert averaged is not None
    return {name: array.numpy() for name, array in averaged.items()}


def apart(weights: Tensors, honest: Tensors, base: Tensors) -> float:
    """||weights - honest|| / ||honest - base||"""

    def norm(first: Tensors, second: Tensors) -> float:
        return float(np.sqrt(sum(np.square(first[name] - second[name].astype(np.float64)).sum() for name in honest)))

    return norm(weights, honest) / norm(honest, base)


def in_words(weights: Tensors | str, honest: Tensors, base: Tensors) -> str:
    if isinstance(weights, str):
        return f"round lost ({weights})"
    if not all(np.isfinite(value).all() for value in weights.values()):
        return "**NaN or infinity in the model**"
    return f"counted; {apart(weights, honest, base):.2g}"


def row(store: RunStore, sent: Path, index: int) -> str:
    """What became of one round: checked, and told."""
    fault = FAULTS[index - 2]
    record, base, model = store.record(index), store.model(index - 1), store.model(index)
    flags = fault in FLAGGED
    (named,) = record["flagged" if flags else "refused"]
    assert named["site"] == HOSTILE and WORDS[fault] in named["reason"], named
    assert record["refused" if flags else "flagged"] == []
    assert sorted(record["sites"]) == sorted(SITES if flags else HONEST)
    counted = [read(sent, index, site, SENT) for site in sorted(record["sites"])]
    truth = mean(counted, base)
    for name, value in model.items():
        np.testing.assert_allclose(value, truth[name], rtol=1e-6, atol=1e-7)
    honest = mean([read(sent, index, site, MADE if site == HOSTILE else SENT) for site in SITES], base)
    theirs = fedavg([read(sent, index, site, SENT) for site in SITES])
    ours = f"{'flagged' if flags else 'refused'}: {named['reason']}; {apart(model, honest, base):.2g}"
    return f"| {fault} | {ours} | {in_words(theirs, honest, base)} |"


def test_a_hostile_sites_answers_are_refused_or_flagged_and_harm_no_model(make: Make) -> None:
    """One fault a round; birch's node sends each of its replies three times, which counts once."""
    world = make(
        sites=SITES,
        plan={"sites": list(SITES), "rounds": ROUNDS, "minimum_sites": 2},
        settings={"keep_rounds": ROUNDS + 1},
        environment={"HOSTILE": HOSTILE, "ODD": "birch", "UPLOADS": "thrice"},
    )
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    store, sent = world.store, world.folder / "sent"
    assert sorted(store.record(1)["sites"]) == sorted(SITES)
    for name, value in mean([read(sent, 1, site, SENT) for site in SITES], store.model(0)).items():
        np.testing.assert_allclose(store.model(1)[name], value, rtol=1e-6, atol=1e-7)
    rows = [row(store, sent, index) for index in range(2, ROUNDS + 1)]
    for name in FAULTS:
        assert WORDS[name] in world.follower.said, name
    assert len((world.folder / "again.txt").read_text().splitlines()) >= 2 * ROUNDS
    assert set(world.trained().values()) == {1}
    header = [
        "| what one of three sites sends | here; distance | stock Flower FedAvg; distance |",
        "|---|---|---|",
    ]
    replace_table(DOCUMENT, "admission", "\n".join(header + rows))
