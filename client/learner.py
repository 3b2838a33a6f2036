"""The part of a site that needs torch: a network on the site's cases, from the weights of a round."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from client.data.cache import CaseCache
from client.data.cases import Case
from client.data.loading import LoadedCase
from client.evaluation import evaluate
from client.status import progress
from client.together import train_together
from client.training import Trained, round_job, train
from shared_model import wire
from shared_model.config import Plan, SiteConfig
from shared_model.guarantee import Guarantee
from shared_model.network import build_network
from shared_model.parameters import Tensors, load_shared
from shared_model.scores import SiteScores


class Learner:
    """A site's cases and tasks in a run."""

    def __init__(
        self,
        config: SiteConfig,
        plan: Plan,
        tasks: tuple[str, ...],
        training: Sequence[Case],
        held_out: Sequence[Case],
        privacy: Guarantee | None = None,
    ) -> None:
        self._site = config.site
        self._state = config.state
        self._device = torch.device(config.device)
        self._gpus = config.gpus
        self._plan = plan
        self._tasks = tasks
        self._cache = CaseCache(config.state / "cache")
        self._training, self._held_out = training, held_out
        self._privacy = privacy

    @cached_property
    def training_cases(self) -> list[LoadedCase]:
        return [self._cache.get(case) for case in self._training]

    @cached_property
    def held_out_cases(self) -> list[LoadedCase]:
        return [self._cache.get(case) for case in self._held_out]

    def load(self, weights: Tensors) -> None:
        """Take a model's weights.

        Raises:
            WeightsError: see load_shared.
        """
        self.network = build_network(self._plan.model, self._plan.tasks)
        load_shared(self.network, weights)
        self.network.to(self._device)

    def evaluate(self) -> SiteScores:
        """The loaded model on the held-out cases."""
        return evaluate(self.network, self.held_out_cases, self._plan, self._tasks)

    def train(self, work: wire.Work, moments: Mapping[str, np.ndarray]) -> Trained:
        """Train the loaded model for a round."""
        job = round_job(self._plan, self._tasks, self._site, work.round, work.settings, self._privacy)
        with progress(self._state, work.run, work.round, job.steps) as on_step:
            if self._gpus > 1 and self._privacy is None:
                devices = [torch.device("cuda", number) for number in range(self._gpus)]
                return train_together(devices, self.network, self._cache, self._training, job, moments, on_step)
            return train(self.network, self.training_cases, job, self._device, moments, on_step)

    def release(self) -> None:
        """Let the network go, with its gradients: a process that serves many sites would hold one of each."""
        del self.network
