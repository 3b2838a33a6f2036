"""What a site that trains privately tells of it. Epsilon is computed from these (accounting.py), and never sent."""

from pydantic import Field

from shared_model.metrics import Record


class Steps(Record):
    """Optimizer steps that were done, or that could be: one kind of event."""

    rate: float = Field(gt=0, le=1)
    """Probability that a step takes a patient."""
    noise: float = Field(ge=0)
    """Standard deviation of the noise over the clipping norm."""
    steps: int = Field(ge=0)


class Guarantee(Record):
    """With what a site trains in a run: its answer to what the plan asked."""

    noise: float = Field(gt=0)
    """Standard deviation of the noise over `clip`."""
    clip: float = Field(gt=0)
    """Bound on the L2 norm of one patient's gradient."""
    rate: float = Field(gt=0, le=1)
    """Probability that a step takes a patient."""
    delta: float = Field(gt=0, lt=1)
    """At which epsilon is told."""

    def of(self, steps: int) -> Steps:
        """So many steps of it."""
        return Steps(rate=self.rate, noise=self.noise, steps=steps)
