"""Training and held-out patients: stratified by label, seeded, and kept once drawn."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from client.data.cases import Case
from client.data.identity import patient_hash
from shared_model.checkpoint import write_json
from shared_model.errors import DataError
from shared_model.metrics import Record

Split = tuple[list[Case], list[Case]]
"""(training, held-out) cases."""


def split(cases: Sequence[Case], share: float, seed: int, kept: dict[str, bool] | None = None) -> Split:
    """Hold out a share of the patients, the same share of each combination of labels as far as whole patients allow.

    Patients are put in the order of their labels and, within, of a hash of seed and name; each (1/share)-th is held out
    (systematic sampling). All cases of a patient fall on one side.

    Args:
        kept: patient -> whether he is held out, from an earlier draw; added to.
    """
    kept = {} if kept is None else kept
    strata: dict[str, tuple[int, ...]] = {}
    for case in cases:
        strata.setdefault(case.patient, tuple(case.classes.values()))

    def place(patient: str) -> tuple[tuple[int, ...], str]:
        return strata[patient], hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()

    known = sum(patient in kept for patient in strata)
    new = sorted((patient for patient in strata if patient not in kept), key=place)
    for index, patient in enumerate(new, start=known):
        kept[patient] = math.floor((index + 1) * share + 0.5) > math.floor(index * share + 0.5)
    return [c for c in cases if not kept[c.patient]], [c for c in cases if kept[c.patient]]


class _Drawn(Record):
    """splits/SEED-SHARE.json"""

    held_out: dict[str, bool]


def read_split(path: Path) -> dict[str, bool]:
    """Hash of each patient -> whether he is held out.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return _Drawn.model_validate_json(path.read_bytes()).held_out
    except (OSError, ValidationError):
        raise DataError(f"{path}: cannot be read", "restore it, or delete it to draw anew") from None


def alone(case: Case, share: float, seed: int) -> bool:
    """Whether a patient is held out, by his own hash and whoever the others are: one more patient moves nobody else,
    as private training needs. The share is met by chance alone.
    """
    drawn = hashlib.sha256(f"{seed}/{case.patient}".encode()).digest()
    return int.from_bytes(drawn[:8]) < share * 2**64


def stored_split(folder: Path, cases: Sequence[Case], share: float, seed: int, by_hash: bool = False) -> Split:
    """`split`, where a patient stays on the side that he was drawn to, also when patients come and go.

    Args:
        folder: of the site's state; the draw lies in splits/, with a hash for each patient.
        by_hash: draw each patient `alone`.

    Raises:
        DataError: the kept draw cannot be read.
    """
    path = folder / "splits" / f"{seed}-{share:g}{'-alone' if by_hash else ''}.json"
    hashes = {case.patient: patient_hash(case.patient) for case in cases}
    stored = read_split(path) if path.exists() else {}
    if by_hash:
        kept = {case.patient: alone(case, share, seed) for case in cases}
    else:
        kept = {patient: stored[name] for patient, name in hashes.items() if name in stored}
    drawn = split(cases, share, seed, kept)
    now = {**stored, **{hashes[patient]: side for patient, side in kept.items()}}
    if now != stored:
        write_json(path, {"held_out": now})
    return drawn
