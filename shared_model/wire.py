"""The messages between coordinator and site: a strict header and named tensors. No type names, no pickle.

A run opens with Opening -> Terms, each round is Work -> Update, and Closing -> Evaluated ends it. A site that will not
do what it is asked answers Refusal. `encode` gives a header as JSON text, the tensors travel beside it; `decode`
accepts nothing that the schema does not name.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from shared_model.config import Config, Name, Plan
from shared_model.errors import WireError
from shared_model.guarantee import Guarantee, Steps
from shared_model.parameters import Tensors
from shared_model.scores import SiteScores

RELEASE = "0.1.0"
HEADER_LIMIT = 1 << 20
"""Largest header in bytes."""


def _one_stratum(scores: SiteScores) -> SiteScores:
    if any(len(count.strata) != 1 for count in scores.auc.values()):
        raise ValueError("a site's AUC has one stratum, its own")
    return scores


OwnScores = Annotated[SiteScores, AfterValidator(_one_stratum)]
"""The scores of one site."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Release = Annotated[str, Field(max_length=40)]
Round = Annotated[int, Field(ge=0, le=10_000)]
AuditHead = Annotated[str, Field(pattern=r"^[0-9]{1,12}:[0-9a-f]{64}$")]
"""Number of lines of a site's audit log, and the hash of the last one."""
LedgerHead = AuditHead
"""The same of its privacy ledger."""


class Opening(Config):
    """Coordinator to site, once per run: the whole plan."""

    kind: Literal["opening"] = "opening"
    run: RunId
    release: Release
    plan: Plan
    audit: AuditHead | None = None
    """The head of the site's audit log as the coordinator last heard it: a log without that line was cut."""
    ledger: LedgerHead | None = None
    """The same of its ledger: one without that row is missing, edited or an older copy."""


class Terms(Config):
    """Site to coordinator: what it will train and on how many cases.

    `cases` maps each group of parameters.GROUPS that the site trains to its labelled cases, rounded down to a multiple
    of the site's minimum cell; where it trains privately, to its declared patients.
    """

    kind: Literal["terms"] = "terms"
    run: RunId
    site: Name
    release: Release
    tasks: tuple[str, ...]
    cases: dict[str, int]
    minimum_cell: Annotated[int, Field(ge=1)]
    privacy: Guarantee | None = None
    """With what it trains privately; None: it does not."""
    audit: AuditHead
    ledger: LedgerHead | None = None


class Work(Config):
    """Coordinator to site: train `round` from the weights beside this header."""

    kind: Literal["work"] = "work"
    run: RunId
    round: Round
    plan: Digest
    base: Digest
    """Digest of the weights: the answer is to these and no others."""
    settings: dict[str, float]
    """What the aggregation rule asks of local training, e.g. FedProx' mu."""
    change_of: Digest | None = None
    """Digest of weights that the site answered to, if the tensors are the change since, by the plan's codec."""


class Update(Config):
    """Site to coordinator: the trained tensors, and how the base model did on the site's held-out cases."""

    kind: Literal["update"] = "update"
    run: RunId
    round: Round
    base: Digest
    site: Name
    cases: dict[str, int]
    evaluation: OwnScores
    seconds: float | None
    """Of the work; not told where training is private, since it tells how many patients were drawn."""
    error: Annotated[float, Field(ge=0)] | None = None
    """Relative error that compression made in this update; None where the plan has none."""
    spent: Annotated[tuple[Steps, ...], Field(max_length=100)] = ()
    """Private steps of this run so far by the site's ledger, lost ones included; none where training is not private."""
    audit: AuditHead
    ledger: LedgerHead | None = None


class Closing(Config):
    """Coordinator to site: the run has ended with the weights beside this header; kept answers may go."""

    kind: Literal["closing"] = "closing"
    run: RunId
    round: Round
    base: Digest
    change_of: Digest | None = None
    """As in Work."""


class Evaluated(Config):
    """Site to coordinator: the final model on the site's held-out cases."""

    kind: Literal["evaluated"] = "evaluated"
    run: RunId
    site: Name
    evaluation: OwnScores
    audit: AuditHead


class Refusal(Config):
    """Site to coordinator: it will not, and why, in one line without file names."""

    kind: Literal["refusal"] = "refusal"
    run: RunId
    site: Name
    reason: Annotated[str, Field(max_length=400)]
    whole: bool = False
    """It lacks the weights that a change was told against, and will do it when they come whole."""


Header = Opening | Terms | Work | Update | Closing | Evaluated | Refusal
_HEADERS: TypeAdapter[Header] = TypeAdapter(Annotated[Header, Field(discriminator="kind")])


def encode(header: Header) -> str:
    """JSON text of a header."""
    return header.canonical()


def decode(text: object) -> Header:
    """The header that `encode` made.

    Raises:
        WireError: not JSON, too long, an unknown kind or field, a value out of range.
    """
    if not isinstance(text, str) or len(text) > HEADER_LIMIT:
        raise WireError("message header is no text of at most 1 MiB", "check the sender's release")
    try:
        return _HEADERS.validate_python(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"message header: {where}: {first['msg']}", "check the sender's release") from None
    except (ValueError, RecursionError):
        raise WireError("message header is no JSON", "check the sender's release") from None


def check_tensors(tensors: Mapping[str, Any], expected: Mapping[str, np.ndarray]) -> Tensors:
    """The tensors, once they are exactly the expected names, shapes and float32 and hold no NaN or infinity.

    Raises:
        WireError: naming the first tensor that is not.
    """
    if strange := sorted(set(tensors) ^ set(expected)):
        fault = "is missing" if strange[0] in expected else "was not asked for"
        raise WireError(f"tensor '{strange[0]}' {fault}", "send exactly the tensors of the declared tasks")
    for name, want in expected.items():
        have = tensors[name]
        if have.dtype != np.float32:
            raise WireError(f"tensor '{name}' has dtype {have.dtype}", "send float32")
        if have.shape != want.shape:
            raise WireError(f"tensor '{name}' has shape {have.shape}, not {want.shape}", "send the model's shapes")
        if not np.isfinite(have).all():
            raise WireError(f"tensor '{name}' holds NaN or infinity", "lower the learning rate")
    return {name: tensors[name] for name in sorted(expected)}
