"""Ten thousand payloads and more: each is decoded to something that can be used, or refused by the documented error, in
bounded time and memory."""

from pathlib import Path

import pytest

from tests.hostile import configs, coordinator_files, messages, site_files
from tests.hostile.guard import attack

DECODERS = {**messages.DECODERS, **configs.DECODERS, **site_files.DECODERS, **coordinator_files.DECODERS}
PAYLOADS = 10_000


def test_the_payloads_are_enough() -> None:
    assert sum(decoder.examples for decoder in DECODERS.values()) >= PAYLOADS


@pytest.mark.parametrize("name", DECODERS)
def test_hostile_bytes_are_refused_by_the_documented_error(name: str, tmp_path: Path) -> None:
    attack(DECODERS[name], tmp_path)
