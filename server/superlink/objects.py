"""Flower's objects, the parts of messages that are on their way: what is large lies in files beside the database.

A blob would go through SQLite in several copies, and reach the disk twice.
"""

from pathlib import Path
from typing import Any

from flwr.supercore.inflatable.inflatable_object import get_object_id, is_valid_sha256_hash
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import StoredObject
from sqlalchemy import func, select, update

LARGE = 1 << 16
"""Bytes from which an object has a file of its own."""
_MARK = b"\0file "
"""Stands in the database with the file's size; an object's own bytes begin with the name of its type."""
_INCOMING = "incoming"


class FileObjectStore(SqlObjectStore):
    """Flower's SQL store, whose rows say that an object is there, and whose files hold the bytes of large ones.

    A file is written, and goes, under the lock of the transaction that says so: a row without its file is one whose
    transaction was cut off, and a file without a row is of no use to anybody. Nothing is synced. What a power cut
    tears belongs to runs whose process it ended; `initialize` forgets it, so that the same bytes can be sent again.
    """

    def __init__(self, database: str) -> None:
        """Keep rows in a database, and files in a folder beside it, `parts`, which is made."""
        super().__init__(database, verify=False)
        self.folder = Path(database).with_name("parts")

    def initialize(self, *given: Any, **named: Any) -> list[str]:
        """Open the database, and bring rows and files together."""
        tables: list[str] = super().initialize(*given, **named)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        files = {(path.name, _mark(path.stat().st_size)) for path in self.folder.iterdir()}
        marked = func.substr(StoredObject.content, 1, len(_MARK)) == _MARK
        with self._mutation_session() as session:
            rows = {(row.object_id, row.content) for row in session.scalars(select(StoredObject).where(marked))}
            for name, _ in rows - files:
                row = update(StoredObject).where(StoredObject.object_id == name)
                session.execute(row.values(content=b"", is_available=0))
            for name, _ in files - rows:
                (self.folder / name).unlink()
        return tables

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object's bytes.

        Raises:
            ValueError: they are not the ones that the id is the hash of, or are no object's.
            NoObjectInStoreError: nobody announced it.
            OSError: the disk takes no more.
        """
        if object_id != get_object_id(object_content):
            raise ValueError(f"Object ID {object_id} does not match content hash")
        validate_object_content(object_content)
        if len(object_content) < LARGE:
            return super().put(object_id, object_content)
        with self.session():
            super().put(object_id, _mark(len(object_content)))
            incoming = self.folder / _INCOMING  # one at a time: the transaction holds the database's lock
            incoming.write_bytes(object_content)
            incoming.replace(self.folder / object_id)

    def get(self, object_id: str) -> bytes | None:
        """An object's bytes; none where it is announced only, and None where it is not known, or gone."""
        content: bytes | None = super().get(object_id)
        if content is None or not content.startswith(_MARK):
            return content
        try:
            return (self.folder / object_id).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, object_id: str) -> None:
        """Let go of an object and what only it refers to, where nothing refers to it."""
        with self._mutation_session():
            super().delete(object_id)  # which asks this for what it refers to
            if is_valid_sha256_hash(object_id) and object_id not in self:
                (self.folder / object_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Let go of all objects."""
        with self._mutation_session():
            super().clear()
            for path in self.folder.iterdir():
                path.unlink()


def _mark(size: int) -> bytes:
    return _MARK + str(size).encode()
