"""A site's privacy budget in words: what is spent, what is left, and how much of a plan still fits."""

from dataclasses import dataclass

from client.privacy.floor import agreed
from client.privacy.ledger import Ledger, spent
from shared_model.accounting import epsilon, rounds_left
from shared_model.config import Plan, SiteConfig
from shared_model.errors import ConfigError


@dataclass(frozen=True)
class Balance:
    """The budget of a site's data set.

    Attributes:
        delta: at which both epsilons hold.
        spent: epsilon of all that was ever reserved or done.
        limit: the hospital's, of all runs together.
        rows: of the ledger.
        rounds: rounds of a plan that still fit, if one was given.
    """

    data_set: str
    delta: float
    spent: float
    limit: float
    rows: int
    rounds: int | None

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.spent)


def balance(config: SiteConfig, plan: Plan | None) -> Balance:
    """Read the ledger; of a plan, how many rounds of a new run would still fit.

    Raises:
        ConfigError: the site's policy has no privacy, or the plan is not private here.
        RefusedError: the plan is beyond the site's policy.
        DataError: the ledger was edited or is damaged.
    """
    floor = config.policy.privacy
    if floor is None:
        raise ConfigError("policy.privacy: missing, so that nothing is trained privately here", "see docs/privacy.md")
    entries = Ledger(config.state).entries()
    before = spent(entries, floor.data_set)
    rounds = None
    if plan is not None:
        guarantee = agreed(config, plan)
        if guarantee is None:
            raise ConfigError(f"plan {plan.name}: is not trained privately at this site", "name another plan")
        one = guarantee.of(plan.training.local_steps)
        rounds = rounds_left(floor.epsilon, guarantee.delta, one, before, plan.rounds)
        rounds = rounds_left(floor.epsilon_per_run, guarantee.delta, one, [], rounds)
    delta = floor.largest_delta
    return Balance(floor.data_set, delta, epsilon(before, delta), floor.epsilon, len(entries), rounds)


def in_words(found: Balance, plan: Plan | None) -> list[str]:
    """The balance, a line each."""
    said = [
        f"data set {found.data_set}: {found.rows} rows",
        f"spent: epsilon {found.spent:.3g} of {found.limit:g}, at delta {found.delta:g}",
        f"left: {found.left:.3g}",
    ]
    if plan is not None and found.rounds is not None:
        said.append(f"of plan {plan.name} {found.rounds} of {plan.rounds} rounds would still fit")
    return said
