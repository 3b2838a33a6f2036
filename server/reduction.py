"""The close of a round: tensor by tensor, over the sites that trained it, in the order of their names.

One tensor of each site is in memory at a time. The order in which replies arrived leaves no trace.
"""

from collections.abc import Sequence

from server.aggregation.base import Rule
from server.store import SpooledReply
from shared_model.parameters import Tensors, group_of


def reduce_round(rule: Rule, base: Tensors, replies: Sequence[SpooledReply]) -> Tensors:
    """The next model. A tensor that no site trained stays bit for bit what it was."""
    replies = sorted(replies, key=lambda reply: reply.site)
    trained = {reply.site: set(reply.names()) for reply in replies}
    result: Tensors = {}
    for name, before in base.items():
        group = group_of(name)
        sites = [reply for reply in replies if name in trained[reply.site]]
        if not sites:
            result[name] = before
            continue
        values = [reply.tensor(name) for reply in sites]
        weights = [reply.update.cases[group] for reply in sites]
        result[name] = rule.reduce(values, weights, before)
    return result
