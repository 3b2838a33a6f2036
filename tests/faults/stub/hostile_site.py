"""A message's process at a site whose answers are kept in KILL_FOLDER/sent.

HOSTILE names the site that sends something else than it made: what, by round, stands in tests/faults/admission.py.
"""

import os
from typing import Any

from halting import FOLDER

import client.app
from shared_model import wire
from shared_model.checkpoint import write_bytes
from tests.faults.admission import MADE, SENT, change_of, encode

answer = client.app.answer


def answered(config: Any, header: str, tensors: Any) -> Any:
    text, out = answer(config, header, tensors)
    update = wire.decode(text)
    if not isinstance(update, wire.Update):
        return text, out
    sent, name = FOLDER / "sent", f"{update.round:02d}-{config.site}"
    if config.site == os.environ["HOSTILE"]:
        write_bytes(sent / f"{name}.{MADE}", encode(update, out))
        update, out = change_of(update.round, sent, config.site)(update, out, tensors)
    write_bytes(sent / f"{name}.{SENT}", encode(update, out))
    return wire.encode(update), out


client.app.answer = answered
