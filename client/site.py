"""One hospital: what it answers to an opening, to work and to a closing. No Flower here; app.py is the door."""

import time
from functools import cached_property
from typing import TYPE_CHECKING

from client.audit import AuditLog
from client.data.cases import Case, has_label
from client.data.reading import read_cases
from client.data.split import stored_split
from client.outbound import permitted
from client.policy import check_plan
from client.privacy.floor import agreed
from client.results import Results
from client.state import Answers, Runs
from client.withdrawal import Withdrawals
from shared_model import wire
from shared_model.compression import CODECS, compressed
from shared_model.config import Plan, SiteConfig
from shared_model.disclosure import disclose, rounded_down
from shared_model.errors import DataError, LackingError, RefusedError, WeightsError, WireError
from shared_model.guarantee import Guarantee
from shared_model.parameters import (
    GROUPS,
    Tensors,
    digest,
    tasks_of,
)
from shared_model.parts import after_round, before_round
from shared_model.scores import SiteScores

if TYPE_CHECKING:
    from client.learner import Learner
    from client.privacy.spending import Spending


class Site:
    """A hospital's side of a run, from its own config and the plan that it was sent."""

    def __init__(self, config: SiteConfig, plan: Plan, run: str) -> None:
        self.config = config
        self.plan = plan
        self.run = run
        self.answers = Answers(config.state)
        self.results = Results(config.state)
        self.withdrawals = Withdrawals(config.state)
        self.audit = AuditLog(config.state)
        self.codec = CODECS[plan.compression]

    @cached_property
    def guarantee(self) -> Guarantee | None:
        """With what the site trains privately; None: it does not.

        Raises:
            RefusedError: see `agreed`.
        """
        return agreed(self.config, self.plan)

    @cached_property
    def spending(self) -> "Spending | None":
        """The site's budget in this run, imported here, as it brings torch; None without privacy."""
        if self.guarantee is None:
            return None
        from client.privacy.spending import Spending

        return Spending(self.config, self.plan, self.run, self.guarantee)

    @cached_property
    def cases(self) -> tuple[list[Case], list[Case]]:
        cases = read_cases(self.config.data, self.plan.grade_edition)
        by_hash = self.guarantee is not None
        return stored_split(self.config.state, cases, self.config.held_out, self.plan.seed, by_hash)

    @cached_property
    def learner(self) -> "Learner":
        """What needs torch, imported here: a site that opens a run, or declines, answers in a second without it."""
        from client.learner import Learner

        return Learner(self.config, self.plan, self.tasks, *self.cases, self.guarantee)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The plan's tasks that the site declares and has enough cases for; in a run, not more than it opened with.
        Private training takes all that are declared: which of them have cases would tell of the data.
        """
        declared = [task for task in self.plan.tasks if task in self.config.tasks]
        if opened := Runs(self.config.state).cases(self.run):
            declared = [task for task in declared if task in opened]
        return tuple(task for task in declared if self._count((task,)) > 0)

    def _count(self, tasks: tuple[str, ...]) -> int:
        """Training cases with a label for one of these tasks; of private training, the declared patients."""
        if self.spending is not None:
            return rounded_down(self.spending.patients, self.config.minimum_cell)
        labelled = sum(any(has_label(case, task) for task in tasks) for case in self.cases[0])
        return rounded_down(labelled, self.config.minimum_cell)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Labelled training cases of each group of parameters that the site trains."""
        groups = {group: tuple(task for task in tasks_of(group) if task in self.tasks) for group in GROUPS}
        return {group: self._count(tasks) for group, tasks in groups.items() if tasks}

    def _weights(self) -> dict[str, int]:
        """The counts that weigh an update: of cases that came after the run was opened, nobody was told."""
        opened = Runs(self.config.state).cases(self.run)
        return {group: min(count, opened.get(group, count)) for group, count in self.counts.items()}

    def open(self) -> wire.Terms:
        """What the site will do in this run.

        Raises:
            RefusedError: the plan is beyond the site's policy.
        """
        batch = float(self.plan.training.batch_size)
        if self.spending is not None:
            batch = self.spending.patients_per_step
            self.spending.check()
        check_plan(self.config, self.plan, self._count(self.tasks), batch)
        return wire.Terms(
            run=self.run,
            site=self.config.site,
            release=wire.RELEASE,
            tasks=self.tasks,
            cases=self.counts,
            minimum_cell=self.config.minimum_cell,
            privacy=self.guarantee,
            audit=self.audit.head,
            ledger=self._ledger_head(),
        )

    def _ledger_head(self) -> str | None:
        return self.spending.head if self.spending is not None else None

    def work(self, work: wire.Work, tensors: Tensors) -> tuple[wire.Update, Tensors]:
        """Evaluate the weights, train them, and answer; a repeated message gets the answer already made.

        Raises:
            LackingError: see `_received`.
            RefusedError: another plan than the run was opened with, a round beyond it or beyond the hospital's privacy
                budget, or weights that do not match their digest.
        """
        if work.plan != self.plan.digest():
            raise RefusedError("the plan is not the one that the run was opened with", "open the run again")
        if work.round <= self.withdrawals.declined.get(self.run, 0):
            raise RefusedError("a patient withdrew after this round was answered", "go on without this site's answer")
        if kept := self.answers.find(work):
            return kept
        if work.round > self.plan.rounds:
            raise RefusedError(f"the plan has no round {work.round}", "open a run of a longer plan")
        base = self._received(work, tensors, work.round - 1)
        reservation = self.spending.reserve(work.round) if self.spending is not None else 0
        started = time.monotonic()
        held = self.answers.hold(self.run, base) if self.codec.changes else None
        self.learner.load(base)
        evaluation = self._evaluate(work.round - 1)
        trained = self.learner.train(work, self.answers.moments(work))
        self.learner.release()
        if self.spending is not None:
            self.spending.book(reservation, trained.private_steps)
        before = before_round(base, self.tasks, self.plan.training)
        sent, lost = compressed(self.codec, trained.tensors, before)
        update = wire.Update(
            run=self.run,
            round=work.round,
            base=work.base,
            site=self.config.site,
            cases=self._weights(),
            evaluation=self._disclosed(evaluation),
            seconds=time.monotonic() - started if self.spending is None else None,
            error=lost if self.codec.changes else None,
            spent=self.spending.spent if self.spending is not None else (),
            audit=self.audit.head,
            ledger=self._ledger_head(),
        )
        self.answers.keep(work, update, sent, trained.moments, held)
        return update, sent

    def _received(self, message: wire.Work | wire.Closing, tensors: Tensors, index: int) -> Tensors:
        """The weights of round `index` that a message brings: whole, or as the change since those of the round before.

        Raises:
            LackingError: the change is since weights that are not here, or does not lead to those that were meant.
            RefusedError: whole weights that are not those of the message.
        """
        if message.change_of is None:
            if digest(tensors) != message.base:
                raise RefusedError("the weights are not those that the message names", "send the round again")
            return tensors
        remedy = "send the weights whole"
        try:
            held = self.answers.base(self.run, message.change_of)
            if held is None:
                raise LackingError("the weights that the change is told against are not here", remedy)
            before = before_round(held, self.plan.tasks, self.plan.training)
            weights = after_round(held, self.codec.decode_all(tensors, before, spend=True), self.plan, index)
            if digest(weights) != message.base:
                raise LackingError("the change does not lead to the weights that the message names", remedy)
        except (DataError, WeightsError, WireError) as error:
            raise LackingError(error.what, remedy) from None
        return weights

    def close(self, closing: wire.Closing, tensors: Tensors) -> wire.Evaluated:
        """Evaluate the final weights and forget the run's kept answers.

        Raises:
            LackingError, RefusedError: see `_received`.
        """
        self.learner.load(self._received(closing, tensors, closing.round))
        disclosed = self._disclosed(self._evaluate(closing.round))
        self.learner.release()
        self.answers.forget(self.run)
        self.withdrawals.end(self.run)
        return wire.Evaluated(run=self.run, site=self.config.site, evaluation=disclosed, audit=self.audit.head)

    def _evaluate(self, index: int) -> SiteScores:
        """The model of a round on the held-out cases, all of which is kept here."""
        evaluation = self.learner.evaluate()
        self.results.keep(self.run, index, evaluation, self.plan.synthetic)
        return evaluation

    def _disclosed(self, evaluation: SiteScores) -> SiteScores:
        """What may leave of an evaluation; nothing in a run that too few patients left by withdrawal."""
        if self.withdrawals.suppresses(self.run, self.config.minimum_cell):
            return SiteScores()
        return permitted(self.config, disclose(evaluation, self.config.minimum_cell))
