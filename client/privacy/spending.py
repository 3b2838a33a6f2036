"""What a run spends of a hospital's privacy budget."""

from collections import Counter

from client.privacy.ledger import Budget, Ledger, spent
from shared_model.config import Plan, SiteConfig
from shared_model.guarantee import Guarantee, Steps


class Spending:
    """A run's side of the site's ledger."""

    def __init__(self, config: SiteConfig, plan: Plan, run: str, guarantee: Guarantee) -> None:
        floor, asked = config.policy.privacy, plan.privacy
        if floor is None or asked is None:
            raise ValueError("a guarantee without a policy or a plan for it")
        self.patients = floor.patients
        self.patients_per_step = asked.patients_per_step
        self._ledger = Ledger(config.state)
        self._data_set, self._run, self._guarantee = floor.data_set, run, guarantee
        self._budget = Budget(guarantee.delta, floor.epsilon_per_run, floor.epsilon)
        self._steps, self._rounds = plan.training.local_steps, plan.rounds

    def check(self) -> None:
        """Refuse a run that could not come to its end; one that has begun is refused round by round.

        Raises:
            RefusedError: with what it could cost.
        """
        if not self.spent:
            whole = self._guarantee.of(self._steps * self._rounds)
            self._ledger.check(self._data_set, self._run, whole, self._budget)

    def reserve(self, index: int) -> int:
        """Set a round aside, before any data are touched; the reservation.

        Raises:
            RefusedError: it could overspend.
        """
        wanted = self._guarantee.of(self._steps)
        return self._ledger.reserve(self._data_set, self._run, index, wanted, self._budget)

    def book(self, reservation: int, steps: int) -> None:
        """So many noised steps were done of it."""
        self._ledger.book(reservation, steps)

    @property
    def spent(self) -> tuple[Steps, ...]:
        """Steps of this run so far, added up by rate and noise; what was reserved and not booked counts whole."""
        steps: Counter[tuple[float, float]] = Counter()
        for event in spent(self._ledger.entries(), self._data_set, self._run):
            steps[event.rate, event.noise] += event.steps
        return tuple(Steps(rate=rate, noise=noise, steps=count) for (rate, noise), count in sorted(steps.items()))

    @property
    def head(self) -> str:
        """The ledger's head."""
        return self._ledger.head
