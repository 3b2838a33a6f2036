"""Tensors through Flower's own message format and back, and what else may come in one."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from shared_model import flower_message
from shared_model.checkpoint import encode_tensors
from shared_model.errors import WireError
from shared_model.flower_message import FORMAT, HEADER, PART_BYTES, TENSORS, content, pack, unpack
from shared_model.parameters import Tensors

NAMES = st.text("abc.", min_size=1, max_size=6)
ARRAYS = st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4))


def through_flower(record: RecordDict) -> RecordDict:
    """A record as it comes out of Flower's objects at the other end."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    contents = {name: item.deflate() for name, item in get_all_nested_objects(record).items()}
    arrived = inflate_object_from_contents(record.object_id, contents)
    assert isinstance(arrived, RecordDict)
    return arrived


@given(st.dictionaries(NAMES, ARRAYS, max_size=5), st.integers(1, 200))
def test_what_is_packed_comes_back(tensors: Tensors, part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flower_message, "PART_BYTES", part)
        header, back = unpack(through_flower(content("text", pack(tensors))))
    assert header == "text"
    assert sorted(back) == sorted(tensors)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


def test_a_network_is_a_few_arrays_whatever_the_order_of_its_tensors() -> None:
    tensors = {f"t{index}": np.full(PART_BYTES // 16, index, np.float32) for index in range(9)}  # a quarter each
    packed, turned = pack(tensors), pack(dict(reversed(tensors.items())))
    assert len(packed) == 3
    assert packed.object_id == turned.object_id


def test_a_tensor_larger_than_a_part_travels_alone() -> None:
    tensors = {name: np.zeros(size, np.float32) for name, size in {"a": 1, "b": PART_BYTES // 2, "c": 1}.items()}
    assert len(pack(tensors)) == 3


def test_arrays_are_gone_once_unpacked() -> None:
    record = content("text", pack({"a": np.zeros(3, np.float32)}))
    unpack(record)
    assert len(record.array_records[TENSORS]) == 0


def array(data: bytes) -> Array:
    return Array("uint8", (len(data),), FORMAT, data)


GOOD = encode_tensors({"a": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    "record",
    [
        RecordDict({}),
        RecordDict({HEADER: ConfigRecord({"json": "text"})}),
        RecordDict({TENSORS: ArrayRecord({})}),
        RecordDict({HEADER: ConfigRecord({"other": "text"}), TENSORS: ArrayRecord({})}),
        content("text", ArrayRecord({"0": Array(np.zeros(3, np.float32))})),
        content("text", ArrayRecord({"0": array(GOOD[:-1])})),
        content("text", ArrayRecord({"0": array(GOOD + b"x")})),
        content("text", ArrayRecord({"0": array(b"")})),
        content("text", ArrayRecord({"0": array(b"\xff" * 64)})),
    ],
)
def test_another_content_is_refused(record: RecordDict) -> None:
    with pytest.raises(WireError, match="not one of this release"):
        unpack(record)


def test_a_tensor_in_two_parts_is_refused() -> None:
    with pytest.raises(WireError, match="'a' came twice"):
        unpack(content("text", ArrayRecord({"0": array(GOOD), "1": array(GOOD)})))
