"""What a site may open a run with. What an update may hold is tested on a real round (test_round.py)."""

import pytest

from server.admission import check_terms
from shared_model import wire
from shared_model.errors import RefusedError
from tests.federation import small_simulation

RUN = "0123456789abcdef"
PLAN = small_simulation(tasks=["wt", "idh"]).plan
GOOD = wire.Terms(
    run=RUN,
    site="alder",
    release=wire.RELEASE,
    tasks=("wt", "idh"),
    cases={"trunk": 9, "class-trunk": 8, "wt": 9, "idh": 8},
    minimum_cell=1,
    audit=f"0:{'0' * 64}",
)


def test_good_terms_pass() -> None:
    assert check_terms(GOOD, PLAN, RUN) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"run": "f" * 16}, "another run"),
        ({"release": "0.0.9"}, "release 0.0.9"),
        ({"tasks": ("wt", "grade")}, "'grade' is not in the plan"),
        ({"tasks": ()}, "no task of the plan"),
        ({"cases": {"trunk": 9, "wt": 9, "idh": 8}}, "do not match"),
        ({"cases": {**GOOD.cases, "grade": 3}}, "do not match"),
        ({"cases": {**GOOD.cases, "wt": 10**9}}, "claims 1000000000 cases for 'wt'"),
        ({"cases": {**GOOD.cases, "wt": -450}}, "claims -450 cases"),
        ({"cases": {**GOOD.cases, "wt": 0}}, "claims 0 cases"),
    ],
)
def test_terms_that_cannot_be_right_are_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        check_terms(GOOD.model_copy(update=change), PLAN, RUN)
