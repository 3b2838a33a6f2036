"""Private steps over the patients of a site: who is drawn, what is drawn of him, and his loss."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from client.data.batches import Batch, TrainingCrops
from client.data.loading import LoadedCase
from client.privacy.dp_sgd import PrivateOptimizer, private_step
from client.privacy.randomness import SecureStream
from shared_model.guarantee import Guarantee

SampleLosses = Callable[[Batch], torch.Tensor]
"""Loss of each crop of a batch, (B,), none of which depends on another."""


class PrivateSteps:
    """DP-SGD over patients; all cases of a patient are one sample.

    What is random in a patient's loss (crops, augmentation, dropout) has a seed of its own, drawn anew from the secure
    stream: from one sequence for all, who else was drawn would change his gradient.
    """

    def __init__(
        self,
        cases: Sequence[LoadedCase],
        crops: TrainingCrops,
        crops_each: int,
        optimizer: torch.optim.Optimizer,
        guarantee: Guarantee,
        expected: float,
    ) -> None:
        """
        Args:
            crops_each: crops of a patient in a step.
            expected: patients that a step takes on average, by the plan and the declared number of patients.
        """
        patients: dict[str, list[LoadedCase]] = {}
        for case in cases:
            patients.setdefault(case.patient, []).append(case)
        self._patients = list(patients.values())
        self._crops, self._crops_each = crops, crops_each
        self._rate = guarantee.rate
        self._stream = SecureStream()
        self._optimizer = PrivateOptimizer(
            optimizer, self._stream, noise=guarantee.noise, clip=guarantee.clip, expected=expected
        )

    @property
    def done(self) -> int:
        """Noised steps so far."""
        return self._optimizer.steps

    def take(self, losses: SampleLosses, also: Callable[[], None]) -> None:
        """One step; `also` is called between noise and update."""

        def loss_of(patient: int) -> torch.Tensor:
            words = self._stream.words(3)
            torch.manual_seed(int(words[0] >> np.uint64(1)))
            rng = np.random.default_rng(words[1:])
            own = self._patients[patient]
            chosen = [own[index] for index in rng.integers(len(own), size=self._crops_each)]
            return losses(self._crops.draw(chosen, rng)).mean()

        private_step(self._optimizer, self._stream.sample(len(self._patients), self._rate), loss_of, also)
