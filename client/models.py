"""Released models: what the coordinator offers, and one of them, kept only once it is known to be genuine."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from client.audit import AuditLog
from client.connection import PAGE_BYTES, RefusedHereError, fetch, read_invitation
from shared_model.checkpoint import MANIFEST, MODEL, commit_folder, remove_folder, write_bytes
from shared_model.config import SiteConfig
from shared_model.errors import ConfigError, WeightsError
from shared_model.metrics import Record
from shared_model.released import CARD, SIGNATURE, Released, parse_released
from shared_model.signing import read_site_key, release_is_genuine
from shared_model.wire import RunId


class _Offered(Record):
    models: tuple[RunId, ...]


def kept_models(config: SiteConfig) -> Path:
    """The folder of fetched models, one folder a run, where no other is named."""
    return config.state / "models"


def list_models(config: SiteConfig) -> list[str]:
    """The runs whose models the coordinator offers.

    Raises:
        ConfigError: no invitation, or no key.
        UnreachableError, RefusedHereError: no answer, or none that can be used.
    """
    return list(parse_offered(fetch(read_invitation(config), read_site_key(config.key), "models")))


def parse_offered(page: bytes) -> tuple[RunId, ...]:
    """The runs in the coordinator's list.

    Raises:
        RefusedHereError: it is none.
    """
    try:
        return _Offered.model_validate_json(page).models
    except ValidationError:
        raise RefusedHereError("the coordinator's list of models is none", "ask the coordinator") from None


def get_model(config: SiteConfig, run: str, folder: Path) -> Path:
    """Fetch the model of a run into folder/RUN. What is not genuine is refused before anything is written.

    Raises:
        ConfigError: it is here already, or it is not offered; and as list_models.
        UnreachableError, RefusedHereError: as list_models.
        WeightsError: a file is not what the key in the invitation signed, or of another run.
    """
    if run not in list_models(config):
        raise ConfigError(f"run '{run}': no model of it is offered", "see: mtsunet-client models --site CONFIG")
    place = folder / run
    if place.exists():
        raise ConfigError(f"{place}: is here already", "keep it, or remove it first")
    invitation, key = read_invitation(config), read_site_key(config.key)
    files = {name: fetch(invitation, key, f"models/{run}/{name}") for name in (MANIFEST, SIGNATURE)}
    released = _vouched(run, invitation.release_key, files)
    for name, sha256, size in ((CARD, released.card_sha256, PAGE_BYTES), (MODEL, released.sha256, released.bytes)):
        files[name] = fetch(invitation, key, f"models/{run}/{name}", size)
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise _not_genuine(run, f"{name} is not the file that its manifest vouches for")
    part = folder / f".{run}.part"
    remove_folder(part)
    for name, data in files.items():
        write_bytes(part / name, data)
    AuditLog(config.state).append("fetched model", {"run": run, "sha256": released.sha256})
    commit_folder(part, place)
    return place


def _vouched(run: str, release_key: str, files: dict[str, bytes]) -> Released:
    """The manifest, once its signature is that of the pinned key and it is of the run that was asked for."""
    if not release_is_genuine(release_key, files[MANIFEST], files[SIGNATURE].decode(errors="replace")):
        raise _not_genuine(run, "the signature is not that of the key in the invitation")
    released = parse_released(files[MANIFEST], f"run '{run}': {MANIFEST}")
    if released.run != run:
        raise _not_genuine(run, f"the manifest is that of run '{released.run}'")
    return released


def _not_genuine(run: str, what: str) -> WeightsError:
    return WeightsError(f"run '{run}': {what}", "do not use it, and tell the coordinator by telephone")
