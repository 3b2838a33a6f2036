"""Real label tables, row by row: every row is a record or is left out with a reason, and the counts are those seen."""

from collections import Counter
from pathlib import Path

import pytest

from client.data.cases import LABELS, LeftOut
from client.data.datasets import dataset
from client.data.datasets.tables import Record, read_records
from client.data.identity import SITE, Mapping, key
from server.simulation.partition import read_partition
from tests.real import real_data

TABLES = {
    "ucsf-pdgm": "UCSF-PDGM-metadata_v5.csv",
    "upenn-gbm": "UPENN-GBM_clinical_info_v2.1.csv",
    "utsw-glioma": "UTSW_Glioma_Metadata-2-1.tsv",
    "tcga-gbm": "tcga_2021_who_labels.csv",
    "tcga-lgg": "tcga_2021_who_labels.csv",
    "ivy-gap": "PrognosAIs_included_patient_labels.csv",
}
ROWS = {"ucsf-pdgm": 501, "upenn-gbm": 671, "utsw-glioma": 625, "tcga-gbm": 1322, "tcga-lgg": 1322, "ivy-gap": 627}
RECORDS = {"ucsf-pdgm": 501, "upenn-gbm": 671, "utsw-glioma": 625, "tcga-gbm": 656, "tcga-lgg": 656, "ivy-gap": 39}


def records(name: str) -> tuple[list[Record], list[LeftOut]]:
    return read_records(dataset(name), real_data("tables") / TABLES[name], {})


def counted(found: list[Record], label: str) -> dict[str, int]:
    counts = Counter(record.labels[label] for record in found)
    return {name: counts[index] for index, name in enumerate(LABELS[label])}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_accounted_for(name: str) -> None:
    found, left_out = records(name)
    path = real_data("tables") / TABLES[name]
    lines = {f"{path}: row {number}" for number in range(2, ROWS[name] + 2)}
    accounted = [record.where for record in found] + [left.what for left in left_out]
    assert len(accounted) == len(set(accounted)) == ROWS[name]
    assert set(accounted) == lines
    assert len(found) == RECORDS[name]
    assert all(left.why for left in left_out)


def test_ucsf() -> None:
    found, _ = records("ucsf-pdgm")
    assert counted(found, "idh") == {"wildtype": 398, "mutant": 103}
    assert counted(found, "codeletion") == {"intact": 395, "codeleted": 9}  # and 6 "relative", 91 unknown
    assert counted(found, "grade_who2021") == {"2": 56, "3": 43, "4": 402}
    assert counted(found, "grade_histologic") == {"2": 0, "3": 0, "4": 0}
    assert len({key(record.name).split("_")[0] for record in found}) == 495
    assert sum(len(record.also) for record in found) == 298


def test_ucsf_with_relative_codeletion_asked_for() -> None:
    """Six rows: two astrocytomas, and four oligodendrogliomas that are 1p/19q-codeleted by their diagnosis."""
    read_as = {"codeletion": {"relative co-deletion": "codeleted"}}
    found, _ = read_records(dataset("ucsf-pdgm"), real_data("tables") / TABLES["ucsf-pdgm"], read_as)
    assert counted(found, "codeletion") == {"intact": 395, "codeleted": 15}
    assert counted(found, "idh") == {"wildtype": 398, "mutant": 103}


def test_upenn() -> None:
    found, _ = records("upenn-gbm")
    assert counted(found, "idh") == {"wildtype": 546, "mutant": 19}  # and 106 NOS/NEC
    assert sum(record.name.endswith("_11") for record in found) == 611
    assert counted(found, "grade_who2021")["4"] == 671
    assert counted(found, "codeletion") == {"intact": 0, "codeleted": 0}


def test_utsw() -> None:
    found, _ = records("utsw-glioma")
    assert counted(found, "idh") == {"wildtype": 446, "mutant": 176}
    assert counted(found, "codeletion") == {"intact": 272, "codeleted": 63}
    assert counted(found, "grade_histologic") == {"2": 101, "3": 97, "4": 420}


def test_tcga() -> None:
    found, left_out = records("tcga-gbm")
    assert len(left_out) == 1322 - 656 and all("further row" in left.why for left in left_out)
    assert sum(counted(found, "codeletion").values()) == 652
    assert counted(found, "codeletion")["codeleted"] == 141
    editions = Counter((record.labels["grade_histologic"], record.labels["grade_who2021"]) for record in found)
    assert editions[(0, 2)] + editions[(1, 2)] > 40  # IDH-wildtype of histologic grade 2 and 3
    assert editions[(2, 1)] == 1  # TCGA-08-0344, a glioblastoma by histology, an oligodendroglioma by its 1p/19q


def test_ivy_gap() -> None:
    found, left_out = records("ivy-gap")
    assert sum(counted(found, "idh").values()) == 38 and sum(counted(found, "codeletion").values()) == 30
    assert all("Data Collection is" in left.why for left in left_out)


def test_one_patient_of_the_real_tables_is_codeleted_and_wildtype() -> None:
    found = {
        (name, record.name)
        for name in TABLES
        for record in records(name)[0]
        if record.labels["codeletion"] == 1 and record.labels["idh"] == 0
    }
    assert found == {("ivy-gap", "W2")}


def test_the_brats_mapping() -> None:
    mapping = Mapping(real_data("tables") / "BraTS21-17_Mapping.csv")
    assert len(mapping.rows) == 1255
    assert len({name for name in mapping.names if name.startswith("brats2021_")}) == 1251
    assert mapping.all_names(["TCGA-CS-4942"]) >= {"tcga-cs-4942", "brats2021_1476"}
    cohorts = Counter(row["Cohort Name (if publicly available)"] for _, row in mapping.rows)
    assert (cohorts["TCGA-GBM"], cohorts["TCGA-LGG"], cohorts["IvyGAP"]) == (102, 65, 34)


def test_the_institutions_of_fets() -> None:
    path = real_data("tables") / "FeTS2022_partitioning_1.csv"
    partition = read_partition(path)
    sizes = sorted(Counter(partition.values()).values(), reverse=True)
    assert len(partition) == 1251
    assert sizes == [511, 382, 47, 35, 35, 34, 33, 30, 22, 15, 14, 13, 12, 11, 9, 8, 8, 7, 6, 6, 5, 4, 4]


def test_fets_numbers_its_cases_as_brats_2021_does() -> None:
    """Each institution of FeTS is one institution of the mapping, under the same case numbers."""
    mapping = Mapping(real_data("tables") / "BraTS21-17_Mapping.csv")
    sites = {key(row["BraTS2021"]): row[SITE] for _, row in mapping.rows}
    pairs = {
        (institution, sites[key(subject.replace("FeTS2022", "BraTS2021"))])
        for subject, institution in read_partition(real_data("tables") / "FeTS2022_partitioning_1.csv").items()
    }
    assert len(pairs) == 23


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    from client.data.reading import read
    from shared_model.config import DataConfig
    from shared_model.errors import DataError

    (tmp_path / "UCSF-PDGM-0004_nifti").mkdir()
    with pytest.raises(DataError, match=r"UCSF-PDGM-metadata_v5.csv: no such label table. .*data.labels"):
        read(DataConfig(layout="ucsf-pdgm", folder=tmp_path))
