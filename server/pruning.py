"""Which rounds keep their weights at a coordinator: many rounds must not fill its disk. Records stay, of all rounds."""

from server.release import choose
from server.results import round_rows
from server.store import RunStore
from shared_model.errors import RunError


def prune(store: RunStore, keep: int) -> None:
    """Let go of weights that neither `resume` nor the plan's rule of release needs.

    Args:
        keep: so many of the newest rounds keep theirs; the initial ones stay, and those of the best round so far where
            the plan releases the best.
    """
    last = store.last_round()
    needed = {0, *range(last - keep + 1, last + 1)}
    plan = store.read()[1]
    if plan.release.rule == "best":
        try:
            needed.add(choose(round_rows(store), plan.release)[0].index)
        except RunError:  # nobody has disclosed a result yet
            needed |= set(range(last + 1))
    for index in set(range(last + 1)) - needed:
        store.drop_weights(index)
