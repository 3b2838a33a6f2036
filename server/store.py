"""A run on disk: its plan, one folder for each committed round, and the spool of the round in progress.

    run.json               id and plan
    terms.json             what each site opened the run with
    rounds/0003/           model.safetensors, manifest.json (what the model is), record.json (how the round went);
                           change.safetensors: what travels to sites that hold the model before, by the plan's codec;
                           of the last round also memory.safetensors, where the rule remembers (memory.py)
    spool/0004/SITE/       header.json, tensors.safetensors (as they travelled), about.json: an admitted reply
    spool/0004/.sites.json whose replies the round is made of; once it is there, no other site is asked
    evaluated.json         the sites' evaluation of the final model; its presence says that the run is closed

A round counts once its folder has its name, and so does a spooled reply: both survive a kill at any moment.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors import safe_open

from server.memory import MEMORY, RESTORE, Memory, read_memory, write_memory
from shared_model import wire
from shared_model.checkpoint import (
    MODEL,
    commit_folder,
    read_json,
    read_manifest,
    read_model,
    read_tensors,
    readable,
    remove_folder,
    write_bytes,
    write_json,
    write_model,
    write_tensors,
)
from shared_model.compression import Codec
from shared_model.config import Plan, parse_config
from shared_model.errors import RunError, WireError
from shared_model.parameters import Tensors, digest

CHANGE = "change.safetensors"
ASK_AGAIN = "remove this folder, and resume the run: the site sends its answer again"
SITES = ".sites.json"
_REFUSED = TypeAdapter(list[dict[str, str]])
_NAMES = TypeAdapter(list[str])


@dataclass(frozen=True)
class SpooledReply:
    """An admitted reply on disk; tensors are read one at a time, as they travelled."""

    site: str
    update: wire.Update
    file: Path
    norm: float
    """||w - base|| over its tensors."""

    def names(self) -> list[str]:
        """Of its tensors, sorted; a damaged file is a RunError, here and below."""
        with readable(self.file.parent, ASK_AGAIN), safe_open(self.file, framework="numpy") as tensors:
            return sorted(tensors.keys())

    def tensor(self, name: str, codec: Codec, base: Tensors) -> np.ndarray:
        """One of them.

        Args:
            codec: by which it travelled.
            base: the round's tensors before.
        """
        with readable(self.file.parent, ASK_AGAIN), safe_open(self.file, framework="numpy") as tensors:
            sent: np.ndarray = tensors.get_tensor(name)
        try:
            return codec.decode_named(name, sent, base)
        except WireError as error:
            raise RunError(f"{self.file.parent}: {error.what}", ASK_AGAIN) from None


class RunStore:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(
        self,
        run: str,
        plan: Plan,
        initial: Tensors,
        pretrained: dict[str, Any] | None,
        start: dict[str, Any] | None = None,
    ) -> None:
        """Write a new run with its initial weights as round 0.

        Args:
            pretrained: what file they were loaded from, if any.
            start: run, round and digest of the released model that they are, if any.
        """
        about = {
            "plan": plan.digest(),
            "synthetic": plan.synthetic,
            "model": plan.model.model_dump(mode="json"),
            "tasks": list(plan.tasks),
            "grade_edition": plan.grade_edition,
            "crop": list(plan.training.crop),
            "pretrained": pretrained,
            "start": start,
        }
        self._commit(0, initial, {"about": about, "sites": [], "digest": digest(initial)}, {})
        write_json(self.folder / "run.json", {"run": run, "plan": plan.model_dump(mode="json")})

    @property
    def created(self) -> float:
        """When the run was made, seconds since the epoch."""
        return (self.folder / "run.json").stat().st_mtime

    @property
    def exists(self) -> bool:
        return (self.folder / "run.json").exists()

    def read(self) -> tuple[str, Plan]:
        """The run's id and plan.

        Raises:
            RunError: no run here, or its file is damaged.
        """
        path = self.folder / "run.json"
        try:
            values = read_json(path)
            return str(values["run"]), parse_config(Plan, values["plan"], str(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: no run here ({type(error).__name__})", "give the folder of a run") from None

    def _round(self, index: int) -> Path:
        return self.folder / "rounds" / f"{index:04d}"

    def last_round(self) -> int:
        """Index of the last committed round; 0 is the initial weights."""
        return max(int(path.name) for path in (self.folder / "rounds").iterdir() if path.name.isdigit())

    def model(self, index: int) -> Tensors:
        return read_model(self._round(index))

    def memory(self, index: int) -> Memory:
        """What the aggregation rule remembers after a round, the last one; a damaged file is a WeightsError."""
        return read_memory(self._round(index), self.manifest(index).get("memory"))

    def model_folder(self, index: int) -> Path:
        return self._round(index)

    def manifest(self, index: int) -> dict[str, Any]:
        return read_manifest(self._round(index))

    def record(self, index: int) -> dict[str, Any]:
        """How a committed round went.

        Raises:
            RunError: the file is damaged.
        """
        path = self._round(index) / "record.json"
        with readable(path, RESTORE):
            return dict(read_json(path))

    def has_weights(self, index: int) -> bool:
        """Whether a committed round's weights are still kept."""
        return (self._round(index) / MODEL).exists()

    def change(self, index: int) -> Tensors | None:
        """What a committed round's model is told by to sites that hold the one before; None if there is no such.

        Raises:
            WeightsError: the file is damaged.
        """
        path = self._round(index) / CHANGE
        return read_tensors(path) if path.exists() else None

    def drop_weights(self, index: int) -> None:
        """Let a round's weights go; its manifest and record stay."""
        for name in (MODEL, CHANGE):
            (self._round(index) / name).unlink(missing_ok=True)

    def _commit(
        self,
        index: int,
        tensors: Tensors,
        manifest: dict[str, Any],
        record: dict[str, Any],
        memory: Memory | None = None,
        change: Tensors | None = None,
    ) -> None:
        part = self.folder / "rounds" / f".{index:04d}.part"
        remove_folder(part)
        if memory:
            manifest = {**manifest, "memory": write_memory(part, memory)}
        with ThreadPoolExecutor(1) as beside:
            told = beside.submit(write_tensors, part / CHANGE, change) if change is not None else None
            write_model(part, tensors, {**manifest, "round": index})
            write_json(part / "record.json", record)
            if told:
                told.result()
        commit_folder(part, self._round(index))

    def commit(
        self,
        index: int,
        tensors: Tensors,
        sha: str,
        sites: list[str],
        record: dict[str, Any],
        memory: Memory | None = None,
        change: Tensors | None = None,
    ) -> None:
        """Make round `index`, made of the replies of `sites`, the last one; let its spool and earlier memories go.

        Args:
            sha: digest of the tensors.
            memory, change: see the methods of these names.
        """
        manifest = {"about": self.manifest(0)["about"], "sites": sites, "digest": sha}
        self._commit(index, tensors, manifest, record, memory, change)
        for earlier in range(index):
            (self._round(earlier) / MEMORY).unlink(missing_ok=True)
        remove_folder(self._spool(index))

    def _spool(self, index: int) -> Path:
        return self.folder / "spool" / f"{index:04d}"

    def spool(self, update: wire.Update, tensors: Mapping[str, np.ndarray], norm: float) -> None:
        """Keep an admitted reply, its tensors as they travelled; its site need not be asked again for this round."""
        part = self._spool(update.round) / f".{update.site}.part"
        remove_folder(part)
        write_tensors(part / "tensors.safetensors", tensors)
        write_bytes(part / "header.json", wire.encode(update).encode())
        write_json(part / "about.json", {"norm": norm})
        commit_folder(part, self._spool(update.round) / update.site)

    def decide(self, index: int, sites: list[str]) -> None:
        """Let a round be made of the replies of these sites, all of which are spooled: its model may be sent before it
        is committed, and a run that goes on after a kill makes the same one again.
        """
        write_json(self._spool(index) / SITES, sites)

    def decided(self, index: int) -> set[str] | None:
        """The sites of `decide`; None while others may still answer."""
        path = self._spool(index) / SITES
        if not path.exists():
            return None
        with readable(path, "remove this file, and resume the run"):
            return set(_NAMES.validate_python(read_json(path)))

    def spooled(self, index: int) -> list[SpooledReply]:
        """The admitted replies of a round, in the order of the sites' names.

        Raises:
            RunError, WireError: one of them is damaged.
        """
        folder = self._spool(index)
        replies = []
        for path in sorted(folder.iterdir()) if folder.exists() else []:
            if path.name.startswith("."):
                continue
            with readable(path, ASK_AGAIN):
                header = wire.decode((path / "header.json").read_bytes().decode())
                norm = float(read_json(path / "about.json")["norm"])
            if not isinstance(header, wire.Update) or (header.round, header.site) != (index, path.name):
                raise RunError(f"{path}: is not this site's update to round {index}", ASK_AGAIN)
            replies.append(SpooledReply(path.name, header, path / "tensors.safetensors", norm))
        return replies

    def write_terms(self, terms: list[wire.Terms], refused: list[dict[str, str]]) -> None:
        """Keep what the sites opened the run with, those before among them, and who was refused now."""
        known = {row.site: row for row in (self.terms()[0] if (self.folder / "terms.json").exists() else [])}
        known |= {row.site: row for row in terms}
        rows = [known[site].model_dump(mode="json") for site in sorted(known)]
        write_json(self.folder / "terms.json", {"terms": rows, "refused": refused})

    def terms(self) -> tuple[list[wire.Terms], list[dict[str, str]]]:
        """What each site opened the run with, and who was refused.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.folder / "terms.json"
        with readable(path, RESTORE):
            values = read_json(path)
            refused = _REFUSED.validate_python(values["refused"])
            return [wire.Terms.model_validate(row) for row in values["terms"]], refused

    def write_evaluated(self, evaluated: list[wire.Evaluated]) -> None:
        """Keep the sites' evaluation of the final model: the run is closed."""
        rows = sorted((row.model_dump(mode="json") for row in evaluated), key=lambda row: str(row["site"]))
        write_json(self.folder / "evaluated.json", rows)

    def evaluated(self) -> list[wire.Evaluated]:
        """The sites' evaluation of the final model; empty until the run is closed.

        Raises:
            RunError: the file is damaged.
        """
        if not self.closed:
            return []
        path = self.folder / "evaluated.json"
        with readable(path, RESTORE):
            return [wire.Evaluated.model_validate(row) for row in read_json(path)]

    @property
    def closed(self) -> bool:
        return (self.folder / "evaluated.json").exists()
