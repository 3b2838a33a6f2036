"""The label table: what is read, and each fault named one by one."""

from pathlib import Path

import pytest

from client.data.manifest import Case, read_cases
from shared_model.config import DataConfig
from shared_model.errors import DataError
from shared_model.tasks import MODALITIES

HEADER = "case,patient,idh,codel_1p19q,grade_histologic,grade_who2021"
ROW = "a-1,p-1,mutant,codeleted,2,2"


def write_site(folder: Path, table: str, names: tuple[str, ...] = ("a-1",), lacks: tuple[str, ...] = ()) -> DataConfig:
    """A site of empty files: the table's reader looks at their presence alone."""
    for name in names:
        (folder / "cases" / name).mkdir(parents=True)
        for part in (*MODALITIES, "seg"):
            if part not in lacks:
                (folder / "cases" / name / f"{name}_{part}.nii.gz").touch()
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    return DataConfig(folder=folder / "cases", labels=folder / "labels.csv")


def test_a_full_row(tmp_path: Path) -> None:
    data = write_site(tmp_path, f"{HEADER}\n{ROW}\n")
    (case,) = read_cases(data, "who2021")
    files = {m: tmp_path / "cases/a-1" / f"a-1_{m}.nii.gz" for m in MODALITIES}
    assert case == Case(
        id="a-1",
        patient="p-1",
        images=files,
        mask=tmp_path / "cases/a-1/a-1_seg.nii.gz",
        regions=("wt", "tc", "et"),
        classes={"idh": 1, "codeletion": 1, "grade": 0},
    )


def test_blank_is_missing_and_never_negative(tmp_path: Path) -> None:
    (case,) = read_cases(write_site(tmp_path, f"{HEADER}\na-1,p-1,,,,\n"), "who2021")
    assert case.classes == {"idh": -1, "codeletion": -1, "grade": -1}


@pytest.mark.parametrize(("edition", "grade"), [("histologic", 1), ("who2021", 2)])
def test_the_grade_edition_chooses_the_column(tmp_path: Path, edition: str, grade: int) -> None:
    (case,) = read_cases(write_site(tmp_path, f"{HEADER}\na-1,p-1,wildtype,intact,3,4\n"), edition)  # type: ignore[arg-type]
    assert case.classes == {"idh": 0, "codeletion": 0, "grade": grade}


def test_byte_order_mark_crlf_blanks_and_other_columns(tmp_path: Path) -> None:
    table = f"\ufeff{HEADER} ,age\r\na-1, p-1 ,Mutant,,2,2,44\r\n\r\n"
    (case,) = read_cases(write_site(tmp_path, table), "who2021")
    assert (case.patient, case.classes["idh"], case.classes["codeletion"]) == ("p-1", 1, -1)


def test_absent_modalities(tmp_path: Path) -> None:
    data = write_site(tmp_path, f"{HEADER},absent\n{ROW},t1+t2\n", lacks=("t1", "t2"))
    assert tuple(read_cases(data, "who2021")[0].images) == ("t1ce", "flair")


def test_a_case_without_a_mask(tmp_path: Path) -> None:
    (case,) = read_cases(write_site(tmp_path, f"{HEADER},mask\n{ROW},no\n", lacks=("seg",)), "who2021")
    assert (case.mask, case.regions) == (None, ())


def test_whole_tumour_masks_tell_one_region(tmp_path: Path) -> None:
    data = write_site(tmp_path, f"{HEADER}\n{ROW}\n").model_copy(update={"masks": "whole-tumor"})
    assert read_cases(data, "who2021")[0].regions == ("wt",)


def test_configured_cases_alone_are_read(tmp_path: Path) -> None:
    data = write_site(tmp_path, f"{HEADER}\nno-files,p-0,,,,\n{ROW}\n").model_copy(update={"cases": ("a-1",)})
    assert [case.id for case in read_cases(data, "who2021")] == ["a-1"]


FAULTS = {
    "no-column": ("case,patient,idh\na-1,p-1,\n", ("column 'codel_1p19q' is missing", "Add it")),
    "column-twice": (f"{HEADER},idh\n{ROW},\n", ("column 'idh' stands twice", "Keep one")),
    "no-rows": (f"{HEADER}\n", ("the site has no cases", "Add a row")),
    "empty-file": ("", ("column 'case' is missing", "Add it")),
    "too-few-fields": (f"{HEADER}\na-1,p-1\n", ("row 2: not as many fields", "commas")),
    "too-many-fields": (f"{HEADER}\n{ROW},1,2\n", ("row 2: not as many fields", "commas")),
    "duplicate": (f"{HEADER}\n{ROW}\n{ROW}\n", ("row 3, column case: 'a-1' stands in row 2 too", "Keep one row")),
    "no-patient": (f"{HEADER}\na-1,,,,,\n", ("row 2, column patient: blank", "pseudonym")),
    "idh": (f"{HEADER}\na-1,p-1,NOS,,,\n", ("row 2, column idh: 'NOS'", "wildtype, mutant, or nothing")),
    "codel": (f"{HEADER}\na-1,p-1,,unknown,,\n", ("column codel_1p19q: 'unknown'", "intact, codeleted, or nothing")),
    "grade": (f"{HEADER}\na-1,p-1,,,,1\n", ("column grade_who2021: '1'", "2, 3, 4, or nothing")),
    "other-grade": (f"{HEADER}\na-1,p-1,,,IV,\n", ("column grade_histologic: 'IV'", "2, 3, 4, or nothing")),
    "conflict": (f"{HEADER}\na-1,p-1,wildtype,codeleted,,\n", ("row 2", "conflict", "blank the one that is wrong")),
    "traversal": (f"{HEADER}\n../a-1,p-1,,,,\n", ("row 2, column case: '../a-1'", "Use letters")),
    "absolute": (f"{HEADER}\n/a-1,p-1,,,,\n", ("row 2, column case: '/a-1'", "Use letters")),
    "no-name": (f"{HEADER}\n,p-1,,,,\n", ("row 2, column case: ''", "Use letters")),
    "all-absent": (f"{HEADER},absent\n{ROW},t1+t1ce+t2+flair\n", ("column absent: all four", "Take this case out")),
    "absent-word": (f"{HEADER},absent\n{ROW},t1c\n", ("column absent: 't1c'", "t1, t1ce, t2, flair")),
    "mask-word": (f"{HEADER},mask\n{ROW},maybe\n", ("column mask: 'maybe'", "Write yes, no")),
}


@pytest.mark.parametrize(("table", "said"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_table_is_named(tmp_path: Path, table: str, said: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        read_cases(write_site(tmp_path, table), "who2021")
    message = str(caught.value)
    assert str(tmp_path / "labels.csv") in message and "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(("part", "remedy"), [("t2", "name t2 in the case's column 'absent'"), ("seg", "write no")])
def test_a_missing_file_is_named(tmp_path: Path, part: str, remedy: str) -> None:
    with pytest.raises(DataError, match=f"a-1_{part}.nii.gz: no such file .*row 2.*{remedy}"):
        read_cases(write_site(tmp_path, f"{HEADER}\n{ROW}\n", lacks=(part,)), "who2021")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    data = DataConfig(folder=tmp_path, labels=tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"nowhere.csv: no such label table. Check data.labels"):
        read_cases(data, "who2021")


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    data = write_site(tmp_path, "")
    data.labels.write_bytes(f"{HEADER}\na-1,M\xfcller,,,,\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels.csv: cannot be read as a CSV in UTF-8.*Save it as CSV in UTF-8"):
        read_cases(data, "who2021")


@pytest.mark.parametrize(("chosen", "said"), [(("b-2",), "'b-2' is configured but not in"), ((), "has no cases")])
def test_configured_cases_must_be_there(tmp_path: Path, chosen: tuple[str, ...], said: str) -> None:
    data = write_site(tmp_path, f"{HEADER}\n{ROW}\n").model_copy(update={"cases": chosen})
    with pytest.raises(DataError, match=said):
        read_cases(data, "who2021")
