"""summary.json: what a finished run was and what it found, in a form that other programs can read (docs/summary.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from shared_model.checkpoint import write_bytes
from shared_model.errors import ConfigError
from shared_model.guarantee import Guarantee
from shared_model.metrics import Record
from shared_model.scores import Comparison, Row, SiteScores

FEDERATED = "federated"
CENTRALISED = "centralised"
AVERAGED_LOCAL = "averaged local"


def local(site: str) -> str:
    """Name of the way of training in which `site` trains alone."""
    return f"local {site}"


class Privacy(Guarantee):
    """How a site trained privately, and what its rounds cost together."""

    steps: int = Field(ge=0)
    """Private steps by the site's own ledger, those of lost answers included."""
    epsilon: float = Field(ge=0)
    """Of these, at `delta`."""


class Site(Record):
    """One site as the coordinator knows it."""

    name: str
    tasks: tuple[str, ...]
    """Declared tasks."""
    training: dict[str, int]
    """Training cases with a label, by task, rounded down to a multiple of `minimum_cell`. No entry: suppressed."""
    held_out: dict[str, int]
    """Evaluation cases with a label, by task, exact. No entry: suppressed or none."""
    minimum_cell: int = Field(ge=1)
    privacy: Privacy | None = None
    """None: it trained without differential privacy."""
    notes: tuple[str, ...] = ()


class Missing(Record):
    """A site that has no part in a round, or a suspicious one, and why."""

    site: str
    reason: str


class Round(Record):
    """One round: who was there, what it took, and how the committed model does on the sites' held-out cases."""

    index: int = Field(ge=1)
    present: tuple[str, ...]
    """Sites whose reply was admitted."""
    refusals: tuple[Missing, ...] = ()
    """Sites that declined, or were turned away."""
    absent: tuple[Missing, ...] = ()
    """Sites that were not connected, or did not answer by the deadline."""
    flagged: tuple[Missing, ...] = ()
    """Sites whose update counts and is suspicious."""
    seconds: float = Field(ge=0)
    bytes_down: int = Field(ge=0)
    """From the coordinator to all sites."""
    bytes_up: int = Field(ge=0)
    error_up: float | None = Field(default=None, ge=0)
    """Largest part of a site's update, as an L2 norm, that compression lost; None where the plan has none."""
    error_down: float | None = Field(default=None, ge=0)
    """The same of the round's change of the model."""
    sites: dict[str, tuple[Row, ...]] = Field(default_factory=dict)
    """Evaluation by site; a site or a task without an entry is suppressed or unknown, never zero."""
    pooled: tuple[Row, ...] = ()
    """The same over all sites: Dice over all cases, AUC over pairs within a site."""


def evaluated(scores: Mapping[str, SiteScores]) -> dict[str, Any]:
    """The fields `sites` and `pooled` of a Round, from what each site sent."""
    total = SiteScores()
    for site in sorted(scores):
        total = total + scores[site]
    return {"sites": {site: scores[site].rows() for site in sorted(scores)}, "pooled": total.rows()}


class Way(Record):
    """One way of training, measured on the common test set."""

    name: str
    """federated, centralised, averaged local, or local <site>."""
    rows: tuple[Row, ...]
    seconds: float | None = Field(default=None, ge=0)
    """Of training."""
    bytes: int | None = Field(default=None, ge=0)
    """Sent between coordinator and sites, both directions; None where the way has no such traffic."""


class Totals(Record):
    """What the whole run took, all ways of training and the tests included."""

    bytes_down: int = Field(ge=0)
    bytes_up: int = Field(ge=0)
    seconds: float = Field(ge=0)


class Summary(Record):
    """A finished run."""

    version: Literal["1"] = "1"
    name: str
    seed: int
    synthetic: bool
    """True: every case was generated, and no number here says anything about patients."""
    plan: dict[str, Any]
    plan_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    sites: tuple[Site, ...]
    rounds: tuple[Round, ...]
    test_cases: int = Field(ge=0)
    """Cases of the common test set."""
    ways: tuple[Way, ...]
    comparisons: tuple[Comparison, ...] = ()
    totals: Totals
    caveats: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for what, names in (
            ("sites", [site.name for site in self.sites]),
            ("ways", [way.name for way in self.ways]),
            ("rounds", [one.index for one in self.rounds]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: one stands twice")
        return self

    def rows(self, way: str) -> Sequence[Row]:
        """The table of one way of training; empty where the run had it not."""
        return next((one.rows for one in self.ways if one.name == way), ())

    def locals(self) -> list[Way]:
        """The sites trained alone."""
        return [way for way in self.ways if way.name.startswith("local ")]


def write_summary(summary: Summary, path: Path) -> None:
    """Write the file whole or not at all."""
    write_bytes(path, summary.model_dump_json(indent=1).encode())


def read_summary(path: Path) -> Summary:
    """Read and check a summary.

    Raises:
        ConfigError: no such file, no JSON, an unknown field, another version.
    """
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "check the path") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}", "give a summary of this release") from None
