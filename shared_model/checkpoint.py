"""Weights on disk: safetensors with a manifest, written atomically, verified on read. Nothing is unpickled.

Files hold no time and no host, so that equal weights are equal files.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save, save_file

from shared_model.errors import RunError, WeightsError
from shared_model.parameters import Tensors

MODEL = "model.safetensors"
MANIFEST = "manifest.json"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors words an error of the system."""


def write_bytes(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, whole, also after a power cut.

    Args:
        mode: of a new file, less the umask; 0o600 for a secret.
    """
    with _replacing(path) as part, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under; it gets its own at the end, when its bytes are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    yield part
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def write_json(path: Path, values: Any) -> None:
    """Write sorted, indented JSON atomically."""
    write_bytes(path, (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        OSError: no file that can be read.
        ValueError: no JSON, or JSON nested too deep.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deep") from None


@contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """Within it, a file that is missing, damaged or of another content is a RunError that names it.

    Raises:
        RunError: what was read from `path` cannot be used.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__})", remedy) from None


def open_to_append(path: Path) -> BinaryIO:
    """A file to add to, or to lock. A link in its place is an OSError: nothing of ours is written elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "ab")


def remove_folder(folder: Path) -> None:
    """Delete a folder, if there is one. Of a link or a file in its place, that goes; what a link leads to stays."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def commit_folder(part: Path, folder: Path) -> None:
    """Give a finished folder its name: from here on it counts as written. An older one of that name is replaced."""
    remove_folder(folder)
    part.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def encode_tensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """safetensors bytes; equal tensors give equal bytes."""
    return save({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def decode_tensors(data: bytes, source: str) -> Tensors:
    """The inverse of `encode_tensors`.

    Raises:
        WeightsError: bytes that are no safetensors file; `source` names it.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{source}: not a whole safetensors file ({error})", "restore it from a backup") from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The bytes of `encode_tensors` as a file, written as by `write_bytes`, but never whole in memory."""
    with _replacing(path) as part:
        save_tensors(part, tensors)


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The same without a wait for the disk: after a power cut the file may be torn.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    try:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)
    except SafetensorError as error:
        if (number := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def read_tensors(path: Path) -> Tensors:
    """What `write_tensors` wrote.

    Raises:
        WeightsError: missing, or no whole safetensors file.
    """
    try:
        return load_file(path, backend="pread")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__})", "restore it from a backup") from None


def file_sha256(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_model(folder: Path, tensors: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> None:
    """Write model.safetensors and a manifest that holds its sha256; the manifest comes last, so it vouches for both."""
    path = folder / MODEL
    write_tensors(path, tensors)
    write_json(folder / MANIFEST, {**manifest, "sha256": file_sha256(path), "bytes": path.stat().st_size})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest beside a model.

    Raises:
        WeightsError: missing or not JSON.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__})", "restore the folder") from None
    if not isinstance(manifest, dict):
        raise WeightsError(f"{path}: holds no mapping", "restore the folder")
    return manifest


def read_model(folder: Path) -> Tensors:
    """The tensors of a model folder, after its sha256 was checked against the manifest.

    Raises:
        WeightsError: missing, truncated, or not the bytes that the manifest vouches for.
    """
    manifest = read_manifest(folder)
    path = folder / MODEL
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__})", "restore the folder") from None
    if found != manifest.get("sha256"):
        raise WeightsError(f"{path}: is not the file its manifest vouches for", "restore the folder from a backup")
    return read_tensors(path)
