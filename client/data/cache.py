"""Loaded cases on disk, compressed, so that a crop is read without reading the case.

CACHE/  cases/<key>/  image.b2nd     (4, D, H, W) float16, Blosc2: Zstandard in blocks of 16 cubed
                      regions.b2nd   (3, D, H, W) uint8
                      facts.json     grid, centre, and the sha256 of both stores
        hashes/<key>                 sha256 of a source file, found by its path, size and time of change

An entry's key is the sha256 of all source files' contents and of the settings that made it: a changed file or setting
makes a new entry. The folder may be deleted at any time.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import blosc2
import numpy as np
from pydantic import Field, ValidationError

from client.data.cases import Case
from client.data.identity import patient_hash
from client.data.loading import MARGIN, PREPROCESSING, Crop, Grid, LoadedCase, load_case, triple
from shared_model.checkpoint import open_to_append, remove_folder, write_bytes, write_json
from shared_model.errors import DataError
from shared_model.metrics import Record
from shared_model.tasks import CLASSES, MODALITIES, REGIONS

FORMAT = 1
"""Raised when the files of an entry change."""
BLOCK = 16
CHUNK = 64
_ARRAYS: tuple[Literal["image"], Literal["regions"]] = ("image", "regions")


Affine = tuple[tuple[float, float, float, float], ...]


class _Grid(Record):
    """What `Grid` holds."""

    file_affine: Affine = Field(min_length=4, max_length=4)
    file_shape: Crop
    affine: Affine = Field(min_length=4, max_length=4)
    shape: Crop
    start: Crop


class _Facts(Record):
    """facts.json"""

    centre: Crop
    tumor_voxels: int
    grid: _Grid
    owner: str
    """Hash of the patient."""
    sha256: dict[Literal["image", "regions"], str]


class CaseCache:
    """The cache of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[str] = set()

    def get(self, case: Case) -> LoadedCase:
        """`load_case(case)`, with `image` and `regions` read from disk where they are sliced.

        Raises:
            DataError: as `load_case`.
        """
        entry = self.folder / "cases" / self._key(case)
        facts = self._facts(entry)
        if facts is None:
            self._write(entry, case, load_case(case))
            facts = self._facts(entry)
            if facts is None:
                raise DataError(f"{entry}: was written and cannot be read", "check the disk, and free space on it")
        grid = facts.grid
        arrays = {name: blosc2.open(_path(entry, name), mode="r", dparams={"nthreads": 1}) for name in _ARRAYS}
        return LoadedCase(
            id=case.id,
            patient=case.patient,
            image=arrays["image"],
            present=np.array([name in case.images for name in MODALITIES]),
            regions=arrays["regions"],
            region_known=np.array([task.name in case.regions for task in REGIONS]),
            classes=np.array([case.classes[task.name] for task in CLASSES], np.int64),
            centre=facts.centre,
            tumor_voxels=facts.tumor_voxels,
            grid=Grid(
                file_affine=np.array(grid.file_affine),
                file_shape=grid.file_shape,
                affine=np.array(grid.affine),
                shape=grid.shape,
                start=grid.start,
            ),
        )

    def forget(self, patients: set[str]) -> int:
        """Delete the entries of these patients; their number."""
        owners = {patient_hash(name) for name in patients}
        gone = 0
        for entry in sorted((self.folder / "cases").glob("[0-9a-f]*")):
            facts = self._facts(entry)
            if facts is None or facts.owner in owners:
                remove_folder(entry)
                gone += 1
        return gone

    def _facts(self, entry: Path) -> _Facts | None:
        """What stands in an entry; None if there is none, or if a file of it is not what was written."""
        try:
            facts = _Facts.model_validate_json((entry / "facts.json").read_bytes())
            if entry.name not in self._checked:
                for name in _ARRAYS:
                    if content_hash(_path(entry, name)) != facts.sha256.get(name):
                        return None
                self._checked.add(entry.name)
            return facts
        except (OSError, ValidationError):
            return None

    def _write(self, entry: Path, case: Case, loaded: LoadedCase) -> None:
        """Make an entry whole under another name, then rename it; a torn or older one in its place goes."""
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
        try:
            for name in _ARRAYS:
                _store(getattr(loaded, name), _path(partial, name))
            grid = {name: np.asarray(value).tolist() for name, value in vars(loaded.grid).items()}
            facts = {
                "centre": loaded.centre,
                "tumor_voxels": loaded.tumor_voxels,
                "grid": grid,
                "owner": patient_hash(case.patient),
                "sha256": {name: content_hash(_path(partial, name)) for name in _ARRAYS},
            }
            write_json(partial / "facts.json", facts)
            with open_to_append(self.folder / "cases.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._facts(entry) is None:  # else another process was first; its entry is the same
                    self._checked.discard(entry.name)
                    remove_folder(entry)
                    partial.replace(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _key(self, case: Case) -> str:
        """sha256 over everything that an entry depends on."""
        extra = {"seg": case.mask, "brain": case.brain_mask}
        sources = {**case.images, **{name: path for name, path in extra.items() if path is not None}}
        facts = {
            "made by": [FORMAT, PREPROCESSING, MARGIN],
            "read as": [case.regions, case.mask_values, case.background],
            "sources": {name: self._content(path) for name, path in sources.items()},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _content(self, path: Path) -> str:
        """sha256 of a source file, read anew when its size or time of change is another."""
        try:
            state = path.stat()
            known = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino]
            memo = self.folder / "hashes" / hashlib.sha256(json.dumps(known).encode()).hexdigest()
            if memo.exists():
                kept = memo.read_text(encoding="ascii")
                if len(kept) == 64:
                    return kept
            found = content_hash(path)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file", "put it there") from None
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be read ({type(error).__name__})", "check its rights") from None
        write_bytes(memo, found.encode("ascii"))
        return found


def _path(entry: Path, name: str) -> str:
    return str(entry / f"{name}.b2nd")


def content_hash(path: Path | str) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store(array: np.ndarray, path: str) -> None:
    """Write an array (C, D, H, W), with all channels of a place in one block."""
    channels, *shape = array.shape
    chunks: Crop = triple([min(CHUNK, side) for side in shape])
    blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=(channels, *chunks),
        blocks=(channels, *(min(BLOCK, side) for side in chunks)),
        urlpath=path,
        mode="w",
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1},
    )
