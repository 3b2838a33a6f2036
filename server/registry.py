"""Who is enrolled: one JSON file, the only truth about it. The server reads it at each request, so that `enrol` and
`revoke` take effect at once, with the server up or down.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shared_model.checkpoint import open_to_append, write_json
from shared_model.config import Config, Name
from shared_model.errors import ConfigError
from shared_model.signing import fingerprint, from_line, to_line, to_pem


class Enrolment(Config):
    """A site's key and what became of it."""

    site: Name
    key: str
    """OpenSSH line."""
    enrolled: str
    revoked: str | None = None
    node: int | None = None
    """Flower's id of the key, once it was first seen."""

    @property
    def fingerprint(self) -> str:
        return fingerprint(from_line(self.key))

    @property
    def pem(self) -> str:
        return to_pem(from_line(self.key))


_ROWS = TypeAdapter(tuple[Enrolment, ...])


@dataclass
class Registry:
    """The enrolments, oldest first. A site has at most one key that is not revoked; revoked keys stay listed."""

    path: Path

    def __post_init__(self) -> None:
        self._read: tuple[object, tuple[Enrolment, ...], dict[str, Enrolment]] | None = None

    def rows(self) -> tuple[Enrolment, ...]:
        """All enrolments.

        Raises:
            ConfigError: the file cannot be read; nobody is let in then.
        """
        return self._load()[1]

    def of_key(self, pem: str) -> Enrolment | None:
        """The enrolment of a public key (PEM), revoked or not."""
        return self._load()[2].get(pem)

    def sites(self) -> dict[str, Enrolment]:
        """Site -> the enrolment in force."""
        return {row.site: row for row in self.rows() if row.revoked is None}

    def enrol(self, site: str, line: str, replace: bool = False) -> Enrolment:
        """Enrol a site's public key.

        Args:
            replace: revoke the key that the site has, for a rotation of keys.

        Raises:
            ConfigError: the name or the key is bad, the key is in use, or the site has one and `replace` was not asked
                for.
        """
        key = from_line(line)
        try:
            row = Enrolment(site=site, key=to_line(key), enrolled=_now())
        except ValidationError:
            raise ConfigError(f"'{site}' is no name for a site", "use a-z, 0-9 and dashes, at most 40") from None
        with self._changing() as rows:
            if known := self.of_key(to_pem(key)):
                word = "revoked" if known.revoked else "enrolled"
                raise ConfigError(f"this key is {word} for '{known.site}'", "let the site make a new key")
            current = self.sites().get(site)
            if current is not None and not replace:
                raise ConfigError(f"site '{site}' has a key already ({current.fingerprint})", "add --replace")
            if current is not None:
                rows[rows.index(current)] = current.model_copy(update={"revoked": _now()})
            rows.append(row)
        return row

    def revoke(self, site: str) -> None:
        """Shut a site out from now on.

        Raises:
            ConfigError: no such site.
        """
        with self._changing() as rows:
            current = self.sites().get(site)
            if current is None:
                raise ConfigError(f"site '{site}' is not enrolled", "see: mtsunet-server sites")
            rows[rows.index(current)] = current.model_copy(update={"revoked": _now()})

    def give_node(self, row: Enrolment, node: int) -> None:
        """Keep the node id that Flower gave to a key."""
        with self._changing() as rows:
            index = next(i for i, known in enumerate(rows) if known.key == row.key)
            rows[index] = rows[index].model_copy(update={"node": node})

    def _load(self) -> tuple[object, tuple[Enrolment, ...], dict[str, Enrolment]]:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None, (), {}
        except OSError:
            raise self._unreadable() from None
        stamp = (state.st_mtime_ns, state.st_ino, state.st_size)
        if self._read is None or self._read[0] != stamp:
            try:
                rows = _ROWS.validate_json(self.path.read_bytes())
                keys = {row.pem: row for row in rows}
            except (OSError, ValidationError, ConfigError):
                raise self._unreadable() from None
            self._read = (stamp, rows, keys)
        return self._read

    def _unreadable(self) -> ConfigError:
        return ConfigError(f"{self.path}: cannot be read", "restore it from a backup")

    @contextmanager
    def _changing(self) -> Iterator[list[Enrolment]]:
        """The rows to change, written when the block ends; one process at a time."""
        with open_to_append(self.path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = list(self.rows())
            yield rows
            values: list[dict[str, Any]] = [row.model_dump(mode="json") for row in rows]
            write_json(self.path, values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
