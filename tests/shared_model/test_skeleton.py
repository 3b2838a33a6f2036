"""Skeletons: a config written out loads back as it was, and each of its fields is explained there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator import CoordinatorConfig
from shared_model.config import Config, DataConfig, Invitation, PolicyConfig, SiteConfig, load_config
from shared_model.skeleton import skeleton

SITE = SiteConfig(
    site="north", data=DataConfig(folder=Path("cases"), labels=Path("cases.csv")), tasks=("wt",), state=Path("state")
)
FULL_SITE = SITE.model_copy(
    update={
        "raw": DataConfig(
            layout="bids",
            folder=Path("scans of the year: 2026 # all"),
            cases=("one", "two: three"),
            label_tables={"tcga-gbm": Path("a b/c.csv")},
            read_as={"idh": {"WT": "wildtype", "n/a": "unknown", "yes": "mutant"}},
        ),
        "invitation": Path("a long way/" * 12 + "north.yaml"),
        "policy": PolicyConfig(approve_plans=False, releases=("0.1.0", "1e3"), metrics=()),
        "health_port": 8080,
    }
)
COORDINATOR = CoordinatorConfig(names=("fed.example.org", "2001:db8::1"), port=8443, admin_port=8444)
FULL_COORDINATOR = CoordinatorConfig(
    names=("10.0.0.5",),
    listen="::",
    port=1,
    admin_port=65535,
    health_port=2,
    certificate=Path("/etc/a folder with spaces in its name") / ("and more " * 10) / "chain.pem",
    certificate_key=Path("tls/key.pem"),
    authority=Path("../ca.pem"),
)
INVITATION = Invitation(
    site="north",
    address="[2001:db8::1]:8443",
    authority=f"-----BEGIN CERTIFICATE-----\n{'ab+/' * 16}\n{'cd==' * 3}\n-----END CERTIFICATE-----\n",
    release_key="0" * 64,
)
CONFIGS = [SITE, FULL_SITE, COORDINATOR, FULL_COORDINATOR, INVITATION]
NAMES = ["site", "full site", "coordinator", "full coordinator", "invitation"]


def parts(config: Config) -> Iterator[Config]:
    """A config and those that it holds."""
    yield config
    for name in type(config).model_fields:
        if isinstance(value := getattr(config, name), Config):
            yield from parts(value)


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_a_skeleton_loads_back_equal(config: Config, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(skeleton(config).encode())
    assert load_config(type(config), tmp_path / "config.yaml") == config


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_each_field_is_explained_above_its_name(config: Config) -> None:
    lines = skeleton(config).splitlines()
    given = 0
    said = " ".join(line.strip().removeprefix("# ") for line in lines)
    for part in parts(config):
        for name, field in type(part).model_fields.items():
            assert field.description, f"{type(part).__name__}.{name} has no docstring"
            assert f"{' '.join(field.description.split())} {name}:" in said.replace(" # ", " ")
            value = getattr(part, name)
            given += value is not None
            assert any(re.match(rf" *{'# ' if value is None else ''}{name}:", line) for line in lines)

    assert sum(not line.strip().startswith("#") for line in lines) == given, "a value stands on several lines"


def test_a_skeleton_reads_like_this() -> None:
    assert skeleton(COORDINATOR).splitlines()[:9] == [
        "# Host names or IP addresses by which hospitals reach it; the certificate carries them.",
        "names: [fed.example.org, '2001:db8::1']",
        "# Address of the public port.",
        "listen: 0.0.0.0",
        "# The public port: sites alone, over TLS.",
        "port: 8443",
        "# On loopback alone, with the admin token.",
        "admin_port: 8444",
        "# Standard gRPC health service, on loopback alone; none if left out.",
    ]


@given(st.text(), st.lists(st.text()).map(tuple), st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_text_and_number_loads_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, texts: tuple[str, ...], number: float
) -> None:
    data = SITE.data.model_copy(update={"layout": text, "cases": texts, "read_as": {text: dict.fromkeys(texts, text)}})
    policy = PolicyConfig(releases=texts, epochs_per_round=number)
    site = SITE.model_copy(update={"data": data, "policy": policy, "state": Path(text)})
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(skeleton(site).encode())
    assert load_config(SiteConfig, path) == site
