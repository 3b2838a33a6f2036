"""What a plan's privacy costs at sites of given sizes, and whether its noise leaves anything to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared_model.accounting import epsilon, noise_for, noise_to_signal
from shared_model.config import Plan
from shared_model.errors import ConfigError
from shared_model.guarantee import Steps
from shared_model.network import build_network
from shared_model.parts import trained_size

HARD, HOPELESS = 20.0, 200.0
"""Above these ratios of noise to signal training is slow, and none; rules of thumb (docs/privacy.md)."""


@dataclass(frozen=True)
class Cost:
    """Of a whole run at one site.

    Attributes:
        patients: declared there.
        rate: probability that a step takes one of them.
        delta: the plan's, or the largest for so many patients if that is less; with that much the site would decline.
        epsilon: of all rounds, with the plan's noise.
        noise: the least for the wanted epsilon; None if none was asked for.
    """

    patients: int
    rate: float
    delta: float
    epsilon: float
    noise: float | None


def costs(plan: Plan, patients: Sequence[int], wanted: float | None) -> list[Cost]:
    """What the plan costs at sites of these sizes.

    Raises:
        ConfigError: the plan has no privacy, asks more patients a step than a site has, or no noise is enough.
    """
    asked = plan.privacy
    if asked is None:
        raise ConfigError(f"plan {plan.name}: has no differential privacy", "give it a section privacy")
    steps, rows = plan.rounds * plan.training.local_steps, []
    for count in patients:
        if asked.patients_per_step > count:
            what = f"patients_per_step: {asked.patients_per_step:g} cannot be drawn of {count} patients"
            raise ConfigError(f"plan {plan.name}: {what}", "lower it")
        rate, delta = asked.patients_per_step / count, min(asked.delta, 1 / (10 * count))
        cost = epsilon([Steps(rate=rate, noise=asked.noise, steps=steps)], delta)
        try:
            noise = None if wanted is None else noise_for(wanted, delta, rate, steps)
        except ValueError as error:
            raise ConfigError(f"plan {plan.name}: {error}", "want a larger epsilon") from None
        rows.append(Cost(count, rate, delta, cost, noise))
    return rows


def size(plan: Plan) -> int:
    """Numbers that a site with all tasks trains and sends in a round of this plan."""
    network = build_network(plan.model, plan.tasks)
    return trained_size({name: tuple(value.shape) for name, value in network.named_parameters()}, plan)


def verdict(plan: Plan, noise: float) -> str:
    """The ratio of noise to signal in a step, in words."""
    assert plan.privacy is not None
    numbers = size(plan)
    ratio = noise_to_signal(noise, plan.privacy.patients_per_step, numbers)
    if ratio > HOPELESS:
        word = "this trains noise; train fewer parts, or take more patients a step"
    elif ratio > HARD:
        word = "little is learned in a step; begin with pretrained weights, and expect a loss"
    else:
        word = "a good start can be improved on"
    return f"{numbers} numbers are trained; noise to signal at most {ratio:.3g} : 1 in a step: {word}"


def lines(plan: Plan, patients: Sequence[int], wanted: float | None) -> list[str]:
    """A table of costs, and the verdict on the plan's noise and on the wanted epsilon's."""
    found = costs(plan, patients, wanted)
    assert plan.privacy is not None
    title = f"plan {plan.name}: {plan.rounds} rounds of {plan.training.local_steps} steps, noise {plan.privacy.noise:g}"
    head = "patients    rate     delta   epsilon" + (f"   noise for epsilon {wanted:g}" if wanted is not None else "")
    rows = [
        f"{cost.patients:8d}  {cost.rate:6.4f}  {cost.delta:8.2g}  {cost.epsilon:8.3g}"
        + (f"   {cost.noise:.3g}" if cost.noise is not None else "")
        for cost in found
    ]
    needed = [cost.noise for cost in found if cost.noise is not None]
    noises = [plan.privacy.noise, *([max(needed)] if needed else [])]
    return [title, head, *rows, *(f"noise {noise:.3g}: {verdict(plan, noise)}" for noise in noises)]
