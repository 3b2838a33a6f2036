"""The codec: what is encoded comes back, and nothing else gets in."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model import wire
from shared_model.checkpoint import decode_tensors, encode_tensors
from shared_model.errors import WeightsError, WireError
from shared_model.metrics import AucCount, DiceSum
from shared_model.parameters import digest
from shared_model.scores import SiteScores
from tests.federation import small_simulation

RUN = "0123456789abcdef"
HEAD = f"3:{'a' * 64}"
SCORES = SiteScores(dice={"wt": DiceSum.of([0.5, 1.0])}, auc={"idh": AucCount.of([0.1, 0.9], [False, True])})
OPENING = wire.Opening(run=RUN, release=wire.RELEASE, plan=small_simulation().plan, audit=HEAD)
TERMS = wire.Terms(run=RUN, site="a", release="x", tasks=("wt",), cases={"wt": 1}, minimum_cell=1, audit=HEAD)
WORK = wire.Work(run=RUN, round=1, plan="0" * 64, base="1" * 64, settings={"mu": 0.1})
UPDATE = wire.Update(
    run=RUN, round=1, base="1" * 64, site="a", cases={"wt": -450}, evaluation=SCORES, seconds=1, audit=HEAD
)
CLOSING = wire.Closing(run=RUN, round=2, base="1" * 64)
EVALUATED = wire.Evaluated(run=RUN, site="a", evaluation=SCORES, audit=HEAD)
HEADERS: list[wire.Header] = [
    *(OPENING, TERMS, WORK, UPDATE, CLOSING, EVALUATED),
    wire.Refusal(run=RUN, site="a", reason="no"),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.kind)
def test_a_header_comes_back(header: wire.Header) -> None:
    assert wire.decode(wire.encode(header)) == header


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.kind)
def test_an_unknown_field_is_refused(header: wire.Header) -> None:
    values = json.loads(wire.encode(header)) | {"surprise": 1}
    with pytest.raises(WireError, match="surprise"):
        wire.decode(json.dumps(values))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"kind": "none"}', "[" * 100_000, "x" * (wire.HEADER_LIMIT + 1), None, b"{}", "NaN"],
    ids=lambda text: repr(text)[:12],
)
def test_what_is_no_header_is_refused(text: object) -> None:
    with pytest.raises(WireError):
        wire.decode(text)


def test_numbers_that_are_not_finite_are_refused() -> None:
    values = json.loads(wire.encode(UPDATE)) | {"seconds": float("nan")}
    with pytest.raises(WireError, match="seconds"):
        wire.decode(json.dumps(values))


def test_a_site_speaks_for_itself_alone() -> None:
    two = SCORES.auc["idh"] + SCORES.auc["idh"]
    with pytest.raises(ValueError, match="one stratum"):
        wire.Evaluated(run=RUN, site="a", evaluation=SiteScores(auc={"idh": two}), audit=HEAD)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(WireError):
        wire.decode(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_tensors(data: bytes) -> None:
    with pytest.raises(WeightsError):
        decode_tensors(data, "here")


@given(st.dictionaries(st.text(min_size=1), st.lists(st.floats(width=32, allow_nan=False)), max_size=4))
def test_tensors_come_back_and_equal_ones_are_equal_bytes(values: dict[str, list[float]]) -> None:
    tensors = {name: np.array(value, np.float32) for name, value in values.items()}
    data = encode_tensors(tensors)
    assert encode_tensors(dict(reversed(tensors.items()))) == data
    back = decode_tensors(data, "here")
    assert digest(back) == digest(tensors)


def test_a_changed_bit_name_shape_or_dtype_changes_the_digest() -> None:
    base = {"a": np.zeros(4, np.float32)}
    others: list[dict[str, np.ndarray]] = [
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.array([0, 0, 0, -0.0], np.float32)},
    ]
    assert len({digest(base), *(digest(other) for other in others)}) == 5


def test_no_type_names_travel(tmp_path: Path) -> None:
    for header in HEADERS:
        assert "__class__" not in wire.encode(header)
        assert "module" not in wire.encode(header)
