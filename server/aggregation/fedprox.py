"""FedProx (Li et al. 2020): averaging, with local training held near the round's base."""

from pydantic import Field

from server.aggregation.base import register
from server.aggregation.fedavg import FedAvg


@register("fedprox")
class FedProx(FedAvg):
    """FedAvg whose sites minimise loss(w) + mu/2 ||w - base||^2; the site adds the term."""

    mu: float = Field(0.01, ge=0)
    """Strength of the proximal term; 0 is FedAvg."""

    def settings(self) -> dict[str, float]:
        return {"mu": self.mu}
