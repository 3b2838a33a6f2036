"""The one door out: what is no answer of this site's stays in, and what leaves stands in the audit log as it left."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from client.audit import AuditLog
from client.outbound import leave, permitted
from shared_model import wire
from shared_model.config import DataConfig, PolicyConfig, SiteConfig
from shared_model.errors import RefusedError
from shared_model.metrics import AucCount, DiceSum
from shared_model.parameters import Tensors
from shared_model.scores import SiteScores
from tests.federation import small_simulation

RUN = "0123456789abcdef"
HEAD = f"3:{'a' * 64}"
BASE = "1" * 64
SCORES = SiteScores(dice={"wt": DiceSum.of([0.5, 1.0])}, auc={"idh": AucCount.of([0.1, 0.9], [False, True])})
TERMS = wire.Terms(run=RUN, site="north", release="x", tasks=("wt",), cases={"wt": 11}, minimum_cell=11, audit=HEAD)
UPDATE = wire.Update(
    run=RUN, round=1, base=BASE, site="north", cases={"wt": 11}, evaluation=SCORES, seconds=1, audit=HEAD
)
EVALUATED = wire.Evaluated(run=RUN, site="north", evaluation=SCORES, audit=HEAD)
REFUSAL = wire.Refusal(run=RUN, site="north", reason="no")
TENSORS: Tensors = {
    "b": np.array([[1.0, -2.0, 0.5], [0.0, -0.0, 3.0]], np.float32),
    "a": np.arange(12, dtype=np.float32)[::3],
}


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    data = DataConfig(layout="bids", folder=Path("cases"))
    return SiteConfig(site="north", data=data, tasks=("wt",), state=tmp_path / "state")


def stays(config: SiteConfig, answer: wire.Header, tensors: Tensors) -> str:
    """Why an answer does not leave; nothing was logged as sent."""
    with pytest.raises(RefusedError) as caught:
        leave(config, answer, tensors)
    assert AuditLog(config.state).lines() == []
    return caught.value.what


@pytest.mark.parametrize(
    "header",
    [
        wire.Opening(run=RUN, release="x", plan=small_simulation().plan),
        wire.Work(run=RUN, round=1, plan=BASE, base=BASE, settings={}),
        wire.Closing(run=RUN, round=1, base=BASE),
    ],
    ids=lambda header: header.kind,
)
def test_what_a_coordinator_says_does_not_leave(site: SiteConfig, header: wire.Header) -> None:
    assert stays(site, header, {}) == f"a site does not say '{header.kind}'"


@pytest.mark.parametrize("answer", [TERMS, UPDATE, EVALUATED, REFUSAL], ids=lambda answer: answer.kind)
def test_an_answer_in_another_sites_name_does_not_leave(site: SiteConfig, answer: wire.Header) -> None:
    assert "a site does not say" in stays(site, answer.model_copy(update={"site": "south"}), {})


@pytest.mark.parametrize("answer", [TERMS, EVALUATED, REFUSAL], ids=lambda answer: answer.kind)
def test_tensors_leave_beside_an_update_alone(site: SiteConfig, answer: wire.Header) -> None:
    assert stays(site, answer, TENSORS) == "tensors leave with an update alone"


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", ">f4", "S4"])
def test_a_tensor_of_another_dtype_does_not_leave(site: SiteConfig, dtype: str) -> None:
    tensors = TENSORS | {"odd": np.zeros(2, dtype)}
    assert stays(site, UPDATE, tensors).startswith("tensor 'odd' is ")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_beside_a_compressed_update_bytes_alone_leave(site: SiteConfig, dtype: str) -> None:
    compressed = UPDATE.model_copy(update={"error": 0.01})
    frames = {name: np.zeros(9, np.uint8) for name in TENSORS}
    assert stays(site, compressed, frames | {"odd": np.zeros(2, dtype)}) == f"tensor 'odd' is {dtype}"
    assert leave(site, compressed, frames)[1] is frames


@pytest.mark.parametrize("answer", [UPDATE, EVALUATED], ids=lambda answer: answer.kind)
@pytest.mark.parametrize(
    ("metrics", "left"),
    [(("dice",), {"dice": SCORES.dice}), (("auc",), {"auc": SCORES.auc}), ((), {}), (("dice", "auc"), None)],
    ids=["dice alone", "auc alone", "none", "both"],
)
def test_results_beyond_the_policy_do_not_leave(
    site: SiteConfig, answer: wire.Update | wire.Evaluated, metrics: tuple[str, ...], left: dict[str, object] | None
) -> None:
    config = site.model_copy(update={"policy": PolicyConfig.model_validate({"metrics": metrics})})
    expected = SCORES if left is None else SiteScores.model_validate(left)
    assert permitted(config, SCORES) == expected
    if expected != SCORES:
        assert stays(config, answer, {}) == "results beyond the site's policy"
    text, _ = leave(config, answer.model_copy(update={"evaluation": expected}), {})
    left_as = wire.decode(text)
    assert isinstance(left_as, wire.Update | wire.Evaluated)
    assert left_as.evaluation == expected


def test_what_leaves_stands_in_the_audit_log(site: SiteConfig) -> None:
    text, tensors = leave(site, UPDATE, TENSORS)
    assert wire.decode(text) == UPDATE
    assert tensors == TENSORS
    (line,) = AuditLog(site.state).lines()
    said = json.loads(line)
    sha = hashlib.sha256()
    for name, shape, values in (("a", "(4,)", [0, 3, 6, 9]), ("b", "(2, 3)", [1, -2, 0.5, 0, -0.0, 3])):
        sha.update(f"{name}|<f4|{shape}|".encode() + np.array(values, "<f4").tobytes())
    assert said["event"] == "sent"
    assert said["facts"] == {
        "run": RUN,
        "kind": "update",
        "header": {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "tensors": {"listed": [["a", "float32", [4], 16], ["b", "float32", [2, 3], 24]], "sha256": sha.hexdigest()},
    }
    assert AuditLog(site.state).verify() is None


@pytest.mark.parametrize("answer", [TERMS, EVALUATED, REFUSAL], ids=lambda answer: answer.kind)
def test_an_answer_without_tensors_is_logged_too(site: SiteConfig, answer: wire.Header) -> None:
    assert leave(site, answer, {}) == (wire.encode(answer), {})
    (line,) = AuditLog(site.state).lines()
    facts = json.loads(line)["facts"]
    assert (facts["kind"], facts["tensors"]["listed"]) == (answer.kind, [])
    assert facts["header"]["sha256"] == hashlib.sha256(wire.encode(answer).encode()).hexdigest()


def test_with_a_damaged_log_nothing_leaves(site: SiteConfig) -> None:
    leave(site, TERMS, {})
    log = AuditLog(site.state)
    log.path.write_bytes(log.path.read_bytes().replace(b"terms", b"other"))
    with pytest.raises(Exception, match="last line is damaged"):
        leave(site, UPDATE, TENSORS)
    assert len(log.lines()) == 1
