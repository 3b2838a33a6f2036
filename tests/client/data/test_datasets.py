"""Descriptions of public data sets: strict, and the page is made from them."""

from pathlib import Path

import pytest

from client.data.cases import UNKNOWN, Case
from client.data.datasets import Dataset, dataset, datasets
from client.data.datasets.page import page
from client.data.datasets.tables import meaning
from client.data.identity import key, same_people
from server.simulation.partition import REST, TISSUE_SOURCE_SITE, partition, read_partition
from shared_model.config import load_config
from shared_model.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_made_from_the_descriptions() -> None:
    assert (ROOT / "docs" / "datasets.md").read_text() == page()


def test_the_sets_that_researchers_ask_for_are_described() -> None:
    assert set(datasets()) == {
        *("ucsf-pdgm", "upenn-gbm", "egd", "tcga-gbm", "tcga-lgg", "ivy-gap", "rhuh-gbm", "utsw-glioma"),
        *("brats-2020", "brats-2021", "fets-2022", "brats-2023"),
    }


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'brats' is not known. Use one of manifest, bids, brats-2020"):
        dataset("brats")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("t1ce:", "t1gd:"), "images: give t1, t1ce, t2, flair"),
        (("mutated: mutant", "mutated: mutated"), "idh: 'mutated' is no class; known are wildtype, mutant, unknown"),
        (("    idh:", "    mgmt:"), "'mgmt' is no label"),
        ((r"BT\d{4}", r"BT(\d{4}"), "no regular expression"),
        (("mask_values: regions", "mask_values: 1/2/5"), "mask_values"),
        (("title:", "titel: x\ntitle:"), "titel"),
    ],
)
def test_a_faulty_description_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = (ROOT / "client/data/datasets/utsw-glioma.yaml").read_text()
    assert change[0] in text
    (tmp_path / "x.yaml").write_text(text.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_config(Dataset, tmp_path / "x.yaml")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_words_mean_what_the_description_or_the_user_says() -> None:
    table = dataset("ucsf-pdgm").table
    assert table is not None
    column = table.labels["codeletion"]
    assert meaning("codeletion", column, "Co-deletion", "x", {}) == 1
    assert meaning("codeletion", column, "relative co-deletion", "x", {}) == -1
    asked = {"codeletion": {"relative co-deletion": "codeleted"}}
    assert meaning("codeletion", column, "relative co-deletion", "x", asked) == 1
    assert meaning("codeletion", column, "", "x", {}) == -1
    with pytest.raises(DataError, match=r"x, column 1p/19q: 'maybe' is not known. Say what it means in data.read_as"):
        meaning("codeletion", column, "maybe", "x", {})
    with pytest.raises(DataError, match=r"data.read_as.codeletion: 'yes' is no class"):
        meaning("codeletion", column, "maybe", "x", {"codeletion": {"maybe": "yes"}})


def test_leading_zeros_do_not_part_a_patient() -> None:
    assert key("UCSF-PDGM-004") == key("ucsf-pdgm-0004 ") != key("UCSF-PDGM-040")


def test_people_are_joined_over_any_chain_of_names() -> None:
    person = same_people([{"a", "b"}, {"c", "d"}, {"b", "c"}, {"e"}])
    assert len({person[name] for name in "abcd"}) == 1 and person["e"] != person["a"]


def case(name: str) -> Case:
    return Case(id=name, patient=name, images={}, mask=None, labels=UNKNOWN)


def test_small_institutions_become_one_site(tmp_path: Path) -> None:
    rows = "\n".join(f"{1 if n < 5 else n},FeTS2022_{n:05d}" for n in range(8))
    (tmp_path / "p.csv").write_text(f"Partition_ID,Subject_ID\n{rows}\n")
    sites = partition([case(f"FeTS2022_{n:05d}") for n in range(8)], tmp_path / "p.csv", 3)
    assert {name: len(cases) for name, cases in sites.items()} == {"institution-1": 5, REST: 3}
    with pytest.raises(DataError, match="'FeTS2022_00009' is not in it"):
        partition([case("FeTS2022_00009")], tmp_path / "p.csv", 3)
    (tmp_path / "p.csv").write_text("Partition_ID,Subject_ID\n1,a\n2,a\n")
    with pytest.raises(DataError, match="'a' stands twice"):
        read_partition(tmp_path / "p.csv")


def test_tcga_by_tissue_source_site() -> None:
    cases = [case(name) for name in ("TCGA-CS-4942", "TCGA-CS-4944", "TCGA-06-0001", "TCGA-DU-7294", "TCGA-DU-7295")]
    sites = partition(cases, TISSUE_SOURCE_SITE, 2)
    assert {name: len(part) for name, part in sites.items()} == {"others": 1, "tcga-cs": 2, "tcga-du": 2}
    with pytest.raises(DataError, match="no tissue source site"):
        partition([case("BT0001")], TISSUE_SOURCE_SITE, 2)
