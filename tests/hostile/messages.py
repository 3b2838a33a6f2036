"""Decoders of what comes over the network."""

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import httpx
import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord

from client import connection
from client.connection import RefusedHereError
from client.models import parse_offered
from shared_model import shell, wire
from shared_model.checkpoint import MANIFEST, MODEL, decode_tensors, encode_tensors, read_model, write_json
from shared_model.compression import CODECS
from shared_model.config import Invitation
from shared_model.errors import MtsunetError, WeightsError, WireError
from shared_model.flower_message import FORMAT, content, unpack
from shared_model.parameters import digest
from shared_model.pretrained import _named_weights, _read
from shared_model.released import parse_released
from tests.hostile.guard import Decoder
from tests.hostile.payloads import files, tensor_files, texts
from tests.shared_model.test_wire import HEADERS, RUN

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "missing_token": np.zeros(4, np.float32)}
FRAME = CODECS["int8"].encode(TENSORS["a"] + 1, TENSORS["a"]).tobytes()
SAFETENSORS = encode_tensors(TENSORS)


def header(folder: Path, data: bytes) -> None:
    found = wire.decode(data.decode("latin-1"))
    assert wire.decode(wire.encode(found)) == found
    if isinstance(found, wire.Update | wire.Evaluated):
        (found.evaluation + found.evaluation).rows()


def tensors(folder: Path, data: bytes) -> None:
    found = decode_tensors(data, "here")
    digest(found)
    wire.check_tensors(found, TENSORS)


def frame(folder: Path, data: bytes) -> None:
    found = CODECS["int8"].decode(np.frombuffer(data, np.uint8), TENSORS["a"])
    assert found.shape == TENSORS["a"].shape and found.dtype == np.float32


def message(folder: Path, data: bytes) -> None:
    parts = ArrayRecord({"0000": Array("uint8", (len(data),), FORMAT, data)})
    text, found = unpack(content("text", parts))
    assert text == "text"
    digest(found)


def model_folder(folder: Path, data: bytes) -> None:
    """A model whose manifest vouches for whatever it is."""
    (folder / MODEL).write_bytes(data)
    write_json(folder / MANIFEST, {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)})
    digest(read_model(folder))


def model_manifest(folder: Path, data: bytes) -> None:
    (folder / MODEL).write_bytes(SAFETENSORS)
    (folder / MANIFEST).write_bytes(data)
    read_model(folder)


def pretrained(folder: Path, data: bytes) -> None:
    (folder / "weights.pt").write_bytes(data)
    with warnings.catch_warnings(action="ignore"):
        _named_weights(_read(folder / "weights.pt"), folder)


def saved(legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(3)}}, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def app(folder: Path, data: bytes) -> None:
    """Whatever it is, there is a reason in one line not to run it."""
    reason = shell.fault(data)
    assert data == shell.CONTENT or (reason is not None and "\n" not in reason)


def asked(ask: Callable[[], object]) -> Callable[[Path, bytes], None]:
    """A question to a coordinator who answers with whatever it is."""

    def decode(folder: Path, data: bytes) -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(data)))
        web = httpx.Client(base_url="https://coordinator", transport=transport)
        with patch.object(connection, "_client", lambda invitation: web):
            ask()

    return decode


def listed() -> tuple[str, ...]:
    return parse_offered(connection.fetch(INVITED, KEY, "models"))


KEY = ec.generate_private_key(ec.SECP384R1())
INVITED = Invitation(site="a", address="coordinator:1", authority="", release_key="ab" * 32)
HELLO = json.dumps({"release": wire.RELEASE, "online": True, "shell": shell.DIGEST}).encode()
OFFERED = json.dumps({"models": [RUN]}).encode()
ROW = {"task": "wt", "metric": "dice", "value": 0.5, "n": 4}
RELEASED = {
    **{"release": "0.1.0", "run": RUN, "round": 2},
    **{"about": {"plan": "0" * 64, "synthetic": True}, "sites": 2, "cases": {"wt": 8}, "digest": "1" * 64, "bytes": 9},
    **{"chosen": {"rule": "best", "by": ROW}, "pooled": [ROW], "sha256": "2" * 64, "card_sha256": "3" * 64},
}
MANIFEST_OF_MODEL = json.dumps({"sha256": hashlib.sha256(SAFETENSORS).hexdigest(), "bytes": len(SAFETENSORS)}).encode()

DECODERS = {
    "header": Decoder(header, WireError, texts(*(wire.encode(header).encode() for header in HEADERS)), 2000),
    "tensors": Decoder(tensors, (WeightsError, WireError), tensor_files(SAFETENSORS), 1500),
    "frame": Decoder(frame, WireError, files(FRAME), 1500),
    "message": Decoder(message, WireError, tensor_files(SAFETENSORS), 1000),
    "model": Decoder(model_folder, WeightsError, tensor_files(SAFETENSORS), 300),
    "model's manifest": Decoder(model_manifest, WeightsError, texts(MANIFEST_OF_MODEL), 300),
    "hello": Decoder(asked(lambda: connection.hello(INVITED, KEY)), RefusedHereError, texts(HELLO), 300),
    "offered models": Decoder(asked(listed), RefusedHereError, texts(OFFERED), 300),
    "released manifest": Decoder(
        lambda _, data: parse_released(data, "here"), WeightsError, texts(json.dumps(RELEASED).encode()), 500
    ),
    "pretrained": Decoder(pretrained, WeightsError, files(saved(legacy=False), saved(legacy=True)), 300),
    "app": Decoder(app, MtsunetError, files(shell.CONTENT), 1000),
}
