"""What a Flower message carries: our header as JSON, and tensors packed into few objects.

Flower stores, signs, sends and confirms each array as objects of its own, and each costs a request and a transaction on
every hop. Tensors therefore travel as safetensors files of about 16 MiB, each the data of one Array, so that a network
of 195 tensors is 16 arrays.
"""

from collections.abc import Iterator

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from shared_model.checkpoint import decode_tensors, encode_tensors
from shared_model.errors import WeightsError, WireError
from shared_model.parameters import Tensors

HEADER = "header"
TENSORS = "tensors"
FORMAT = "safetensors"
PART_BYTES = (16 << 20) - (1 << 16)
"""With a file's head still two parts of a message (flower_environment.py)."""


def pack(tensors: Tensors) -> ArrayRecord:
    """The tensors as Flower's arrays; equal tensors give equal arrays, which Flower sends once to all nodes."""
    record = ArrayRecord()
    for index, part in enumerate(_parts(tensors)):
        data = encode_tensors(part)
        record[f"{index:04d}"] = Array("uint8", (len(data),), FORMAT, data)
    return record


def content(header: str, tensors: ArrayRecord) -> RecordDict:
    """The content of a message."""
    return RecordDict({HEADER: ConfigRecord({"json": header}), TENSORS: tensors})


def unpack(content: RecordDict) -> tuple[object, Tensors]:
    """Header and tensors of a content, whose arrays are gone afterwards: no tensor is in memory twice.

    Raises:
        WireError: another content than ours. The header itself is looked at by wire.decode.
    """
    try:
        header, record = content.config_records[HEADER]["json"], content.array_records[TENSORS]
        tensors: Tensors = {}
        for name in sorted(record):
            part = decode_tensors(record.pop(name).data, f"array {name}")
            if twice := sorted(set(part) & set(tensors)):
                raise WireError(f"tensor '{twice[0]}' came twice", "check the sender's release")
            tensors |= part
    except (KeyError, TypeError, WeightsError):
        raise WireError("the message is not one of this release", "install the same release") from None
    return header, tensors


def _parts(tensors: Tensors) -> Iterator[Tensors]:
    """The tensors in order of name, in groups of at most PART_BYTES; a larger tensor is a group of its own."""
    part: Tensors = {}
    size = 0
    for name in sorted(tensors):
        if part and size + tensors[name].nbytes > PART_BYTES:
            yield part
            part, size = {}, 0
        part[name] = tensors[name]
        size += tensors[name].nbytes
    if part:
        yield part
