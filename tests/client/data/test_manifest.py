"""The label table: what is read, and each fault named one by one."""

from pathlib import Path

import pytest

from client.data.cases import Case, LeftOut
from client.data.reading import read, read_cases
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
        labels={"idh": 1, "codeletion": 1, "grade_histologic": 0, "grade_who2021": 0},
    )
    assert case.regions == ("wt", "tc", "et")
    assert case.classes == {"idh": 1, "codeletion": 1, "grade": 0}


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


def test_paths_in_the_table_and_blanks_for_what_a_case_lacks(tmp_path: Path) -> None:
    table = f"{HEADER},t1,t1ce,t2,flair,seg\n{ROW},,a-1/a-1_t1ce.nii.gz,,a-1/a-1_flair.nii.gz,\n"
    (case,) = read_cases(write_site(tmp_path, table, lacks=("t1", "t2", "seg")), "who2021")
    assert case.images == {m: tmp_path / "cases/a-1" / f"a-1_{m}.nii.gz" for m in ("t1ce", "flair")}
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
    "all-absent": (f"{HEADER},t1,t1ce,t2,flair,seg\n{ROW},,,,,\n", ("row 2: all four", "Take this case out")),
    "some-paths": (f"{HEADER},t1,t2\n{ROW},,\n", ("column 't1ce' is missing", "t1, t1ce, t2, flair, seg, or none")),
    "shared-file": (
        f"{HEADER},t1,t1ce,t2,flair,seg\n{ROW},a-1/a-1_t1.nii.gz,,a-1/a-1_t1.nii.gz,,\n",
        ("a-1_t1.nii.gz: is named 2 times", "its own file"),
    ),
}


@pytest.mark.parametrize(("table", "said"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_table_is_named(tmp_path: Path, table: str, said: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        read_cases(write_site(tmp_path, table), "who2021")
    message = str(caught.value)
    assert str(tmp_path) in message and "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize("part", ["t2", "seg"])
def test_a_missing_file_is_named(tmp_path: Path, part: str) -> None:
    with pytest.raises(DataError, match=f"a-1_{part}.nii.gz: no such file, named in row 2 of labels.csv.*blank"):
        read_cases(write_site(tmp_path, f"{HEADER}\n{ROW}\n", lacks=(part,)), "who2021")


def test_every_faulty_row_is_found_at_once(tmp_path: Path) -> None:
    table = f"{HEADER}\n{ROW}\nb-2,p-2,NOS,,,\nc-3,,,,,\nd-4,p-4,,,,\n"
    reading = read(write_site(tmp_path, table, names=("a-1", "b-2", "c-3")))
    assert [case.id for case in reading.cases] == ["a-1"]
    assert [finding.severity for finding in reading.findings] == ["error"] * 3
    for finding, said in zip(reading.findings, ("row 3, column idh", "row 4, column patient", "d-4_t1"), strict=True):
        assert said in finding.where and finding.remedy


def test_excluded_patients_are_left_out_by_name(tmp_path: Path) -> None:
    table = f"{HEADER}\n{ROW}\nb-2,p-2,,,,\nb-3,p-2,,,,\n"
    data = write_site(tmp_path, table, names=("a-1", "b-2", "b-3"))
    (tmp_path / "withdrawn.txt").write_text("# consent withdrawn\n\np-2\n", encoding="utf-8")
    reading = read(data.model_copy(update={"exclude": tmp_path / "withdrawn.txt"}))
    assert [case.id for case in reading.require()] == ["a-1"]
    assert reading.left_out == [LeftOut("b-2", "excluded"), LeftOut("b-3", "excluded")]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    data = DataConfig(folder=tmp_path, labels=tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"nowhere.csv: no such label table. Check data.labels"):
        read_cases(data, "who2021")


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    data = write_site(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes(f"{HEADER}\na-1,M\xfcller,,,,\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels.csv: cannot be read as a CSV in UTF-8.*Save it as CSV in UTF-8"):
        read_cases(data, "who2021")


@pytest.mark.parametrize(("chosen", "said"), [(("b-2",), "'b-2' is configured but not in"), ((), "has no cases")])
def test_configured_cases_must_be_there(tmp_path: Path, chosen: tuple[str, ...], said: str) -> None:
    data = write_site(tmp_path, f"{HEADER}\n{ROW}\n").model_copy(update={"cases": chosen})
    with pytest.raises(DataError, match=said):
        read_cases(data, "who2021")
