"""The one door out: every answer passes here, is looked at once more, and stands in the audit log before it leaves."""

import hashlib

import numpy as np

from client.audit import AuditLog
from shared_model import wire
from shared_model.config import SiteConfig
from shared_model.errors import RefusedError
from shared_model.parameters import Tensors, digest
from shared_model.scores import SiteScores

ANSWERS = (wire.Terms, wire.Update, wire.Evaluated, wire.Refusal)
"""All that a site ever says."""


def permitted(config: SiteConfig, scores: SiteScores) -> SiteScores:
    """The part of disclosed scores whose kind the policy lets leave."""
    metrics = config.policy.metrics
    return SiteScores(
        dice=scores.dice if "dice" in metrics else {},
        auc=scores.auc if "auc" in metrics else {},
    )


def leave(config: SiteConfig, answer: wire.Header, tensors: Tensors) -> tuple[str, Tensors]:
    """What goes out: header text and tensors, listed in the audit log by name, dtype, shape and bytes.

    Raises:
        RefusedError: not one of a site's answers, tensors beside anything but an update, a tensor that is not float32
            or, of a compressed update, no bytes, or results that the policy does not let leave.
    """
    if not isinstance(answer, ANSWERS) or answer.site != config.site:
        raise RefusedError(f"a site does not say '{answer.kind}'", "install this release anew")
    if tensors and not isinstance(answer, wire.Update):
        raise RefusedError("tensors leave with an update alone", "install this release anew")
    if isinstance(answer, wire.Update | wire.Evaluated) and answer.evaluation != permitted(config, answer.evaluation):
        raise RefusedError("results beyond the site's policy", "install this release anew")
    expected = np.uint8 if isinstance(answer, wire.Update) and answer.error is not None else np.float32
    for name, value in tensors.items():
        if value.dtype != expected:
            raise RefusedError(f"tensor '{name}' is {value.dtype}", "install this release anew")
    text = wire.encode(answer)
    listed = [[name, str(value.dtype), list(value.shape), value.nbytes] for name, value in sorted(tensors.items())]
    facts = {
        "run": answer.run,
        "kind": answer.kind,
        "header": {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "tensors": {"listed": listed, "sha256": digest(tensors)},
    }
    AuditLog(config.state).append("sent", facts)
    return text, tensors
