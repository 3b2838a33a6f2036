"""Splits: by patient, stratified, seeded, and kept when patients come and go."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.cases import UNKNOWN, Case
from client.data.split import split, stored_split
from shared_model.errors import DataError


def case(patient: str, idh: int = -1, grade: int = -1, exam: str = "") -> Case:
    labels = {**UNKNOWN, "idh": idh, "grade_who2021": grade}
    return Case(id=f"{patient}{exam}", patient=patient, images={}, mask=None, labels=labels)


def cohort(n: int, seed: int = 0) -> list[Case]:
    rng = np.random.default_rng(seed)
    return [case(f"p-{i}", int(rng.integers(-1, 2)), int(rng.integers(-1, 3))) for i in range(n)]


@given(st.integers(1, 300), st.sampled_from([0.0, 0.1, 0.2, 0.5]), st.integers(0, 5))
def test_the_share_is_met_to_half_a_patient_in_all_and_one_in_each_stratum(n: int, share: float, seed: int) -> None:
    cases = cohort(n, seed)
    training, held_out = split(cases, share, seed)
    assert len(training) + len(held_out) == n
    assert abs(len(held_out) - share * n) <= 0.5
    every, out = (Counter(tuple(c.classes.values()) for c in part) for part in (cases, held_out))
    assert all(abs(out[stratum] - share * count) <= 1 for stratum, count in every.items())


@given(st.integers(1, 60), st.integers(0, 9))
def test_all_exams_of_a_patient_fall_on_one_side(n: int, seed: int) -> None:
    cases = [case(f"p-{i // 2}", exam=f"-{i}") for i in range(n)]
    training, held_out = split(cases, 0.3, seed)
    assert not {c.patient for c in training} & {c.patient for c in held_out}


def test_another_seed_draws_others_and_the_order_of_the_table_counts_for_nothing() -> None:
    cases = cohort(100)
    drawn = {tuple(sorted(c.id for c in split(cases, 0.2, seed)[1])) for seed in range(4)}
    assert len(drawn) == 4
    shuffled = list(np.random.default_rng(1).permutation(np.array(cases, object)))
    assert {c.id for c in split(shuffled, 0.2, 0)[1]} == {c.id for c in split(cases, 0.2, 0)[1]}


def test_a_stored_draw_stays_when_patients_come_and_go(tmp_path: Path) -> None:
    cases = cohort(50)
    _, first = stored_split(tmp_path, cases, 0.2, 3)
    grown = [*cases[5:], *(case(f"new-{i}", 1, 2) for i in range(50))]
    _, second = stored_split(tmp_path, grown, 0.2, 3)
    old = {c.id for c in cases[5:]}
    assert {c.id for c in second} & old == {c.id for c in first} & old
    assert 17 <= len(second) <= 21
    _, third = stored_split(tmp_path, cases, 0.2, 3)
    assert {c.id for c in third} == {c.id for c in first}  # also those who were gone for a while


def test_a_stored_draw_names_no_patient_and_a_torn_one_is_refused(tmp_path: Path) -> None:
    stored_split(tmp_path, cohort(20), 0.2, 3)
    (path,) = (tmp_path / "splits").iterdir()
    assert "p-1" not in path.read_text()
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        stored_split(tmp_path, cohort(20), 0.2, 3)
