"""A released model: four files. The signature vouches for the manifest, the manifest for the model and for its card."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from shared_model.checkpoint import MANIFEST, MODEL
from shared_model.config import ModelConfig, TaskNames, TrainingConfig
from shared_model.errors import WeightsError
from shared_model.metrics import Record
from shared_model.scores import Row
from shared_model.wire import Digest, RunId

CARD = "card.md"
SIGNATURE = "signature"
RELEASED = (MODEL, MANIFEST, CARD, SIGNATURE)
"""The files of a released model."""


class Chosen(Record):
    """Why this round."""

    rule: Literal["last", "best", "by hand"]
    """The plan's own rule, or the coordinator's hand."""
    by: Row | None = None
    """For best: the pooled result that was the highest."""


class Facts(Record):
    """What a released model is. Sites are numbers, never names."""

    release: str
    """Release of the software that made it."""
    run: RunId
    round: int = Field(ge=1)
    chosen: Chosen
    about: dict[str, Any]
    """As in the run's own manifests: plan (its digest), synthetic, model, tasks, grade_edition, crop, pretrained, and
    start: the released model it began as."""
    sites: int = Field(ge=1)
    """Sites that trained it."""
    cases: dict[str, int]
    """Group of parameters -> training cases of all sites, rounded down by each."""
    pooled: tuple[Row, ...]
    """Results over all sites, of those that disclosed them. No entry: not disclosed, which is not 0."""
    digest: Digest
    """Of the tensors."""


class Released(Facts):
    """manifest.json of a released model."""

    sha256: Digest
    """Of model.safetensors."""
    bytes: int = Field(ge=1)
    card_sha256: Digest


class About(Record):
    """What a run's manifests say of its network: enough to build it, and to give it what it was trained on."""

    plan: Digest
    synthetic: bool
    """True where every training case was generated."""
    model: ModelConfig
    tasks: TaskNames
    grade_edition: Literal["who2021", "histologic"]
    crop: tuple[int, int, int]
    pretrained: dict[str, Any] | None
    start: dict[str, Any] | None = None
    """The released model it began as."""

    @field_validator("crop")
    @classmethod
    def _as_in_training(cls, crop: tuple[int, int, int]) -> tuple[int, int, int]:
        return TrainingConfig(crop=crop).crop


def about_of(released: Released, source: str) -> About:
    """What the manifest says of the network.

    Raises:
        WeightsError: too little, or of another release; `source` names it.
    """
    with _named(f"{source}: about"):
        return About.model_validate(released.about)


def parse_released(manifest: bytes, source: str) -> Released:
    """A manifest from its bytes, whose signature is not looked at here.

    Raises:
        WeightsError: no manifest of a released model; `source` names it.
    """
    with _named(source):
        return Released.model_validate_json(manifest)


@contextmanager
def _named(source: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = f"{source}: {where + ': ' if where else ''}{first['msg']}"
        raise WeightsError(what, "use the release of this software that made the model") from None
