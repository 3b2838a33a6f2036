"""A new run in its folder, with the weights that it starts from: freshly drawn, a user's file, or a released model."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from server.store import RunStore
from shared_model.checkpoint import MANIFEST, read_model
from shared_model.config import Plan
from shared_model.errors import ConfigError, WeightsError
from shared_model.network import build_network
from shared_model.parameters import Tensors, digest, group_of, shared_state
from shared_model.pretrained import load_brainsegfounder
from shared_model.released import CARD, SIGNATURE, Released, parse_released
from shared_model.signing import release_is_genuine
from shared_model.tasks import TASKS

UNCHANGED = "give the folder of a release, or as `mtsunet-client models --get` wrote it, unchanged"
OTHER_MODEL = "start from another model, or from none"


@dataclass(frozen=True)
class Origin:
    """What a run starts from; freshly drawn weights where nothing is named.

    Attributes:
        pretrained: a BrainSegFounder file.
        released: the folder of a released model.
        release_key: public key that must have signed it, as hex; None where nobody's is known.

    Raises:
        ConfigError: both are named.
    """

    pretrained: Path | None = None
    released: Path | None = None
    release_key: str | None = None

    def __post_init__(self) -> None:
        if self.pretrained is not None and self.released is not None:
            raise ConfigError(
                "a run cannot start from pretrained weights and a released model", "leave one of them out"
            )


def create_run(folder: Path, run: str, plan: Plan, origin: Origin) -> RunStore:
    """Draw the initial weights from the plan's seed, or load them, and write the run.

    A released model's own pretrained weights stand in the new run's record too, since their licence goes on.

    Raises:
        WeightsError: the pretrained file or the released model cannot be used. Nothing is written.
    """
    torch.manual_seed(plan.seed)
    network = build_network(plan.model, plan.tasks)
    pretrained: dict[str, Any] | None = None
    if origin.pretrained is not None:
        pretrained = asdict(load_brainsegfounder(network, origin.pretrained, plan.model))
    initial, start = shared_state(network), None
    if origin.released is not None:
        released, tensors = read_release(origin.released, origin.release_key)
        check_fit(released, tensors, initial, plan, origin.released)
        initial, pretrained = tensors, released.about.get("pretrained")
        start = {"run": released.run, "round": released.round, "digest": released.digest}
    store = RunStore(folder)
    store.create(run, plan, initial, pretrained, start)
    return store


def read_release(folder: Path, key: str | None) -> tuple[Released, Tensors]:
    """A released model from its four files.

    Args:
        key: as `Origin.release_key`.

    Raises:
        WeightsError: a file is missing, or not what the manifest vouches for; the manifest is not what the key signed.
    """
    try:
        manifest, signature, card = ((folder / name).read_bytes() for name in (MANIFEST, SIGNATURE, CARD))
    except OSError as error:
        name = Path(str(error.filename)).name
        raise WeightsError(f"{folder}: holds no released model ({name}: {type(error).__name__})", UNCHANGED) from None
    if key is not None and not release_is_genuine(key, manifest, signature.decode(errors="replace")):
        raise WeightsError(f"{folder / SIGNATURE}: is not this coordinator's signature of {MANIFEST}", UNCHANGED)
    released = parse_released(manifest, str(folder / MANIFEST))
    if hashlib.sha256(card).hexdigest() != released.card_sha256:
        raise WeightsError(f"{folder / CARD}: is not the file its manifest vouches for", UNCHANGED)
    tensors = read_model(folder)
    if digest(tensors) != released.digest:
        raise WeightsError(f"{folder / MANIFEST}: its digest is not that of the tensors", UNCHANGED)
    return released, tensors


def check_fit(released: Released, tensors: Tensors, own: Tensors, plan: Plan, folder: Path) -> None:
    """Whether a released model is of the plan's network and means what the plan means.

    Args:
        own: tensors of the plan's network, for names, shapes and dtypes.

    Raises:
        WeightsError: heads of other tasks, another variant or edition, a tensor that differs, or a number that is not
            finite.
    """
    heads = {group_of(name) for name in tensors} & set(TASKS)
    for who, what, missing in (
        ("the model", "which the plan trains", set(plan.tasks) - heads),
        ("the plan", "which the model has", heads - set(plan.tasks)),
    ):
        if missing:
            first = next(task for task in TASKS if task in missing)
            remedy = "give the plan the tasks of the model, or start from another model"
            raise WeightsError(f"{folder}: {who} lacks '{first}', {what}", remedy)
    there = released.about.get("model")
    for field, value in plan.model.model_dump(mode="json").items():
        found = there.get(field) if isinstance(there, Mapping) else None
        if found != value:
            what = f"{folder}: model.{field} is {found} in the model and {value} in the plan"
            raise WeightsError(what, "set the plan's likewise, or start from another model")
    edition = released.about.get("grade_edition")
    if "grade" in plan.tasks and edition != plan.grade_edition:
        what = f"{folder}: grade_edition is {edition} in the model and {plan.grade_edition} in the plan"
        raise WeightsError(what, "set the plan's likewise, or start from another model")
    if strange := sorted(set(tensors) ^ set(own)):
        where = "the plan's network has no" if strange[0] in tensors else "the model lacks"
        raise WeightsError(f"{folder}: {where} tensor '{strange[0]}'", OTHER_MODEL)
    for name, value in own.items():
        found = tensors[name]
        if (found.dtype, found.shape) != (value.dtype, value.shape):
            what = f"'{name}' is {found.dtype} {found.shape}, the network's {value.dtype} {value.shape}"
            raise WeightsError(f"{folder}: {what}", OTHER_MODEL)
        if not np.isfinite(found).all():
            raise WeightsError(f"{folder}: '{name}' holds numbers that are not finite", OTHER_MODEL)
