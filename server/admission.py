"""The gate: what a reply must be before it can touch the model. A refusal names the site and the reason."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared_model.config import Plan
from shared_model.errors import RefusedError, WireError
from shared_model.parameters import GROUPS, Tensors, tasks_of, trained_names
from shared_model.wire import RELEASE, Terms, Update, check_tensors


@dataclass(frozen=True)
class Round:
    """What a reply is measured against.

    Attributes:
        run, index, base_digest: of the round in progress.
        base: the weights that were sent.
    """

    run: str
    index: int
    base_digest: str
    base: Tensors


def check_terms(terms: Terms, plan: Plan, run: str) -> None:
    """Refuse a site whose terms cannot be right.

    Raises:
        RefusedError: another run or release, tasks beyond the plan, case counts out of range.
    """
    if terms.run != run:
        raise RefusedError("terms are for another run", "restart the site")
    if terms.release != RELEASE:
        raise RefusedError(f"site runs release {terms.release}, not {RELEASE}", "install the same release")
    if strange := sorted(set(terms.tasks) - set(plan.tasks)):
        raise RefusedError(f"task '{strange[0]}' is not in the plan", "declare tasks of the plan")
    if not terms.tasks:
        raise RefusedError("no task of the plan has enough cases at this site", "leave the site out of the plan")
    expected = {group for group in GROUPS if set(tasks_of(group)) & set(terms.tasks)}
    if set(terms.cases) != expected:
        raise RefusedError("case counts do not match the declared tasks", "count each declared task")
    for group, count in terms.cases.items():
        if not 0 < count <= plan.maximum_cases:
            raise RefusedError(
                f"claims {count} cases for '{group}', outside 1 to {plan.maximum_cases}", "mend the site's counts"
            )


def admit(update: Update, tensors: Mapping[str, np.ndarray], terms: Terms, current: Round) -> Tensors:
    """The update's tensors, checked.

    Raises:
        RefusedError: another run, round or base; a count beyond the one the site opened with; a tensor that is
            missing, unasked for, of the wrong shape or dtype, or not finite; weights that are the base's.
    """
    if (update.run, update.round, update.base) != (current.run, current.index, current.base_digest):
        raise RefusedError(f"answers round {update.round} of another base", "wait for the next round")
    if update.site != terms.site:
        raise RefusedError(f"signs as '{update.site}'", "mend the site's name")
    for group in sorted(set(update.cases) | set(terms.cases)):
        said, opened = update.cases.get(group), terms.cases.get(group)
        if said is None or opened is None or not 0 < said <= opened:  # fewer, where a patient withdrew
            raise RefusedError(
                f"claims {said} cases for '{group}', but opened the run with {opened}",
                "open the run with true counts",
            )
    expected = {name: current.base[name] for name in trained_names(current.base, terms.tasks)}
    try:
        checked = check_tensors(tensors, expected)
    except WireError as error:
        raise RefusedError(error.what, error.remedy) from None
    if all(np.array_equal(value, current.base[name]) for name, value in checked.items()):
        raise RefusedError("sends the round's own weights back: nothing was trained", "train before you answer")
    return checked
