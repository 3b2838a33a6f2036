"""The gate: what a reply must be before it can touch the model. A refusal names the site and the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shared_model.compression import CODECS
from shared_model.config import Plan, PrivacyConfig
from shared_model.errors import RefusedError, WireError
from shared_model.guarantee import Guarantee
from shared_model.parameters import GROUPS, Tensors, tasks_of
from shared_model.parts import before_round
from shared_model.wire import RELEASE, Terms, Update, check_tensors


@dataclass(frozen=True)
class Round:
    """What a reply is measured against.

    Attributes:
        run, index, base_digest: of the round in progress.
        base: the weights that were sent.
        plan: of the run.
    """

    run: str
    index: int
    base_digest: str
    base: Tensors
    plan: Plan

    def before(self, tasks: Sequence[str]) -> Tensors:
        """What a site with `tasks` trains, as it was sent."""
        return before_round(self.base, tasks, self.plan.training)


def check_terms(terms: Terms, plan: Plan, run: str) -> None:
    """Refuse a site whose terms cannot be right.

    Raises:
        RefusedError: another run or release, tasks beyond the plan, case counts out of range, less privacy than the
            plan asks.
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
    _check_privacy(terms.privacy, plan.privacy)


def _check_privacy(own: Guarantee | None, asked: PrivacyConfig | None) -> None:
    """Refuse a site that trains less privately than the plan asks; more so, it may."""
    if own is None:
        if asked is not None and asked.required:
            raise RefusedError("trains without differential privacy, the plan demands it", "leave it out of the plan")
    elif asked is None:
        raise RefusedError("trains with differential privacy, the plan has none", "plan with it")
    elif own.noise < asked.noise or own.clip > asked.clip or own.delta > asked.delta:
        raise RefusedError("trains with less noise, or a larger clip or delta, than the plan asks", "ask the site")


def admit(update: Update, tensors: Mapping[str, np.ndarray], terms: Terms, current: Round) -> Tensors:
    """The tensors that the update tells, checked.

    Args:
        tensors: as they travelled.

    Raises:
        RefusedError: another run, round or base; a count beyond the one the site opened with; a tensor that is
            missing, unasked for, of the wrong shape or dtype, not by the plan's codec, or not finite; weights that are
            the base's; private steps of a site that opened without privacy, or none of one that opened with it.
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
    if bool(update.spent) != (terms.privacy is not None):
        raise RefusedError("its private steps are not those of its terms", "open the run again")
    expected = current.before(terms.tasks)
    try:
        checked = check_tensors(CODECS[current.plan.compression].decode_all(tensors, expected), expected)
    except WireError as error:
        raise RefusedError(error.what, error.remedy) from None
    if all(np.array_equal(value, expected[name]) for name, value in checked.items()):
        raise RefusedError("sends the round's own weights back: nothing was trained", "train before you answer")
    return checked
