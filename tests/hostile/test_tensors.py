"""Small tensor files that claim large things: refused without them."""

import json
import struct
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord

from shared_model import wire
from shared_model.checkpoint import decode_tensors
from shared_model.config import ModelConfig
from shared_model.errors import WeightsError, WireError
from shared_model.flower_message import FORMAT, content, unpack
from shared_model.network import build_network
from shared_model.pretrained import load_brainsegfounder
from tests.hostile.guard import MEBIBYTE, bounded

MANY = 10**12


def entry(shape: list[int], start: int = 0, end: int = 0, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def safetensors(header: object, rest: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + rest


ONE = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
TENSORS = {
    "header of exabytes": safetensors({}, length=2**63),
    "header of 100 MB that is not there": safetensors({}, length=10**8),
    "more values than bytes": safetensors({"a": entry([MANY], 0, 4 * MANY)}),
    "product over 64 bits": safetensors({"a": entry([2**33, 2**33])}),
    "no bytes, and a side beyond any index": safetensors({"a": entry([0, 2**64 - 1])}),
    "a hundred axes": safetensors({"a": entry([1] * 100, 0, 4)}, bytes(4)),
    "bytes shared by two": safetensors({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "a hole": safetensors({"a": entry([1], 4, 8)}, bytes(8)),
    "bytes that nobody owns": safetensors({"a": entry([1], 0, 4)}, bytes(64)),
    "backwards": safetensors({"a": entry([1], 4, 0)}, bytes(4)),
    "one name twice": safetensors(b"{" + ONE + b"," + ONE.replace(b"0,4", b"4,8") + b"}", bytes(8)),
    "half a number": safetensors({"a": entry([1], 0, 2, "BF16")}, bytes(2)),
    "less than a byte": safetensors({"a": entry([2], 0, 1, "F4")}, bytes(1)),
    "nested": safetensors(b'{"a":' * 100_000),
    "nested metadata": safetensors(b'{"__metadata__":' + b"[" * 100_000),
}


@pytest.mark.parametrize("trick", TENSORS)
def test_a_hostile_safetensors_header_is_refused(trick: str) -> None:
    with bounded(10), pytest.raises(WeightsError):
        decode_tensors(TENSORS[trick], "here")


@pytest.mark.parametrize(
    "header",
    [{"a": entry([0, 2**40])}, {"a": entry([1], 0, 8, "C64")}, {"a": entry([4], 0, 4, "BOOL")}],
    ids=["empty", "complex", "bool"],
)
def test_what_safetensors_knows_and_a_network_has_not_is_refused_behind_it(header: dict[str, object]) -> None:
    rest = bytes(header["a"]["data_offsets"][1])  # type: ignore[index]
    with bounded(10), pytest.raises(WireError):
        found = decode_tensors(safetensors(header, rest), "here")
        wire.check_tensors(found, {"a": decode_tensors(safetensors({"a": entry([1], 0, 4)}, bytes(4)), "")["a"]})


def test_megabytes_of_metadata_are_passed_over() -> None:
    with bounded(10):
        assert decode_tensors(safetensors({"__metadata__": {"x": "y" * 20 * MEBIBYTE}}), "here") == {}


def test_a_name_from_outside_cannot_end_a_line_or_fill_a_log() -> None:
    for name in ("a\nb", "\x1b[2J", "n" * 10**6):
        with pytest.raises(WireError) as caught:
            wire.check_tensors(decode_tensors(safetensors({name: entry([1], 0, 4)}, bytes(4)), "here"), {})
        assert str(caught.value).isprintable() and len(str(caught.value)) < 3000


def test_a_message_of_empty_arrays_is_small() -> None:
    """Thousands of names for no data cost what their bytes cost, some hundred times over at most."""
    data = safetensors({f"{number}": entry([0]) for number in range(20_000)})
    with bounded(10):
        _, found = unpack(content("x", ArrayRecord({"0": Array("uint8", (len(data),), FORMAT, data)})))
    assert len(found) == 20_000


def test_a_weight_of_a_trillion_equal_numbers_is_refused_before_it_is_computed_with(tmp_path: Path) -> None:
    config = ModelConfig.model_validate({"preset": "tiny", "patch_merging": "legacy"})
    network = build_network(config, ("wt",))
    weights = dict(network.backbone.state_dict())
    for claimed in (torch.zeros(1).expand(MANY), torch.zeros(1, 1, 1, 1, 1).expand(12, 4, 5000, 5000, 5000)):
        path = tmp_path / "weights.pt"
        torch.save(
            weights | {"encoder1.layer.conv1.conv.weight": claimed, "out.conv.conv.weight": torch.zeros(3)}, path
        )
        with bounded(20), pytest.raises(WeightsError, match=r"encoder1\.layer\.conv1\.conv\.weight is"):
            load_brainsegfounder(network, path, config)
