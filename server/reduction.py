"""The close of a round: tensor by tensor, over the sites that trained it, in the order of their names.

One tensor of each site is in memory at a time. The order in which replies arrived leaves no trace.
"""

from collections.abc import Sequence

import numpy as np

from server.aggregation.base import Rule
from server.store import SpooledReply
from shared_model.compression import Codec
from shared_model.parameters import Tensors, group_of


def reduce_round(rule: Rule, base: Tensors, replies: Sequence[SpooledReply], codec: Codec) -> Tensors:
    """What a round makes of the tensors that it trains; one that no site trained is not among them.

    Args:
        base: those tensors before the round.
        codec: by which the replies travelled.
    """
    replies = sorted(replies, key=lambda reply: reply.site)
    scales = dict(zip((reply.site for reply in replies), rule.scales([r.norm for r in replies]), strict=True))
    trained = {reply.site: set(reply.names()) for reply in replies}
    result: Tensors = {}
    for name, before in base.items():
        group = group_of(name)
        sites = [reply for reply in replies if name in trained[reply.site]]
        if not sites:
            continue
        sent = [codec.decode_named(name, reply.tensor(name), base) for reply in sites]
        values = [_scaled(value, scales[reply.site], before) for value, reply in zip(sent, sites, strict=True)]
        weights = [reply.update.cases[group] for reply in sites]
        result[name] = rule.reduce(values, weights, before)
    return result


def _scaled(value: np.ndarray, scale: float, before: np.ndarray) -> np.ndarray:
    """before + scale (value - before), and the value itself to the bit where the scale is 1."""
    if scale == 1.0:
        return value
    moved: np.ndarray = before + scale * (value.astype(np.float64) - before)
    return moved.astype(np.float32)
