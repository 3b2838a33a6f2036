"""The close of a round: tensor by tensor, over the sites that trained it, in the order of their names.

Two tensors are in memory at a time, each of as many sites as the rule needs at once. The order in which replies arrived
leaves no trace.
"""

from collections.abc import Sequence

import numpy as np

from server.aggregation.base import Rule
from server.memory import Memory
from server.store import SpooledReply
from shared_model.compression import Codec
from shared_model.parameters import Tensors, each, group_of

AT_ONCE = 2
"""Tensors."""


def reduce_round(
    rule: Rule, base: Tensors, replies: Sequence[SpooledReply], memory: Memory, codec: Codec
) -> tuple[Tensors, dict[str, Tensors]]:
    """What a round makes of the tensors that it trains, and what the rule remembers of them for the next.

    A tensor that no site trained is not among them; what is remembered of it rests.

    Args:
        base: those tensors before the round.
        memory: what the round before left; empty in the first.
        codec: by which the replies travelled.
    """
    replies = sorted(replies, key=lambda reply: reply.site)
    scales = dict(zip((reply.site for reply in replies), rule.scales([r.norm for r in replies]), strict=True))
    trained = {reply.site: set(reply.names()) for reply in replies}

    def one(name: str) -> tuple[np.ndarray | None, Tensors]:
        before, group = base[name], group_of(name)
        sites = [reply for reply in replies if name in trained[reply.site]]
        if not sites:
            return None, memory.get(name, {})
        values = (_scaled(reply.tensor(name, codec, base), scales[reply.site], before) for reply in sites)
        weights = [reply.update.cases[group] for reply in sites]
        return rule.step(before, rule.reduce(values, weights, before), memory.get(name, {}))

    done = each(one, base, AT_ONCE)
    result = {name: value for name, (value, _) in done.items() if value is not None}
    return result, {name: parts for name, (_, parts) in done.items() if parts}


def _scaled(value: np.ndarray, scale: float, before: np.ndarray) -> np.ndarray:
    """before + scale (value - before), and the value itself to the bit where the scale is 1."""
    if scale == 1.0:
        return value
    moved: np.ndarray = before + scale * (value.astype(np.float64) - before)
    return moved.astype(np.float32)
