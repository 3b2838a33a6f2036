"""What a site keeps between processes: the runs that it opened, its answers, made once and sent again when asked again,
and AdamW's moments.

runs/RUN.json                   the plan, and the case counts that the site opened the run with
answers/RUN/0004-<base digest>/   header.json, tensors.safetensors: what was sent
                                  moments.safetensors: for the next round; never sent
                                  base.safetensors: what was answered to, where the next model comes as a change
"""

import re
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

from pydantic import ValidationError

from shared_model import wire
from shared_model.checkpoint import (
    commit_folder,
    read_tensors,
    remove_folder,
    save_tensors,
    write_bytes,
    write_json,
    write_tensors,
)
from shared_model.config import Plan
from shared_model.errors import DataError, RefusedError, WireError
from shared_model.metrics import Record
from shared_model.parameters import Tensors
from shared_model.process import beside


class _Opened(Record):
    """runs/RUN.json"""

    plan: Plan
    cases: dict[str, int]


class Runs:
    """The runs that a site opened, below its state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs"

    def keep(self, run: str, plan: Plan, cases: Mapping[str, int]) -> None:
        """Keep what a run was opened with; `cases` of each group of parameters."""
        write_json(self.folder / f"{run}.json", {"plan": plan.model_dump(mode="json"), "cases": dict(cases)})

    def _opened(self, run: str) -> _Opened | None:
        """None if the run was not opened, or if what was kept of it cannot be read: the coordinator opens it again."""
        try:
            return _Opened.model_validate_json((self.folder / f"{run}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def plan(self, run: str) -> Plan:
        """The plan that a run was opened with.

        Raises:
            RefusedError: the run was never opened here.
        """
        if (opened := self._opened(run)) is None:
            raise RefusedError("the run was not opened at this site", "open the run again")
        return opened.plan

    def cases(self, run: str) -> dict[str, int]:
        """The case counts that a run was opened with; empty until it is."""
        opened = self._opened(run)
        return opened.cases if opened else {}


class Answers:
    """The kept answers of a site, below its state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "answers"

    def _of_run(self, run: str) -> Path:
        """The folder of a run's answers.

        Raises:
            DataError: a link has its name; answers are written and deleted there, which must not happen elsewhere.
        """
        folder = self.folder / run
        if folder.is_symlink():
            raise DataError(f"{folder}: is a link", "remove it, and see who put it there")
        return folder

    def _place(self, work: wire.Work) -> Path:
        return self._of_run(work.run) / f"{work.round:04d}-{work.base}"

    def _kept(self, run: str) -> list[tuple[int, Path]]:
        """Round and folder of each answer of a run, oldest first."""
        found = [(re.fullmatch(r"(\d{4,5})-[0-9a-f]{64}", path.name), path) for path in self._of_run(run).glob("*")]
        return sorted((int(match[1]), path) for match, path in found if match)

    def rounds(self, run: str) -> dict[int, Path]:
        """The rounds of a run that are answered, oldest first, each with its folder."""
        return dict(self._kept(run))

    def _earlier(self, work: wire.Work) -> list[Path]:
        """Answers to earlier rounds of the run, oldest first."""
        return [path for index, path in self._kept(work.run) if index < work.round]

    def find(self, work: wire.Work) -> tuple[wire.Update, Tensors] | None:
        """The answer to this work, if it was made before.

        Raises:
            WireError, WeightsError, DataError: what was kept is damaged.
        """
        place = self._place(work)
        if not place.exists():
            return None
        header = wire.decode(_read(place / "header.json").decode(errors="replace"))
        if not isinstance(header, wire.Update):
            raise WireError(f"{place}: holds no update", "remove this folder")
        return header, read_tensors(place / "tensors.safetensors")

    def moments(self, work: wire.Work) -> Tensors:
        """AdamW's moments after the last earlier round that the site trained; empty if there was none."""
        for place in reversed(self._earlier(work)):
            return read_tensors(place / "moments.safetensors")
        return {}

    def base(self, run: str, digest: str) -> Tensors | None:
        """The weights of this digest, if a kept answer was to them and they are kept with it."""
        for _, place in self._kept(run):
            file = place / "base.safetensors"
            if place.name.endswith(f"-{digest}") and file.exists():
                return read_tensors(file)
        return None

    def hold(self, run: str, base: Tensors) -> "Future[Path]":
        """Write weights beside what else the process does, for `keep` to put with the answer to them."""
        file = self._of_run(run) / ".base.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        return beside(_save, file, base)

    def keep(
        self,
        work: wire.Work,
        update: wire.Update,
        tensors: Tensors,
        moments: Tensors,
        held: "Future[Path] | None" = None,
    ) -> None:
        """Write an answer, whole, before it leaves, and with it the weights that are held for it. Those to earlier
        rounds, now committed, go; so do those to this round on other weights, which a coordinator that went back to an
        older backup sent before.
        """
        place = self._place(work)
        part = place.with_name(f".{place.name}.part")
        remove_folder(part)
        write_tensors(part / "tensors.safetensors", tensors)
        write_tensors(part / "moments.safetensors", moments)
        write_bytes(part / "header.json", wire.encode(update).encode())
        if held is not None:
            held.result().rename(part / "base.safetensors")
        commit_folder(part, place)
        for index, old in self._kept(work.run):
            if index <= work.round and old != place:
                remove_folder(old)

    def forget(self, run: str) -> None:
        """The run has ended: its answers go."""
        remove_folder(self.folder / run)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({type(error).__name__})", "remove its folder") from None


def _save(file: Path, tensors: Tensors) -> Path:
    """Not waited for until the disk has it: after a power cut a site says that it lacks the weights."""
    file.unlink(missing_ok=True)  # it may be a link
    save_tensors(file, tensors)
    return file
