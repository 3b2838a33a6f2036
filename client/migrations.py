"""The version of a site's state folder: an older one is brought to this release's, a newer one is left alone.

state/version.json   {"version": 1}; a folder without it is of version 0
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from shared_model.checkpoint import write_bytes, write_json
from shared_model.errors import ConfigError, DataError
from shared_model.metrics import Record


class _Kept(Record):
    version: int = Field(ge=0)


def _error_log_to_logs(state: Path) -> None:
    """errors.log moves to logs/errors.log, before what stands there."""
    old, new = state / "errors.log", state / "logs" / "errors.log"
    if old.exists():
        write_bytes(new, old.read_bytes() + (new.read_bytes() if new.exists() else b""))
        old.unlink()


MIGRATIONS: tuple[Callable[[Path], None], ...] = (_error_log_to_logs,)
"""Number n brings a folder of version n to n + 1. Each may be repeated, should power fail in it."""
VERSION = len(MIGRATIONS)


def version_of(state: Path) -> int:
    """The version of a state folder; looks and touches nothing.

    Raises:
        ConfigError: a newer release has used it.
        DataError: it cannot be told.
    """
    path = state / "version.json"
    try:
        version = _Kept.model_validate_json(path.read_bytes(), strict=True).version
    except FileNotFoundError:
        return 0
    except (OSError, ValidationError) as error:
        remedy = "restore the state folder from a backup"
        raise DataError(f"{path}: cannot be read ({type(error).__name__})", remedy) from None
    if version > VERSION:
        what = f"{state}: is of version {version}, this release knows versions up to {VERSION}"
        raise ConfigError(what, "install the newer release that used it last")
    return version


def migrate(state: Path) -> None:
    """Bring a state folder to this release's version, one version after the other.

    Raises:
        ConfigError, DataError: as version_of; nothing was touched.
    """
    for version in range(version_of(state), VERSION):
        MIGRATIONS[version](state)
        write_json(state / "version.json", {"version": version + 1})
