"""One hospital: what it answers to an opening, to work and to a closing. No Flower here; app.py is the door."""

import time
from functools import cached_property

import torch

from client.audit import AuditLog
from client.data.cache import CaseCache
from client.data.cases import Case, has_label
from client.data.loading import LoadedCase
from client.data.reading import read_cases
from client.data.split import stored_split
from client.evaluation import evaluate
from client.outbound import permitted
from client.policy import check_plan
from client.results import Results
from client.state import Answers
from client.training import round_job, train
from client.withdrawal import Withdrawals
from shared_model import wire
from shared_model.config import Plan, SiteConfig
from shared_model.disclosure import disclose, rounded_down
from shared_model.errors import RefusedError
from shared_model.network import MTSUNet, build_network
from shared_model.parameters import (
    GROUPS,
    Tensors,
    digest,
    load_shared,
    shared_state,
    tasks_of,
    trained_names,
)
from shared_model.scores import SiteScores


class Site:
    """A hospital's side of a run, from its own config and the plan that it was sent."""

    def __init__(self, config: SiteConfig, plan: Plan, run: str) -> None:
        self.config = config
        self.plan = plan
        self.run = run
        self.device = torch.device(config.device)
        self.answers = Answers(config.state)
        self.results = Results(config.state)
        self.withdrawals = Withdrawals(config.state)
        self.audit = AuditLog(config.state)
        self._cache = CaseCache(config.state / "cache")

    @cached_property
    def cases(self) -> tuple[list[Case], list[Case]]:
        cases = read_cases(self.config.data, self.plan.grade_edition)
        return stored_split(self.config.state, cases, self.config.held_out, self.plan.seed)

    @cached_property
    def training_cases(self) -> list[LoadedCase]:
        return [self._cache.get(case) for case in self.cases[0]]

    @cached_property
    def held_out_cases(self) -> list[LoadedCase]:
        return [self._cache.get(case) for case in self.cases[1]]

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The plan's tasks that the site declares and has enough cases for."""
        declared = [task for task in self.plan.tasks if task in self.config.tasks]
        return tuple(task for task in declared if self._count((task,)) > 0)

    def _count(self, tasks: tuple[str, ...]) -> int:
        labelled = sum(any(has_label(case, task) for task in tasks) for case in self.cases[0])
        return rounded_down(labelled, self.config.minimum_cell)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Labelled training cases of each group of parameters that the site trains."""
        groups = {group: tuple(task for task in tasks_of(group) if task in self.tasks) for group in GROUPS}
        return {group: self._count(tasks) for group, tasks in groups.items() if tasks}

    def open(self) -> wire.Terms:
        """What the site will do in this run.

        Raises:
            RefusedError: the plan is beyond the site's policy.
        """
        check_plan(self.config, self.plan, self._count(self.tasks))
        return wire.Terms(
            run=self.run,
            site=self.config.site,
            release=wire.RELEASE,
            tasks=self.tasks,
            cases=self.counts,
            minimum_cell=self.config.minimum_cell,
            audit=self.audit.head,
        )

    def _network(self, tensors: Tensors, base: str) -> MTSUNet:
        if digest(tensors) != base:
            raise RefusedError("the weights are not those that the message names", "send the round again")
        network = build_network(self.plan.model, self.plan.tasks)
        load_shared(network, tensors)
        return network.to(self.device)

    def work(self, work: wire.Work, base: Tensors) -> tuple[wire.Update, Tensors]:
        """Evaluate the weights, train them, and answer; a repeated message gets the answer already made.

        Raises:
            RefusedError: another plan than the run was opened with, or weights that do not match their digest.
        """
        if work.plan != self.plan.digest():
            raise RefusedError("the plan is not the one that the run was opened with", "open the run again")
        if work.round <= self.withdrawals.declined.get(self.run, 0):
            raise RefusedError("a patient withdrew after this round was answered", "go on without this site's answer")
        if kept := self.answers.find(work):
            return kept
        started = time.monotonic()
        network = self._network(base, work.base)
        evaluation = self._evaluate(network, work.round - 1)
        job = round_job(self.plan, self.tasks, self.config.site, work.round, work.settings)
        trained = train(network, self.training_cases, job, self.device, self.answers.moments(work))
        state = shared_state(network)
        tensors = {name: state[name] for name in trained_names(state, self.tasks)}
        update = wire.Update(
            run=self.run,
            round=work.round,
            base=work.base,
            site=self.config.site,
            cases=self.counts,
            evaluation=self._disclosed(evaluation),
            seconds=time.monotonic() - started,
            audit=self.audit.head,
        )
        self.answers.keep(work, update, tensors, trained.moments)
        return update, tensors

    def close(self, closing: wire.Closing, final: Tensors) -> wire.Evaluated:
        """Evaluate the final weights and forget the run's kept answers."""
        network = self._network(final, closing.base)
        disclosed = self._disclosed(self._evaluate(network, closing.round))
        self.answers.forget(self.run)
        self.withdrawals.end(self.run)
        return wire.Evaluated(run=self.run, site=self.config.site, evaluation=disclosed, audit=self.audit.head)

    def _evaluate(self, network: MTSUNet, index: int) -> SiteScores:
        """The model of a round on the held-out cases, all of which is kept here."""
        evaluation = evaluate(network, self.held_out_cases, self.plan, self.tasks)
        self.results.keep(self.run, index, evaluation, self.plan.synthetic)
        return evaluation

    def _disclosed(self, evaluation: SiteScores) -> SiteScores:
        """What may leave of an evaluation; nothing in a run that too few patients left by withdrawal."""
        if self.withdrawals.suppresses(self.run, self.config.minimum_cell):
            return SiteScores()
        return permitted(self.config, disclose(evaluation, self.config.minimum_cell))
