"""Norms side by side, by hand-worked numbers."""

from pathlib import Path
from typing import Any, cast

import pytest

from server.screening import screen
from server.store import SpooledReply


def replies(**norms: float) -> list[SpooledReply]:
    return [SpooledReply(site, cast(Any, None), Path(site), norm) for site, norm in norms.items()]


@pytest.mark.parametrize(
    ("norms", "refused", "flagged"),
    [
        ({"a": 2.0, "b": 3.0, "c": 4.0}, [], []),
        ({"a": 2.0, "b": 3.0, "c": 500.0}, ["c"], []),  # the honest two are not weak beside it
        ({"a": 2.0, "b": 3.0, "c": 0.1}, [], ["c"]),
        ({"a": 2.0, "b": 3.0, "c": 500.0, "d": 0.1}, ["c"], ["d"]),
        ({"a": 2.0, "b": 30.0}, ["b"], []),  # 30 > 10 x 2
        ({"a": 2.0, "b": 20.0}, [], []),  # not more than 10 x, and not less than a tenth
        ({"a": 500.0}, [], []),
    ],
)
def test_who_is_refused_and_who_is_flagged(norms: dict[str, float], refused: list[str], flagged: list[str]) -> None:
    kept, out, weak = screen(replies(**norms), 10.0)
    assert [row["site"] for row in out] == refused
    assert [row["site"] for row in weak] == flagged
    assert [reply.site for reply in kept] == [site for site in norms if site not in refused]
