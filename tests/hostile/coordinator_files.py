"""Readers of what a coordinator keeps."""

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from server.conduct import Heads
from server.journal import RUNNING, Journal, asked, told
from server.registry import Registry
from server.store import RunStore
from shared_model.compression import CODECS
from shared_model.errors import ConfigError, RunError, WeightsError, WireError
from shared_model.parameters import digest
from shared_model.signing import to_line
from tests.hostile.guard import Decoder
from tests.hostile.site_files import PLAN, UPDATE, kept
from tests.server.test_store import TENSORS as MODEL
from tests.shared_model.test_wire import EVALUATED, RUN, TERMS

FRAMES = {name: CODECS["int8"].encode(value + 1, value) for name, value in MODEL.items()}
SPOOLED = UPDATE.model_copy(update={"round": 2})
SPOOL = f"spool/0002/{UPDATE.site}"
LINES = [to_line(ec.generate_private_key(ec.SECP384R1()).public_key()) for _ in range(2)]


def enrolled(folder: Path) -> None:
    for site, line in zip(("alder", "birch"), LINES, strict=True):
        Registry(folder / "sites.json").enrol(site, line)


def looked_up(folder: Path) -> None:
    registry = Registry(folder / "sites.json")
    for row in registry.rows():
        assert registry.of_key(row.pem) is not None and row.fingerprint
    registry.sites()


def told_heads(folder: Path) -> None:
    Heads(folder / "heads.json")["alder"] = f"2:{'a' * 64}"


def heads(folder: Path) -> None:
    known = Heads(folder / "heads.json")
    known.get("alder")
    known["birch"] = f"3:{'b' * 64}"
    assert len(known) >= 1


def noted(folder: Path) -> None:
    for number in range(3):
        Journal(folder).note("round", {"round": number, "sites": ["alder"]})


def events(folder: Path) -> None:
    for end, event in Journal(folder).events():
        assert end <= Journal(folder).size()
        told(event, 3)
    asked(event for _, event in Journal(folder).events())


def begun(folder: Path) -> None:
    """A run in the midst of its second round, with all files that one can have."""
    store = RunStore(folder)
    store.create(RUN, PLAN, MODEL, None)
    store.write_terms([TERMS], [{"site": "birch", "reason": "not connected"}])
    record = {"round": 1, "sites": {}, "refused": [], "flagged": [], "absent": []}
    memory = {name: {"m": value, "v": value} for name, value in MODEL.items()}
    store.commit(1, MODEL, digest(MODEL), ["a"], record, memory)
    store.spool(SPOOLED, MODEL, 1.0)
    store.decide(SPOOLED.round, ["a"])
    store.write_evaluated([EVALUATED])


def reduced(folder: Path) -> None:
    (reply,) = RunStore(folder).spooled(SPOOLED.round)
    for name in reply.names():
        reply.tensor(name, CODECS["none"], MODEL)


def decompressed(folder: Path) -> None:
    (reply,) = RunStore(folder).spooled(SPOOLED.round)
    for name in reply.names():
        assert reply.tensor(name, CODECS["int8"], MODEL).shape == MODEL[name].shape


def compressed(folder: Path) -> None:
    """A run whose plan compresses."""
    store = RunStore(folder)
    store.create(RUN, PLAN, MODEL, None)
    store.commit(1, MODEL, digest(MODEL), ["a"], {}, None, FRAMES)
    store.spool(SPOOLED, FRAMES, 1.0)


def remembered(folder: Path) -> None:
    memory = RunStore(folder).memory(1)
    assert {name: sorted(memory[name]) for name in memory} == {name: ["m", "v"] for name in MODEL}


PART_OF_RUN: dict[str, tuple[str, Callable[[Path], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "run": ("run.json", lambda folder: RunStore(folder).read(), (RunError, ConfigError)),
    "terms": ("terms.json", lambda folder: RunStore(folder).terms(), RunError),
    "record": ("rounds/0001/record.json", lambda folder: RunStore(folder).record(1), RunError),
    "manifest": ("rounds/0001/manifest.json", lambda folder: RunStore(folder).manifest(1), WeightsError),
    "model": ("rounds/0001/model.safetensors", lambda folder: RunStore(folder).model(1), WeightsError),
    "memory": ("rounds/0001/memory.safetensors", remembered, WeightsError),
    "evaluations": ("evaluated.json", lambda folder: RunStore(folder).evaluated(), RunError),
    "round's sites": (f"{SPOOL}/../.sites.json", lambda folder: RunStore(folder).decided(SPOOLED.round), RunError),
    "reply": (f"{SPOOL}/header.json", reduced, (RunError, WireError)),
    "reply's norm": (f"{SPOOL}/about.json", reduced, RunError),
    "reply's tensors": (f"{SPOOL}/tensors.safetensors", reduced, RunError),
}

DECODERS: dict[str, Decoder] = {
    "registry": kept("sites.json", enrolled, looked_up, ConfigError),
    "heads": kept("heads.json", told_heads, heads, RunError),
    "run's state": kept(
        "status.json", lambda folder: Journal(folder).set(RUNNING), lambda folder: Journal(folder).status(), RunError
    ),
    "journal": kept("events.jsonl", noted, events, RunError),
    **{name: kept(file, begun, read, refusal) for name, (file, read, refusal) in PART_OF_RUN.items()},
    "reply's frames": kept(f"{SPOOL}/tensors.safetensors", compressed, decompressed, RunError),
    "change": kept(
        "rounds/0001/change.safetensors",
        compressed,
        lambda folder: CODECS["int8"].decode_all(RunStore(folder).change(1) or {}, MODEL),
        (WeightsError, WireError),
    ),
}
