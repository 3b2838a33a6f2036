"""Flower's ClientApp: turns messages into wire objects for Site, and its answers back. The client's one Flower file."""

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.site import Site
from client.withdrawal import Withdrawals
from shared_model import wire
from shared_model.checkpoint import write_json
from shared_model.config import Plan, SiteConfig, parse_config
from shared_model.errors import RefusedError
from shared_model.parameters import Tensors

HEADER = "header"
TENSORS = "tensors"


@lru_cache(maxsize=8)
def _site(config: SiteConfig, run: str, excluded: frozenset[str]) -> Site:
    """The site in a run that it opened, from its state folder; a process that serves many messages reads it once.

    Args:
        excluded: hashes of the patients who withdrew: with another one, all is read anew.

    Raises:
        RefusedError: the run was never opened here.
    """
    path = config.state / "runs" / f"{run}.json"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise RefusedError("the run was not opened at this site", "open the run again") from None
    return Site(config, parse_config(Plan, values, "kept plan"), run)


def answer(config: SiteConfig, header: str, tensors: Tensors) -> tuple[str, Tensors]:
    """One message in, one out. What the site cannot or will not do comes back as a Refusal that names no file.

    What went wrong, with its traceback, stays in the site's own errors.log.

    Raises:
        WireError: a header that breaks the schema.
    """
    message = wire.decode(header)
    try:
        withdrawals = Withdrawals(config.state)
        withdrawals.notice(config)
        excluded = frozenset(withdrawals.patients)
        if isinstance(message, wire.Opening):
            if message.release != wire.RELEASE:
                raise RefusedError(f"coordinator runs release {message.release}", "run the same release on both sides")
            write_json(config.state / "runs" / f"{message.run}.json", message.plan.model_dump(mode="json"))
            return wire.encode(_site(config, message.run, excluded).open()), {}
        if isinstance(message, wire.Work):
            update, trained = _site(config, message.run, excluded).work(message, tensors)
            return wire.encode(update), trained
        if isinstance(message, wire.Closing):
            return wire.encode(_site(config, message.run, excluded).close(message, tensors)), {}
        raise RefusedError(f"a site is not sent '{message.kind}'", "check the sender's release")
    except RefusedError as error:
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__} at the site; its own errors.log tells more"
        _log(config.state / "errors.log")
    return wire.encode(wire.Refusal(run=message.run, site=config.site, reason=reason)), {}


def _log(path: Path) -> None:
    """Append the exception in flight to a file of the site's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z\n{traceback.format_exc()}\n")


def client_app(config_of: Callable[[Context], SiteConfig]) -> ClientApp:
    """A ClientApp whose site config is found from the node's context."""
    app = ClientApp()

    @app.query()
    @app.train()
    def handle(message: Message, context: Context) -> Message:
        header = message.content.config_records[HEADER]["json"]
        arrays = message.content.array_records[TENSORS]
        tensors = {name: array.numpy() for name, array in arrays.items()}
        text, out = answer(config_of(context), str(header), tensors)
        content = RecordDict(
            {
                HEADER: ConfigRecord({"json": text}),
                TENSORS: ArrayRecord({name: Array(value) for name, value in out.items()}),
            }
        )
        return Message(content, reply_to=message)

    return app
