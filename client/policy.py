"""What this hospital does, whatever a plan asks: a plan beyond it, or one nobody here has approved, is refused."""

from dataclasses import dataclass
from pathlib import Path

from shared_model.checkpoint import read_json, write_json
from shared_model.config import Plan, SiteConfig, parse_config
from shared_model.errors import ConfigError, RefusedError
from shared_model.wire import RELEASE


def check_release(config: SiteConfig, release: str) -> None:
    """Refuse a coordinator of a release that the policy does not name.

    Raises:
        RefusedError: naming both.
    """
    allowed = config.policy.releases or (RELEASE,)
    if release not in allowed:
        what = f"coordinator runs release {release}, this site accepts {', '.join(allowed)}"
        raise RefusedError(what, "run the same release on both sides")


def check_plan(config: SiteConfig, plan: Plan, cases: int, batch: float) -> None:
    """Refuse a plan beyond the policy; what it says of privacy is looked at in client/privacy/floor.py.

    Args:
        cases: the site's training cases, rounded down; of private training the declared patients.
        batch: cases, or patients, that a step takes.

    Raises:
        RefusedError: naming the bound and what the plan asks; nothing finer about the site than `cases`.
    """
    policy, training = config.policy, plan.training
    if cases < policy.minimum_cases:
        raise RefusedError(f"fewer than {policy.minimum_cases} training cases, the site's own minimum", "wait for more")
    bounds = [
        ("rounds", plan.rounds, policy.rounds),
        ("steps per round", training.local_steps, policy.steps_per_round),
        ("epochs per round", training.local_steps * batch / cases, policy.epochs_per_round),
    ]
    for name, asked, most in bounds:
        if asked > most:
            what = f"the plan asks {asked:g} {name}, the site's policy allows {most:g}"
            raise RefusedError(what, "lower it in the plan")


@dataclass(frozen=True)
class Approvals:
    """The plans that this site was sent, and whether somebody here approved them: state/plans/HASH.json."""

    state: Path

    def _path(self, digest: str) -> Path:
        return self.state / "plans" / f"{digest}.json"

    def keep(self, plan: Plan) -> None:
        """Keep a plan for `mtsunet-client plans`, approved or not."""
        if not self._path(plan.digest()).exists():
            write_json(self._path(plan.digest()), {"plan": plan.model_dump(mode="json"), "approved": False})

    def rows(self) -> list[tuple[Plan, bool]]:
        """All plans with their approval, by name."""
        folder = self.state / "plans"
        paths = sorted(folder.glob("*.json")) if folder.exists() else []
        return sorted((self._read(path) for path in paths), key=lambda row: (row[0].name, row[0].digest()))

    def find(self, start: str) -> tuple[Plan, bool]:
        """The plan whose hash begins with `start`.

        Raises:
            ConfigError: none does, or several do.
        """
        found = [row for row in self.rows() if row[0].digest().startswith(start)]
        if len(found) != 1 or not start:
            word = "several plans" if found and start else "no plan"
            raise ConfigError(f"{word} here with a hash that begins with '{start}'", "see: mtsunet-client plans")
        return found[0]

    def approve(self, plan: Plan) -> None:
        """Approve a plan; the site takes part when it is next asked."""
        write_json(self._path(plan.digest()), {"plan": plan.model_dump(mode="json"), "approved": True})

    def check(self, plan: Plan) -> None:
        """Refuse a plan that nobody has approved.

        Raises:
            RefusedError: telling its hash.
        """
        path = self._path(plan.digest())
        if not path.exists() or not self._read(path)[1]:
            raise RefusedError(f"plan {plan.digest()[:12]} waits for the hospital's approval", "resume the run then")

    def _read(self, path: Path) -> tuple[Plan, bool]:
        try:
            values = read_json(path)
            plan = parse_config(Plan, values["plan"], str(path))
            approved = values["approved"] is True
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}: cannot be read", "remove it; the plan will be sent again") from None
        if plan.digest() != path.stem:
            raise ConfigError(f"{path}: is not the plan that its name says", "remove it; the plan will be sent again")
        return plan, approved
