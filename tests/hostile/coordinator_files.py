"""Readers of what a coordinator keeps."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from server.conduct import RUNNING, Heads, Journal
from server.registry import Registry
from shared_model.errors import ConfigError, RunError
from shared_model.signing import to_line
from tests.hostile.guard import Decoder
from tests.hostile.site_files import kept

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
        assert end <= Journal(folder).size() and "event" in event


DECODERS: dict[str, Decoder] = {
    "registry": kept("sites.json", enrolled, looked_up, ConfigError),
    "heads": kept("heads.json", told_heads, heads, RunError),
    "run's state": kept(
        "status.json", lambda folder: Journal(folder).set(RUNNING), lambda folder: Journal(folder).status(), RunError
    ),
    "journal": kept("events.jsonl", noted, events, RunError),
}
