"""The rounds of a run: open, then send, admit, spool, reduce and commit until the plan's last round, then close.

Everything that a later round needs is on disk when a round ends, so that a run which was killed anywhere goes on from
its last committed round and the replies already spooled.
"""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from server.admission import Round, admit, check_terms
from server.aggregation.base import Rule
from server.reduction import reduce_round
from server.screening import Reasons, screen, update_norm
from server.store import RunStore, SpooledReply
from shared_model import wire
from shared_model.config import Plan
from shared_model.errors import RefusedError, RunError, WireError
from shared_model.parameters import Tensors, digest
from shared_model.parts import after_round


@dataclass(frozen=True)
class Answer:
    """What came back from a node: header text with tensors, the failure that came instead, or why nothing will."""

    node: str
    header: object = None
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    failure: str | None = None
    absence: str | None = None


class Transport(Protocol):
    """The way to the sites. A node is a name of the transport's own."""

    def nodes(self) -> dict[str, str | None]:
        """The nodes that can be asked now, each with the site whose key it holds; None where only its terms tell."""

    def send(self, headers: Mapping[str, str], tensors: Tensors, seconds: float) -> None:
        """Send each node its header, and all of them the tensors; the messages expire after `seconds`."""

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
    terms: dict[str, wire.Terms] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.run, self.plan = self.store.read()

    def complete(self) -> None:
        """Run every round that is not yet committed, then let the sites evaluate the final model and close the run.

        Raises:
            RunError: a round short of its quorum; what is committed and spooled stays.
        """
        for index in range(self.store.last_round() + 1, self.plan.rounds + 1):
            self._round(index)
        if not self.terms:
            self._open()
        self._close()

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
            headers = {node: wire.encode(opening.model_copy(update=self._told(site))) for node, site in new.items()}
            self.transport.send(headers, {}, self._deadline())
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
        base = self.store.model(index - 1)
        current = Round(self.run, index, digest(base), base, self.plan)
        size = sum(value.nbytes for value in base.values())
        down = 0
        for _ in range(self.plan.attempts):
            refused, absent = self._open()
            missing = self._missing(index)
            self.notify("round", {"round": index, "sites": sorted(missing.values())})
            if missing:
                down += size * len(missing)
                more_refused, more_absent = self._work(current, missing)
                refused, absent = refused + more_refused, absent + more_absent
            replies, outliers, flagged = screen(self.store.spooled(index), self.plan.norm_limit)
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
            "bytes_down": down,
            "bytes_up": sum(reply.file.stat().st_size for reply in replies),
            "seconds": time.monotonic() - started,
        }
        trained = reduce_round(self.rule, current.before(self.plan.tasks), replies)
        model = after_round(base, trained, self.plan, index)
        self.store.commit(index, model, [reply.site for reply in replies], record)
        self.notify("committed", record)

    def _missing(self, index: int) -> dict[str, str]:
        """Node -> site of those that have opened the run and not yet answered this round."""
        done = {reply.site for reply in self.store.spooled(index)}
        return {node: terms.site for node, terms in self.terms.items() if terms.site not in done}

    def _short(self, replies: list[SpooledReply]) -> str | None:
        """What the replies lack to be the plan's quorum; None if nothing."""
        if len(replies) < self.plan.minimum_sites:
            return f"{len(replies)} sites gave an update, the plan needs {self.plan.minimum_sites}"
        for task, needed in self.plan.minimum_cases.items():
            cases = sum(reply.update.cases.get(task, 0) for reply in replies)
            if cases < needed:
                return f"{cases} cases with a label for '{task}', the plan needs {needed}"
        return None

    def _work(self, current: Round, waiting: dict[str, str]) -> tuple[Reasons, Reasons]:
        """Ask for updates, admit and spool them as they come; returns who was refused and who absent, with reasons."""
        work = wire.Work(
            run=self.run,
            round=current.index,
            plan=self.plan.digest(),
            base=current.base_digest,
            settings=self.rule.settings(),
        )
        self.transport.send({node: wire.encode(work) for node in waiting}, current.base, self._deadline())
        waiting = dict(waiting)
        refused: Reasons = []
        absent: Reasons = []
        reasons: dict[str, str] = {}
        for answer in self.transport.receive(self._deadline()):
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
                self.store.spool(update, tensors, update_norm(tensors, current.before(terms.tasks)))
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
        final = self.store.model(self.plan.rounds)
        closing = wire.Closing(run=self.run, round=self.plan.rounds, base=digest(final))
        self.transport.send({node: wire.encode(closing) for node in self.terms}, final, self._deadline())
        evaluated: dict[str, wire.Evaluated] = {}
        for answer in self.transport.receive(self._deadline()):
            site = self.terms[answer.node].site
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


def _site(row: dict[str, str]) -> str:
    return row["site"]
