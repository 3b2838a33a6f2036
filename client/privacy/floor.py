"""The site's floor under a plan's differential privacy: what a plan asks, and what this site answers."""

from shared_model.config import Plan, SiteConfig
from shared_model.errors import RefusedError
from shared_model.guarantee import Guarantee

REMEDY = "lower it in the plan"


def agreed(config: SiteConfig, plan: Plan) -> Guarantee | None:
    """With what this site trains in runs of a plan: the plan's noise or its own, whichever is more. None: without.

    Raises:
        RefusedError: the plan is beyond the site's policy, or the policy does not say how to train privately.
    """
    floor, asked = config.policy.privacy, plan.privacy
    if asked is None:
        if floor is not None and floor.mode == "required":
            what = "the plan has no differential privacy, the site's policy demands it"
            raise RefusedError(what, "plan with differential privacy")
        return None
    if floor is None:
        what = "the plan has differential privacy, and the site's policy does not say how (policy.privacy)"
        raise RefusedError(what, "let the hospital say it")
    if floor.mode == "never":
        return None
    if asked.noise == 0:
        raise RefusedError("the plan asks privacy without noise, which protects nobody", "give noise in the plan")
    bounds = [
        ("a clipping norm", asked.clip, floor.clip),
        ("a delta", asked.delta, floor.largest_delta),
        ("patients per step", asked.patients_per_step, floor.patients),
    ]
    for name, value, most in bounds:
        if value > most:
            raise RefusedError(f"the plan asks {name} of {value:g}, the site's policy allows {most:g}", REMEDY)
    if strange := [part for part in plan.training.parts if part not in floor.parts]:
        what = f"the plan trains '{strange[0]}' privately, the site's policy allows {', '.join(floor.parts)}"
        raise RefusedError(what, "train less in the plan")
    return Guarantee(
        noise=max(asked.noise, floor.minimum_noise),
        clip=asked.clip,
        rate=asked.patients_per_step / floor.patients,
        delta=asked.delta,
    )
