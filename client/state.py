"""What a site keeps between processes: its answers, each made once and sent again when asked again.

answers/RUN/0004-<base digest>/   header.json, tensors.safetensors
"""

import shutil
from pathlib import Path

from shared_model import wire
from shared_model.checkpoint import commit_folder, decode_tensors, encode_tensors, write_bytes
from shared_model.errors import WireError
from shared_model.parameters import Tensors


class Answers:
    """The kept answers of a site, below its state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "answers"

    def _place(self, work: wire.Work) -> Path:
        return self.folder / work.run / f"{work.round:04d}-{work.base}"

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

    def keep(self, work: wire.Work, update: wire.Update, tensors: Tensors) -> None:
        """Write an answer before it leaves; answers to earlier rounds of the run, now committed, go."""
        place = self._place(work)
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        write_bytes(part / "tensors.safetensors", encode_tensors(tensors))
        write_bytes(part / "header.json", wire.encode(update).encode())
        commit_folder(part, place)
        for old in place.parent.iterdir():
            if not old.name.startswith(".") and int(old.name[:4]) < work.round:
                shutil.rmtree(old)

    def forget(self, run: str) -> None:
        """The run has ended: its answers go."""
        shutil.rmtree(self.folder / run, ignore_errors=True)
