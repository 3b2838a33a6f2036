"""Flower's ClientApp: turns messages into wire objects for Site, and its answers back. The client's one Flower file."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.audit import AuditLog
from client.config import SITE_VARIABLE, load_site
from client.logs import note_failure
from client.outbound import leave
from client.policy import Approvals, check_release
from client.privacy.floor import agreed
from client.site import Site
from client.state import Runs
from client.withdrawal import Withdrawals
from shared_model import wire
from shared_model.config import SiteConfig
from shared_model.errors import LackingError, RefusedError
from shared_model.flower_message import content, pack, unpack
from shared_model.parameters import Tensors

REASON_LIMIT = 400
UNREADABLE = 2
"""Flower's error code for a message that an app could not handle."""


@lru_cache(maxsize=8)
def _site(config: SiteConfig, run: str, excluded: frozenset[str]) -> Site:
    """The site in a run that it opened, from its state folder; a process that serves many messages reads it once.

    Args:
        excluded: hashes of the patients who withdrew: with another one, all is read anew.

    Raises:
        RefusedError: the run was never opened here.
    """
    return Site(config, Runs(config.state).plan(run), run)


def answer(config: SiteConfig, header: str, tensors: Tensors) -> tuple[str, Tensors]:
    """One message in, one out. What the site cannot or will not do comes back as a Refusal that names no file.

    Raises:
        WireError: a header that breaks the schema.
    """
    message = wire.decode(header)
    whole = False
    try:
        return leave(config, *_respond(config, message, tensors))
    except RefusedError as error:
        reason, whole = error.what, isinstance(error, LackingError)
    except Exception as error:
        reason = f"{type(error).__name__} at the site; its own errors.log tells more"
        note_failure(config.state, error)
    AuditLog(config.state).append("refused", {"run": message.run, "kind": message.kind, "reason": reason})
    refusal = wire.Refusal(run=message.run, site=config.site, reason=reason[:REASON_LIMIT], whole=whole)
    return leave(config, refusal, {})


def _respond(config: SiteConfig, message: wire.Header, tensors: Tensors) -> tuple[wire.Header, Tensors]:
    """The answer to a message.

    Raises:
        RefusedError: what the site will not do.
    """
    audit = AuditLog(config.state)
    withdrawals = Withdrawals(config.state)
    withdrawals.notice(config)
    excluded = frozenset(withdrawals.patients)
    facts: dict[str, object] = {"run": message.run}
    if isinstance(message, wire.Opening):
        _allow(config, message, audit)
        Runs(config.state).keep(message.run, message.plan, {})
        terms = _site(config, message.run, excluded).open()
        Runs(config.state).keep(message.run, message.plan, terms.cases)
        audit.append("joined", {**facts, "plan": message.plan.digest(), "tasks": list(terms.tasks)})
        return terms.model_copy(update={"audit": audit.head}), {}
    if isinstance(message, wire.Work):
        audit.append("asked to train", {**facts, "round": message.round, "base": message.base})
        return _site(config, message.run, excluded).work(message, tensors)
    if isinstance(message, wire.Closing):
        audit.append("asked to evaluate", {**facts, "round": message.round, "base": message.base})
        return _site(config, message.run, excluded).close(message, tensors), {}
    raise RefusedError(f"a site is not sent '{message.kind}'", "check the sender's release")


def _allow(config: SiteConfig, opening: wire.Opening, audit: AuditLog) -> None:
    """Look at a run before any data is touched.

    Raises:
        RefusedError: another release, an audit log or a ledger that was cut, a plan that waits for approval.
    """
    check_release(config, opening.release)
    if opening.audit is not None and not audit.contains(opening.audit):
        number = opening.audit.split(":")[0]
        what = f"the site's audit log lacks line {number}, which the coordinator was told of"
        raise RefusedError(what, "let the hospital look into it")
    approvals = Approvals(config.state)
    approvals.keep(opening.plan)
    if config.policy.approve_plans:
        approvals.check(opening.plan)
    if opening.ledger is not None and agreed(config, opening.plan) is not None:
        from client.privacy.ledger import Ledger  # it brings torch, by way of Opacus

        if not Ledger(config.state).contains(opening.ledger):
            number = opening.ledger.split(":")[0]
            what = f"the site's privacy ledger lacks row {number}, which the coordinator was told of"
            raise RefusedError(what, "let the hospital look into it")


def client_app(config_of: Callable[[Context], SiteConfig]) -> ClientApp:
    """A ClientApp whose site config is found from the node's context."""
    made = ClientApp()

    @made.query()
    @made.train()
    def handle(message: Message, context: Context) -> Message:
        try:
            header, tensors = unpack(message.content)
            text, out = answer(config_of(context), str(header), tensors)
            return Message(content(text, pack(out)), reply_to=message)
        except Exception as error:
            # Flower would send the error's own words, and they may name a file.
            return Message(Error(UNREADABLE, f"{type(error).__name__} at the site"), reply_to=message)

    return made


def _hospital(context: Context) -> SiteConfig:
    """The config of the hospital whose process this is."""
    return load_site(Path(os.environ[SITE_VARIABLE]))


app = client_app(_hospital)
"""What the shell names: the hospital whose config file stands in the environment."""
