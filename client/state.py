"""What a site keeps between processes: the runs that it opened, its answers, made once and sent again when asked again,
and AdamW's moments.

runs/RUN.json                   the plan, and the case counts that the site opened the run with
answers/RUN/0004-<base digest>/   header.json, tensors.safetensors: what was sent
                                  moments.safetensors: for the next round; never sent
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared_model import wire
from shared_model.checkpoint import commit_folder, decode_tensors, encode_tensors, write_bytes, write_json
from shared_model.config import Plan, parse_config
from shared_model.errors import RefusedError, WireError
from shared_model.parameters import Tensors


class Runs:
    """The runs that a site opened, below its state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs"

    def keep(self, run: str, plan: Plan, cases: Mapping[str, int]) -> None:
        """Keep what a run was opened with; `cases` of each group of parameters."""
        write_json(self.folder / f"{run}.json", {"plan": plan.model_dump(mode="json"), "cases": dict(cases)})

    def _values(self, run: str) -> dict[str, Any] | None:
        try:
            values = json.loads((self.folder / f"{run}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) and {"plan", "cases"} <= set(values) else None

    def plan(self, run: str) -> Plan:
        """The plan that a run was opened with.

        Raises:
            RefusedError: the run was never opened here.
        """
        if (values := self._values(run)) is None:
            raise RefusedError("the run was not opened at this site", "open the run again")
        return parse_config(Plan, values["plan"], "kept plan")

    def cases(self, run: str) -> dict[str, int]:
        """The case counts that a run was opened with; empty until it is."""
        return dict((self._values(run) or {"cases": {}})["cases"])


class Answers:
    """The kept answers of a site, below its state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "answers"

    def _place(self, work: wire.Work) -> Path:
        return self.folder / work.run / f"{work.round:04d}-{work.base}"

    def _earlier(self, work: wire.Work) -> list[Path]:
        """Answers to earlier rounds of the run, oldest first."""
        folder = self.folder / work.run
        kept = sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
        return [path for path in kept if int(path.name[:4]) < work.round]

    def find(self, work: wire.Work) -> tuple[wire.Update, Tensors] | None:
        """The answer to this work, if it was made before."""
        place = self._place(work)
        if not place.exists():
            return None
        header = wire.decode((place / "header.json").read_text())
        if not isinstance(header, wire.Update):
            raise WireError(f"{place}: holds no update", "remove this folder")
        file = place / "tensors.safetensors"
        return header, decode_tensors(file.read_bytes(), str(file))

    def moments(self, work: wire.Work) -> Tensors:
        """AdamW's moments after the last earlier round that the site trained; empty if there was none."""
        for place in reversed(self._earlier(work)):
            file = place / "moments.safetensors"
            return decode_tensors(file.read_bytes(), str(file))
        return {}

    def keep(self, work: wire.Work, update: wire.Update, tensors: Tensors, moments: Tensors) -> None:
        """Write an answer, whole, before it leaves; those to earlier rounds, now committed, go."""
        place = self._place(work)
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        write_bytes(part / "tensors.safetensors", encode_tensors(tensors))
        write_bytes(part / "moments.safetensors", encode_tensors(moments))
        write_bytes(part / "header.json", wire.encode(update).encode())
        commit_folder(part, place)
        for old in self._earlier(work):
            shutil.rmtree(old)

    def forget(self, run: str) -> None:
        """The run has ended: its answers go."""
        shutil.rmtree(self.folder / run, ignore_errors=True)
