"""The coordinator's folder: everything that must outlive a process, in one place that can be backed up.

config.yaml            where it listens, and the names that sites reach it by
authority/             CA key and certificate
tls/                   key and certificate of the public port
release.key            signs released models
admin.token            opens the admin port
executor.secret        opens the runtime API to the executor
sites.json             who is enrolled (registry.py)
link.db                the SuperLink's state
parts/                 parts of messages on their way
flower/                Flower's own home
runs/RUN/              one folder per run (store.py)
releases/RUN/          released models
heads.json             head of each site's audit log as last told (conduct.py)
ledgers.json           the same of its privacy ledger; a new key changes nothing here
invitations/           what each site joins with (enrolment.py)
"""

import ipaddress
import os
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from server.certificates import create_authority, issue_server_certificate
from server.registry import Registry
from server.store import RunStore
from shared_model.checkpoint import write_bytes
from shared_model.config import Config, load_config
from shared_model.errors import ConfigError
from shared_model.signing import create_release_key
from shared_model.skeleton import skeleton

FOLDER_VARIABLE = "MTSUNET_COORDINATOR"
"""Environment variable by which a run's process finds the folder."""
Port = Field(ge=1, le=65535)


def _reachable(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            version_6 = re.fullmatch(r"[0-9a-fA-F:]+", name) and ipaddress.IPv6Address(name)
        except ValueError:
            version_6 = None
        if not version_6 and not re.fullmatch(r"[A-Za-z0-9.-]+", name):
            raise ValueError(f"'{name}' is no host name or IP address")
    return names


class CoordinatorConfig(Config):
    """Where the coordinator listens."""

    names: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_reachable)]
    """Host names or IP addresses by which hospitals reach it; the certificate carries them."""
    listen: str = "0.0.0.0"
    """Address of the public port."""
    port: int = Port
    """The public port: sites alone, over TLS."""
    admin_port: int = Port
    """On loopback alone, with the admin token."""
    health_port: int | None = Field(None, ge=1, le=65535)
    """Standard gRPC health service, on loopback alone; none if left out."""
    keep_rounds: int = Field(10, ge=2)
    """Newest rounds of a run whose weights are kept; those to start from and to release are, too."""
    certificate: Path | None = None
    """Your own certificate chain (PEM) for the public port, with `certificate_key`; `authority` then names its CA."""
    certificate_key: Path | None = None
    """The private key of `certificate` (PEM), readable by the coordinator alone."""
    authority: Path | None = None
    """The CA certificate (PEM) that `certificate` was issued under; hospitals get it in their invitation."""

    @property
    def address(self) -> str:
        name = self.names[0]
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's folder."""

    folder: Path

    @cached_property
    def config(self) -> CoordinatorConfig:
        """Read config.yaml.

        Raises:
            ConfigError: missing or wrong.
        """
        if not (self.folder / "config.yaml").exists():
            raise ConfigError(f"{self.folder}: holds no coordinator", "make one with: mtsunet-server init")
        config = load_config(CoordinatorConfig, self.folder / "config.yaml")
        given = (config.certificate, config.certificate_key, config.authority)
        if any(given) and not all(given):
            what = f"{self.folder / 'config.yaml'}: certificate, certificate_key and authority belong together"
            raise ConfigError(what, "give all three, or none for an authority of its own")
        return config

    @property
    def authority(self) -> Path:
        return self._given("authority") or self.folder / "authority" / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self._given("certificate") or self.folder / "tls" / "server.crt"

    @property
    def certificate_key(self) -> Path:
        return self._given("certificate_key") or self.folder / "tls" / "server.key"

    def _given(self, name: str) -> Path | None:
        path: Path | None = getattr(self.config, name)
        return None if path is None else self.folder / path

    @property
    def release_key(self) -> Path:
        return self.folder / "release.key"

    @property
    def secret_file(self) -> Path:
        return self.folder / "executor.secret"

    @property
    def token(self) -> str:
        return (self.folder / "admin.token").read_text().strip()

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.folder / "sites.json")

    def run(self, run: str) -> RunStore:
        """A run's folder.

        Raises:
            ConfigError: there is no such run.
        """
        store = RunStore(self.folder / "runs" / run)
        if not store.exists:
            raise ConfigError(f"run '{run}' is not known here", "see: mtsunet-server runs")
        return store

    def renew(self) -> None:
        """A new key and certificate for the public port; takes effect when the server starts again.

        Raises:
            ConfigError: the certificate is your own.
        """
        if self.config.certificate is not None:
            raise ConfigError(f"{self.certificate}: was not issued here", "renew it where it came from")
        ca = self.folder / "authority"
        issue_server_certificate(
            ca / "ca.key", ca / "ca.crt", self.config.names, self.certificate_key, self.certificate
        )


def init(folder: Path, config: CoordinatorConfig) -> Coordinator:
    """A new coordinator in an empty folder.

    Raises:
        ConfigError: the folder holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is no empty folder", "name another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    coordinator = Coordinator(folder.resolve())
    write_bytes(coordinator.folder / "config.yaml", skeleton(config).encode())
    if config.certificate is None:
        create_authority(coordinator.folder / "authority" / "ca.key", coordinator.folder / "authority" / "ca.crt")
        coordinator.renew()
    create_release_key(coordinator.release_key)
    write_bytes(coordinator.folder / "admin.token", secrets.token_urlsafe(32).encode(), mode=0o600)
    write_bytes(coordinator.secret_file, secrets.token_bytes(32), mode=0o600)
    return coordinator


def from_environment() -> Coordinator:
    """The folder that the server named to a process of its own."""
    return Coordinator(Path(os.environ[FOLDER_VARIABLE]))
