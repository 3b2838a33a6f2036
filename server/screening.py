"""The look at a round's replies side by side, before they are reduced: how far each moved the weights.

An update's norm is ||w - base||, L2 over the tensors that the site trained. What is usual is the median of the others'
norms in the same round. A reply far above it is refused; of those that are left, one far below it is flagged and
counts. One other site is the least that this needs: of two that differ that much, the larger is refused.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from server.store import SpooledReply
from shared_model.parameters import Tensors, squared_distance

Reasons = list[dict[str, str]]
"""Rows of a site and a reason."""


def update_norm(tensors: Mapping[str, np.ndarray], base: Tensors) -> float:
    """L2 norm of an update over its own tensors."""
    return math.sqrt(math.fsum(squared_distance(value, base[name]) for name, value in tensors.items()))


def screen(replies: Sequence[SpooledReply], limit: float) -> tuple[list[SpooledReply], Reasons, Reasons]:
    """The replies that count, who is refused, and who is flagged; the same whatever the order of arrival.

    Args:
        limit: how many times the usual norm is too much, and how small a part of it is suspicious.
    """
    kept, refused, flagged = [], [], []
    for reply in replies:
        usual = _usual(reply, replies)
        if reply.norm > limit * usual:
            reason = f"its update's norm is {reply.norm:.3g}, more than {limit:g} times the usual {usual:.3g}"
            refused.append({"site": reply.site, "reason": reason})
        else:
            kept.append(reply)
    for reply in kept:
        usual = _usual(reply, kept)
        if reply.norm * limit < usual:
            reason = f"its update's norm is {reply.norm:.3g}, less than 1/{limit:g} of the usual {usual:.3g}"
            flagged.append({"site": reply.site, "reason": reason})
    return kept, refused, flagged


def _usual(reply: SpooledReply, replies: Sequence[SpooledReply]) -> float:
    """Median norm of the others; of one that is alone, its own."""
    return statistics.median([other.norm for other in replies if other.site != reply.site] or [reply.norm])
