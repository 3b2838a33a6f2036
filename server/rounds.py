"""The rounds of a run: open, then send, admit, spool, reduce and commit until the plan's last round, then close.

Everything that a later round needs is on disk when a round ends, so that a run which was killed anywhere goes on from
its last committed round and the replies already spooled.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from server.admission import Round, admit, check_terms
from server.aggregation.base import Rule
from server.reduction import reduce_round
from server.store import RunStore
from shared_model import wire
from shared_model.config import Plan
from shared_model.errors import RefusedError, RunError, WireError
from shared_model.parameters import Tensors, digest


@dataclass(frozen=True)
class Answer:
    """What came back from a node: header text with tensors, or the reason why nothing did."""

    node: str
    header: object = None
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    failure: str | None = None


class Transport(Protocol):
    """The way to the sites. A node is a name of the transport's own; which site it is, its terms say."""

    def nodes(self) -> list[str]:
        """The nodes that can be asked."""

    def send(self, nodes: list[str], header: str, tensors: Tensors, seconds: float) -> None:
        """Send one message to each node; it expires after `seconds`."""

    def receive(self, seconds: float) -> Iterator[Answer]:
        """Answers to the last `send` as they come, each node's once, until all are there or time is up."""

    def close(self) -> None:
        """Let go of what is under way."""


Reasons = list[dict[str, str]]
"""Rows of a site and the reason why it is not in."""

Notify = Callable[[str, dict[str, Any]], None]
"""Told what happens: 'opened', 'round', 'reply', 'refused', 'absent', 'committed', 'closed', each with its facts."""


@dataclass
class Federation:
    """A run in progress over a transport."""

    store: RunStore
    rule: Rule
    transport: Transport
    notify: Notify
    run: str = field(init=False)
    plan: Plan = field(init=False)
    terms: dict[str, wire.Terms] = field(init=False, default_factory=dict)
    """Node -> what its site opened the run with."""

    def __post_init__(self) -> None:
        self.run, self.plan = self.store.read()

    def complete(self) -> None:
        """Run every round that is not yet committed, then let the sites evaluate the final model and close the run.

        Raises:
            RunError: fewer admitted replies than plan.minimum_sites; what is committed and spooled stays.
        """
        self._open()
        for index in range(self.store.last_round() + 1, self.plan.rounds + 1):
            self._round(index)
        self._close()

    def _deadline(self) -> float:
        return self.plan.round_minutes * 60

    def _open(self) -> None:
        opening = wire.Opening(run=self.run, release=wire.RELEASE, plan=self.plan)
        self.transport.send(self.transport.nodes(), wire.encode(opening), {}, self._deadline())
        refused: Reasons = []
        for answer in self.transport.receive(self._deadline()):
            site = answer.node
            try:
                terms = self._expect(answer, wire.Terms)
                site = terms.site
                check_terms(terms, self.plan, self.run)
                if terms.site in {known.site for known in self.terms.values()}:
                    raise RefusedError(f"a second node calls itself '{terms.site}'", "give each site its own name")
                self.terms[answer.node] = terms
            except (RefusedError, WireError) as error:
                refused.append({"site": site, "reason": str(error)})
                self.notify("refused", refused[-1])
        self._need(len(self.terms), "opened the run", refused)
        self.store.write_terms(list(self.terms.values()), refused)
        self.notify("opened", {"sites": sorted(terms.site for terms in self.terms.values())})

    def _expect(self, answer: Answer, kind: type[Any]) -> Any:
        """The header of the kind that was asked for.

        Raises:
            RefusedError: a site's own refusal, a failed node, an answer of another kind.
            WireError: a header that breaks the schema.
        """
        if answer.failure is not None:
            raise RefusedError(answer.failure, "see the site's own log")
        header = wire.decode(answer.header)
        if isinstance(header, wire.Refusal):
            raise RefusedError(f"the site declines: {header.reason}", "ask the site")
        if not isinstance(header, kind):
            raise RefusedError(f"answered with '{header.kind}'", "check the site's release")
        return header

    def _need(self, have: int, what: str, refused: Reasons) -> None:
        if have < self.plan.minimum_sites:
            reasons = "; ".join(f"{row['site']}: {row['reason']}" for row in refused) or "no answer came"
            raise RunError(
                f"{have} sites {what}, the plan needs {self.plan.minimum_sites} ({reasons})",
                "mend the sites, then resume the run",
            )

    def _round(self, index: int) -> None:
        started = time.monotonic()
        base = self.store.model(index - 1)
        current = Round(self.run, index, digest(base), base)
        work = wire.Work(
            run=self.run,
            round=index,
            plan=self.plan.digest(),
            base=current.base_digest,
            settings=self.rule.settings(),
        )
        done = {reply.site for reply in self.store.spooled(index)}
        missing = {node: terms.site for node, terms in self.terms.items() if terms.site not in done}
        self.notify("round", {"round": index, "sites": sorted(missing.values())})
        down = sum(value.nbytes for value in base.values()) * len(missing)
        refused: Reasons = []
        absent: Reasons = []
        if missing:
            self.transport.send(list(missing), wire.encode(work), base, self._deadline())
            refused, absent = self._collect(current, dict(missing))
        replies = self.store.spooled(index)
        self._need(len(replies), f"gave an update in round {index}", refused + absent)
        record = {
            "round": index,
            "sites": {reply.site: reply.update.model_dump(mode="json") for reply in replies},
            "refused": refused,
            "absent": absent,
            "bytes_down": down,
            "bytes_up": sum(reply.file.stat().st_size for reply in replies),
            "seconds": time.monotonic() - started,
        }
        self.store.commit(index, reduce_round(self.rule, base, replies), [reply.site for reply in replies], record)
        self.notify("committed", record)

    def _collect(self, current: Round, waiting: dict[str, str]) -> tuple[Reasons, Reasons]:
        """Admit and spool answers as they come; returns who was refused and who was absent, with reasons."""
        refused: Reasons = []
        absent: Reasons = []
        for answer in self.transport.receive(self._deadline()):
            site = waiting.pop(answer.node, None)
            if site is None:
                continue
            try:
                update = self._expect(answer, wire.Update)
                self.store.spool(update, admit(update, answer.tensors, self.terms[answer.node], current))
                self.notify("reply", {"round": current.index, "site": site})
            except (RefusedError, WireError) as error:
                refused.append({"site": site, "reason": str(error)})
                self.notify("refused", {"round": current.index, **refused[-1]})
        for site in waiting.values():
            absent.append({"site": site, "reason": "no answer before the deadline"})
            self.notify("absent", {"round": current.index, **absent[-1]})
        return sorted(refused, key=_site), sorted(absent, key=_site)

    def _close(self) -> None:
        final = self.store.model(self.plan.rounds)
        closing = wire.Closing(run=self.run, round=self.plan.rounds, base=digest(final))
        self.transport.send(list(self.terms), wire.encode(closing), final, self._deadline())
        evaluated: dict[str, wire.Evaluated] = {}
        for answer in self.transport.receive(self._deadline()):
            site = self.terms[answer.node].site
            try:
                scores = self._expect(answer, wire.Evaluated)
                if (scores.run, scores.site) != (self.run, site):
                    raise RefusedError(f"signs as '{scores.site}'", "mend the site's name")
                evaluated[site] = scores
            except (RefusedError, WireError) as error:
                self.notify("refused", {"site": site, "reason": str(error)})
        self.transport.close()
        self.store.write_evaluated(list(evaluated.values()))
        self.notify("closed", {"sites": sorted(evaluated)})


def _site(row: dict[str, str]) -> str:
    return row["site"]
