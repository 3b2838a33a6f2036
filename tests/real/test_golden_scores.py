"""Published predictions of a real cohort (van der Voort 2023, TCGA test set) give the AUCs that were published."""

import csv

import pytest

from shared_model.metrics import auc
from shared_model.scores import CaseResult, Row, SiteScores, score
from shared_model.tasks import MISSING
from tests.real import DATA

TABLE = DATA / "tables" / "PrognosAIs_test_predictions.csv"

pytestmark = pytest.mark.skipif(not TABLE.is_file(), reason=f"no {TABLE}; set MTSUNET_DATA to the folder of real data")


@pytest.fixture(scope="module")
def cases() -> list[CaseResult]:
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        grade = int(row["Grade"])
        found.append(
            CaseResult(
                case=row["Patient"],
                probabilities={
                    "idh": tuple(float(row[f"Prediction_score_IDH_{name}"]) for name in ("wildtype", "mutated")),
                    "codeletion": tuple(
                        float(row[f"Prediction_score_1p19q_{name}"]) for name in ("intact", "codeleted")
                    ),
                    "grade": tuple(float(row[f"Prediction_score_grade_{name}"]) for name in (2, 3, 4)),
                },
                labels={
                    "idh": int(row["IDH_mutated"]),
                    "codeletion": int(row["1p19q_codeleted"]),
                    "grade": MISSING if grade == MISSING else grade - 2,
                },
            )
        )
    return found


def found(rows: tuple[Row, ...], task: str, metric: str) -> Row:
    return next(row for row in rows if (row.task, row.metric) == (task, metric))


def test_published_aucs(cases: list[CaseResult]) -> None:
    rows = score(cases, seed=0)
    idh, codeletion = found(rows, "idh", "auc"), found(rows, "codeletion", "auc")
    assert idh.value == pytest.approx(0.896, abs=5e-4) and idh.n == 217
    assert codeletion.value == pytest.approx(0.852, abs=5e-4) and codeletion.n == 233
    for row in (idh, codeletion):
        assert row.value is not None and row.low is not None and row.high is not None
        assert row.low < row.value < row.high < row.low + 0.2


def test_within_lower_grade_both_are_harder(cases: list[CaseResult]) -> None:
    """Recomputed within grade 2 and 3: IDH .81, 1p/19q .73."""
    assert found(score(cases, seed=0), "idh", "auc_lower_grade").value == pytest.approx(0.81, abs=5e-3)
    lower = [case for case in cases if case.labels["grade"] in (0, 1) and case.labels["codeletion"] != MISSING]
    scores = [case.probabilities["codeletion"][1] for case in lower]
    assert auc(scores, [case.labels["codeletion"] == 1 for case in lower]) == pytest.approx(0.73, abs=5e-3)


def test_the_counts_of_one_site_give_the_same(cases: list[CaseResult]) -> None:
    rows = SiteScores.of(cases).rows()
    assert found(rows, "idh", "auc").value == pytest.approx(0.896, abs=5e-4)
    assert found(rows, "idh", "auc").positives == found(score(cases, seed=0), "idh", "auc").positives
