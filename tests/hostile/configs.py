"""Decoders of YAML files. Payloads are edited JSON, which YAML reads, with YAML's own tricks among the tokens."""

import json
from collections.abc import Callable
from pathlib import Path

from server.coordinator import CoordinatorConfig
from shared_model.config import Config, Invitation, Plan, SimulationPlan, SiteConfig, load_config, parse_config
from shared_model.errors import ConfigError
from tests.federation import small_simulation
from tests.hostile.guard import Decoder
from tests.hostile.payloads import Payloads, texts

TRICKS = (
    *("&a [1]", "*a", "&a [*a]", "<<", "!!python/object/apply:os.system [a]", "!!binary QQ==", "!!set {a}", "!!int x"),
    *("!!timestamp x", "!!bool x", "!!int ''", "? [a]", "? {a: b}", "? " * 500, "- " * 500, "---", "...", "%YAML 9.9"),
    *("0x" + "f" * 5000, "1:" * 2000 + "1", "1:" * 300 + "1.0", "0b1", "2001-99-99", "2001-01-01T99:99:99Z", ".inf"),
    *(".nan", "|", ">-", "'", '"', "#", "\0", "\t", "@", "`", "=", "~"),
)
SITE = {
    "site": "north",
    "data": {"folder": "cases", "labels": "labels.csv", "read_as": {"idh": {"wt": "wildtype"}}},
    "tasks": ["wt", "idh"],
    "state": "state",
    "policy": {"rounds": 5, "releases": ["0.1.0"], "privacy": {"patients": 90, "delta": 1e-6}},
}
SITES = {
    "plan": {"name": "a", "synthetic": False},
    "sites": [{"site": "x", "data": SITE["data"], "tasks": ["wt"]}],
    "partitions": [{"data": {"layout": "fets2022", "folder": "f"}, "by": "t.csv", "tasks": ["wt"]}],
    "test": [SITE["data"]],
}
INVITATION = {"site": "north", "address": "[::1]:8443", "authority": "-----BEGIN", "release_key": "ab" * 32}
COORDINATOR = {"names": ["host.example", "::1"], "port": 8443, "admin_port": 8444, "certificate": "a.crt"}


def loaded(kind: type[Config]) -> Callable[[Path, bytes], None]:
    """Load a file, and use what came: its digest, and its own text read again."""

    def load(folder: Path, data: bytes) -> None:
        path = folder / "config.yaml"
        path.write_bytes(data)
        found = load_config(kind, path)
        assert parse_config(kind, json.loads(found.canonical()), "again").digest() == found.digest()

    return load


def yaml(*valid: object) -> Payloads:
    return texts(*(json.dumps(values).encode() for values in valid), more=TRICKS)


PLAN = small_simulation().model_dump(mode="json", include={"plan", "phantoms"})

DECODERS = {
    "plan": Decoder(loaded(Plan), ConfigError, yaml(PLAN["plan"]), 500),
    "simulation": Decoder(loaded(SimulationPlan), ConfigError, yaml(SITES, PLAN), 400),
    "site": Decoder(loaded(SiteConfig), ConfigError, yaml(SITE), 400),
    "invitation": Decoder(loaded(Invitation), ConfigError, yaml(INVITATION), 400),
    "coordinator": Decoder(loaded(CoordinatorConfig), ConfigError, yaml(COORDINATOR), 300),
}
