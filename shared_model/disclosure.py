"""What may leave a site about its patients: counts no finer than the minimum cell, and no cell below it.

Suppressed is never zero: a task that falls short is left out of what leaves. Training counts are rounded down to a
multiple of the cell; evaluation counts are exact, and each class behind them must reach the cell.
"""

from shared_model.scores import SiteScores


def rounded_down(count: int, cell: int) -> int:
    """The largest multiple of `cell` that is not above `count`; 0 means: too few, do not disclose and do not train."""
    return count - count % cell


def disclose(scores: SiteScores, cell: int) -> SiteScores:
    """The part of a site's scores that may leave: Dice over at least `cell` cases, AUC with that many of each class."""
    return SiteScores(
        dice={task: total for task, total in scores.dice.items() if total.n >= cell},
        auc={task: count for task, count in scores.auc.items() if min(count.positives, count.negatives) >= cell},
    )
