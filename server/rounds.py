"""The rounds of a run: open, then send, admit, spool, reduce and commit until the plan's last round, then close.

A run that was killed anywhere goes on from its last committed round and the replies already spooled. A round's model
is sent while it is committed: from what is spooled, and whose replies count, the same model is made again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from server.admission import Round, admit, check_terms
from server.aggregation.base import Rule
from server.delivery import Change, Delivery
from server.reduction import reduce_round
from server.screening import Reasons, screen, update_norm
from server.store import RunStore, SpooledReply
from shared_model import wire
from shared_model.compression import CODECS, Codec, through
from shared_model.config import Plan
from shared_model.errors import RefusedError, RunError, WireError
from shared_model.parameters import Tensors, digest
from shared_model.parts import after_round
from shared_model.process import beside


@dataclass(frozen=True)
class Answer:
    """What came back from a node: header text with tensors, the failure that came instead, or why nothing will."""

    node: str
    header: object = None
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    failure: str | None = None
    absence: str | None = None


Message = tuple[str, Tensors]
"""Header text and tensors."""


class Transport(Protocol):
    """The way to the sites. A node is a name of the transport's own."""

    def nodes(self) -> dict[str, str | None]:
        """The nodes that can be asked now, each with the site whose key it holds; None where only its terms tell."""

    def send(self, messages: Mapping[str, Message], seconds: float) -> None:
        """Send each node its message; what many get is one object. They expire after `seconds`."""

    def receive(self, seconds: float) -> Iterator[Answer]:
        """Answers to the last `send` as they come, each node's once, until all are there or time is up."""

    def close(self) -> None:
        """Let go of what is under way."""


Notify = Callable[[str, dict[str, Any]], None]
"""Told what happens: 'opened', 'round', 'reply', 'refused', 'absent', 'flagged', 'committed', 'closed', with facts."""


@dataclass
class Federation:
    """A run in progress over a transport.

    Attributes:
        heads: site -> head of its audit log as last told, over all runs; what is put in is kept.
        ledgers: the same of its privacy ledger.
        terms: node -> what its site opened the run with.
    """

    store: RunStore
    rule: Rule
    transport: Transport
    notify: Notify
    heads: MutableMapping[str, str] = field(default_factory=dict)
    ledgers: MutableMapping[str, str] = field(default_factory=dict)
    run: str = field(init=False)
    plan: Plan = field(init=False)
    codec: Codec = field(init=False)
    terms: dict[str, wire.Terms] = field(init=False, default_factory=dict)
    _delivery: Delivery | None = field(init=False, default=None)
    """Of the round that this process made last."""
    _committing: "tuple[Future[None], dict[str, Any]] | None" = field(init=False, default=None)
    """The commit of that round while it is under way, and the round's record."""

    def __post_init__(self) -> None:
        self.run, self.plan = self.store.read()
        self.codec = CODECS[self.plan.compression]

    def complete(self) -> None:
        """Run every round that is not yet committed, then let the sites evaluate the final model and close the run.

        Raises:
            RunError: a round short of its quorum; what is committed and spooled stays.
        """
        try:
            for index in range(self.store.last_round() + 1, self.plan.rounds + 1):
                self._round(index)
        finally:
            self._settle()
        if not self.terms:
            self._open()
        self._close()

    def _settle(self) -> None:
        """Wait until the round that was made last is committed, and tell it."""
        if self._committing is not None:
            (commit, record), self._committing = self._committing, None
            commit.result()
            self.notify("committed", record)

    def _deadline(self) -> float:
        return self.plan.round_minutes * 60

    def _open(self) -> tuple[Reasons, Reasons]:
        """Let nodes that have not opened the run do so; returns who declined and who is not there, with reasons."""
        nodes = self.transport.nodes()
        self.terms = {node: terms for node, terms in self.terms.items() if node in nodes}
        new = {node: site for node, site in nodes.items() if node not in self.terms}
        refused: Reasons = []
        if new:
            opening = wire.Opening(run=self.run, release=wire.RELEASE, plan=self.plan)
            nothing: Tensors = {}
            self.transport.send(
                {
                    node: (wire.encode(opening.model_copy(update=self._told(site))), nothing)
                    for node, site in new.items()
                },
                self._deadline(),
            )
            for answer in self.transport.receive(self._deadline()):
                refused += self._join(answer, new.pop(answer.node))
            refused += [{"site": site or node, "reason": "did not open the run in time"} for node, site in new.items()]
            self.store.write_terms(list(self.terms.values()), refused)
            self.notify("opened", {"sites": sorted(terms.site for terms in self.terms.values())})
        known = {terms.site for terms in self.terms.values()} | {row["site"] for row in refused}
        absent = [{"site": site, "reason": "not connected"} for site in self.plan.sites if site not in known]
        return refused, absent

    def _told(self, site: str | None) -> dict[str, str | None]:
        """What the coordinator last heard of a site's own records, for the site to look whether it still has them."""
        return {"audit": self.heads.get(site or ""), "ledger": self.ledgers.get(site or "")}

    def _hear(self, site: str, answer: wire.Terms | wire.Update) -> None:
        self.heads[site] = answer.audit
        if answer.ledger is not None:
            self.ledgers[site] = answer.ledger

    def _join(self, answer: Answer, site: str | None) -> Reasons:
        """Take a site's terms, or tell why not."""
        try:
            terms = self._expect(answer, wire.Terms)
            if site is not None and terms.site != site:
                raise RefusedError(f"signs as '{terms.site}'", "mend the site's name")
            site = terms.site
            check_terms(terms, self.plan, self.run)
            if site in {known.site for known in self.terms.values()}:
                raise RefusedError(f"a second node calls itself '{site}'", "give each site its own name")
        except (RefusedError, WireError) as error:
            row = {"site": site or answer.node, "reason": error.what}
            self.notify("refused", row)
            return [row]
        self.terms[answer.node] = terms
        self._hear(terms.site, terms)
        return []

    def _expect(self, answer: Answer, kind: type[Any]) -> Any:
        """The header of the kind that was asked for.

        Raises:
            RefusedError: a site's own refusal, a failed node, an answer of another kind.
            WireError: a header that breaks the schema.
        """
        if (fault := answer.failure or answer.absence) is not None:
            raise RefusedError(fault, "see the site's own log")
        header = wire.decode(answer.header)
        if isinstance(header, wire.Refusal):
            raise RefusedError(f"the site declines: {header.reason}", "ask the site")
        if not isinstance(header, kind):
            raise RefusedError(f"answered with '{header.kind}'", "check the site's release")
        return header

    def _round(self, index: int) -> None:
        started = time.monotonic()
        delivery = self._delivery or Delivery.read(self.store, index - 1)
        current = Round(self.run, index, delivery.digest, delivery.tensors, self.plan)
        for _ in range(self.plan.attempts):
            refused, absent = self._open()
            if missing := self._missing(index):
                more_refused, more_absent = self._work(current, delivery, missing)
                refused, absent = refused + more_refused, absent + more_absent
            else:
                self.notify("round", {"round": index, "sites": []})
            replies, outliers, flagged = screen(spooled := self.store.spooled(index), self.plan.norm_limit)
            if (short := self._short(replies)) is None:
                break
        else:
            why = [f"{row['site']}: {row['reason']}" for row in refused + outliers + absent]
            reasons = "; ".join(why) or "nobody else is known"
            raise RunError(f"round {index}: {short} ({reasons})", "mend the sites, then resume the run")
        for event, rows in (("refused", outliers), ("flagged", flagged)):
            for row in rows:
                self.notify(event, {"round": index, **row})
        record = {
            "round": index,
            "sites": {
                reply.site: {**reply.update.model_dump(mode="json", exclude={"audit"}), "norm": reply.norm}
                for reply in replies
            },
            "refused": sorted(refused + outliers, key=_site),
            "flagged": sorted(flagged, key=_site),
            "absent": sorted(absent, key=_site),
            "bytes_down": delivery.bytes,
            "bytes_up": sum(reply.file.stat().st_size for reply in replies),
            "seconds": time.monotonic() - started,
        }
        self._settle()
        self.store.decide(index, [reply.site for reply in spooled])
        before = current.before(self.plan.tasks)
        trained, memory = reduce_round(self.rule, before, replies, self.store.memory(index - 1), self.codec)
        change, trained, lost = through(self.codec, trained, before)
        model = after_round(current.base, trained, self.plan, index)
        sites, sha = [reply.site for reply in replies], digest(model)
        record["error_down"] = lost if self.codec.changes else None
        told = change if self.codec.changes else None
        self._delivery = Delivery(model, sha, Change(told, current.base_digest, sites) if told is not None else None)
        self._committing = beside(self.store.commit, index, model, sha, sites, record, memory, told), record

    def _missing(self, index: int) -> dict[str, str]:
        """Node -> site of those that have opened the run and whose answer to this round is still wanted."""
        done, decided = {reply.site for reply in self.store.spooled(index)}, self.store.decided(index)
        wanted = {node: terms.site for node, terms in self.terms.items() if terms.site not in done}
        return {node: site for node, site in wanted.items() if decided is None or site in decided}

    def _short(self, replies: list[SpooledReply]) -> str | None:
        """What the replies lack to be the plan's quorum; None if nothing."""
        if len(replies) < self.plan.minimum_sites:
            return f"{len(replies)} sites gave an update, the plan needs {self.plan.minimum_sites}"
        for task, needed in self.plan.minimum_cases.items():
            cases = sum(reply.update.cases.get(task, 0) for reply in replies)
            if cases < needed:
                return f"{cases} cases with a label for '{task}', the plan needs {needed}"
        return None

    def _deliver(
        self, header: wire.Work | wire.Closing, delivery: Delivery, nodes: Mapping[str, str]
    ) -> Iterator[Answer]:
        """Send weights to nodes, each the site's, and give their answers as they come.

        The round that made them is committed meanwhile, and is before any answer is looked at. A site that lacks what
        a change is told against is sent the weights whole, and its answer to that counts.
        """
        messages = {node: delivery.to(site, header) for node, site in nodes.items()}
        changes = {node for node, (_, tensors) in messages.items() if tensors is not delivery.tensors}
        self.transport.send(messages, self._deadline())
        self._settle()
        if isinstance(header, wire.Work):
            self.notify("round", {"round": header.round, "sites": sorted(nodes.values())})
        lacking = {}
        for answer in self.transport.receive(self._deadline()):
            if answer.node in changes and _lacks(answer):
                lacking[answer.node] = nodes[answer.node]
            else:
                yield answer
        if lacking:
            again = {node: delivery.to(site, header, whole=True) for node, site in lacking.items()}
            self.transport.send(again, self._deadline())
            yield from self.transport.receive(self._deadline())

    def _work(self, current: Round, delivery: Delivery, waiting: dict[str, str]) -> tuple[Reasons, Reasons]:
        """Ask for updates, admit and spool them as they come; returns who was refused and who absent, with reasons."""
        work = wire.Work(
            run=self.run,
            round=current.index,
            plan=self.plan.digest(),
            base=current.base_digest,
            settings=self.rule.settings(),
        )
        asked = dict(waiting)
        waiting = dict(waiting)
        refused: Reasons = []
        absent: Reasons = []
        reasons: dict[str, str] = {}
        for answer in self._deliver(work, delivery, asked):
            site = waiting.get(answer.node)
            if site is None:
                continue
            if answer.absence is not None:
                reasons[answer.node] = answer.absence
                continue
            del waiting[answer.node]
            try:
                update = self._expect(answer, wire.Update)
                terms = self.terms[answer.node]
                tensors = admit(update, answer.tensors, terms, current)
                self.store.spool(update, answer.tensors, update_norm(tensors, current.before(terms.tasks)))
                self._hear(site, update)
                self.notify("reply", {"round": current.index, "site": site})
            except (RefusedError, WireError) as error:
                refused.append({"site": site, "reason": error.what})
                self.notify("refused", {"round": current.index, **refused[-1]})
        for node, site in waiting.items():
            absent.append({"site": site, "reason": reasons.get(node, "no answer before the deadline")})
            self.notify("absent", {"round": current.index, **absent[-1]})
        return refused, absent

    def _close(self) -> None:
        delivery = self._delivery or Delivery.read(self.store, self.plan.rounds)
        closing = wire.Closing(run=self.run, round=self.plan.rounds, base=delivery.digest)
        sites = {node: terms.site for node, terms in self.terms.items()}
        evaluated: dict[str, wire.Evaluated] = {}
        for answer in self._deliver(closing, delivery, sites):
            site = sites[answer.node]
            try:
                scores = self._expect(answer, wire.Evaluated)
                if (scores.run, scores.site) != (self.run, site):
                    raise RefusedError(f"signs as '{scores.site}'", "mend the site's name")
                evaluated[site] = scores
                self.heads[site] = scores.audit
            except (RefusedError, WireError) as error:
                self.notify("refused", {"site": site, "reason": error.what})
        self.transport.close()
        self.store.write_evaluated(list(evaluated.values()))
        self.notify("closed", {"sites": sorted(evaluated)})


def _lacks(answer: Answer) -> bool:
    """Whether a site answers that it lacks what a change is told against."""
    try:
        header = wire.decode(answer.header)
    except WireError:
        return False
    return isinstance(header, wire.Refusal) and header.whole


def _site(row: dict[str, str]) -> str:
    return row["site"]
