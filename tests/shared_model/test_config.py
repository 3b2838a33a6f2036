"""Configs say what is wrong, where, and what is known; and nothing wrong gets through."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.config import load_site
from client.data.datasets import dataset
from server.simulation.preparation import load_plan
from shared_model.config import Plan, SimulationPlan, TrainingConfig, load_config, parse_config
from shared_model.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
GOOD = "plan: {name: a, synthetic: true}\nphantoms: {}\n"

BAD = {
    "unknown key": (
        "plan: {name: a, synthetic: true, training: {lr: 1}}\nphantoms: {}",
        r"plan.training.lr: unknown key. Known here are local_steps, batch_size",
    ),
    "unknown top": (GOOD + "sitez: []", r"sitez: unknown key. Known here are plan, phantoms, sites"),
    "missing": ("plan: {name: a}\nphantoms: {}", r"plan.synthetic: missing"),
    "twice": (GOOD + "phantoms: {}", r"line 3: 'phantoms' stands twice"),
    "number": ("plan: {name: a, synthetic: true, rounds: many}\nphantoms: {}", r"plan.rounds: input should be a valid"),
    "range": (
        "plan: {name: a, synthetic: true, rounds: 0}\nphantoms: {}",
        r"plan.rounds: .*greater than or equal to 1",
    ),
    "NaN": ("plan: {name: a, synthetic: true, round_minutes: .nan}\nphantoms: {}", r"plan.round_minutes: .*finite"),
    "crop": (
        "plan: {name: a, synthetic: true, training: {crop: [48, 64, 64]}}\nphantoms: {}",
        r"plan.training: crop: 48 is no positive multiple of 32",
    ),
    "tiny crop": (
        "plan: {name: a, synthetic: true, training: {crop: [32, 32, 32]}}\nphantoms: {}",
        r"one side must be 64",
    ),
    "task": ("plan: {name: a, synthetic: true, tasks: [wt, mgmt]}\nphantoms: {}", r"'mgmt' is no task; known are wt"),
    "name": ("plan: {name: ../a, synthetic: true}\nphantoms: {}", r"plan.name: "),
    "variants": (
        "plan: {name: a, synthetic: true, model: {tumor_aware: as-coded}}\nphantoms: {}",
        r"mix ours with as-coded",
    ),
    "both": (
        GOOD + "sites: [{site: a, data: {folder: a, labels: b}, tasks: [wt]}]",
        r"give either phantoms, or sites and partitions",
    ),
    "real but synthetic": (
        "plan: {name: a, synthetic: true}\nsites: [{site: a, data: {folder: a, labels: b}, tasks: [wt]}]\n"
        "test: [{folder: a, labels: b}]",
        r"plan.synthetic must be true with phantoms and false with sites",
    ),
    "list": ("- a\n- b", r"holds no mapping"),
    "YAML": ("plan: {name: [", r"bad YAML"),
    "object": ("plan: !!python/object/apply:os.system ['true']", r"bad YAML"),
    "number key": ("1: 2", r"key 1 is no text"),
    "empty": ("", r"holds no mapping"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_plan_is_one_line_that_names_file_and_field(fault: str, tmp_path: Path) -> None:
    text, message = BAD[fault]
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(SimulationPlan, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(Plan, tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        load_config(Plan, tmp_path / "bytes.yaml")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_is_taken_or_refused_by_name(values: object) -> None:
    with pytest.raises(ConfigError, match=r"^source"):
        parse_config(SimulationPlan, values, "source")


def test_every_shipped_plan_loads() -> None:
    plans = [ROOT / "server/simulation/demo.yaml", ROOT / "benchmarks/quality.yaml"]
    plans += sorted((ROOT / "site_configs" / "simulation").glob("*.yaml"))
    assert len(plans) > 5
    for path in plans:
        load_plan(path)


def test_every_shipped_hospital_config_loads() -> None:
    (path,) = (ROOT / "site_configs" / "hospital").glob("*.yaml")
    config = load_site(path)
    assert config.raw is not None and config.data.folder == path.parent / "prepared/cases"
    assert config.data.exclude == path.parent / "withdrawn.txt"


@pytest.mark.parametrize("name", ["public-sets", "fets-institutions", "tcga-sites"])
def test_every_layout_of_a_shipped_plan_is_described(name: str) -> None:
    plan = load_plan(ROOT / "site_configs" / "simulation" / f"{name}.yaml")
    entries = [*(site.data for site in plan.sites), *(entry.data for entry in plan.partitions), *plan.test]
    for data in entries:
        assert dataset(data.layout) and all(dataset(source) for source in data.label_tables)
        assert data.mapping == plan.mapping


def test_relative_paths_are_taken_from_the_plans_folder(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(
        "plan: {name: a, synthetic: false}\n"
        "sites: [{site: a, data: {folder: cases, labels: /tables/labels.csv}, tasks: [wt]}]\n"
        "test: [{folder: held-out, labels: held-out.csv}]\n"
    )
    plan = load_plan(path)
    assert plan.sites[0].data.folder == tmp_path / "cases"
    assert plan.sites[0].data.labels == Path("/tables/labels.csv")
    assert plan.test[0].folder == tmp_path / "held-out"


def test_equal_configs_have_equal_digests_and_others_not() -> None:
    first = parse_config(Plan, {"name": "a", "synthetic": True}, "")
    same = parse_config(Plan, {"synthetic": True, "name": "a", "rounds": 10}, "")
    other = parse_config(Plan, {"name": "a", "synthetic": True, "rounds": 11}, "")
    assert first.digest() == same.digest() != other.digest()


def test_task_weights_name_every_task() -> None:
    with pytest.raises(ConfigError, match="no weight for tc"):
        parse_config(TrainingConfig, {"task_weights": {"wt": 1}}, "x")


def test_a_mistyped_key_is_told_before_the_one_that_is_missing_for_it() -> None:
    with pytest.raises(ConfigError, match="x: synthetik: unknown key"):
        parse_config(Plan, {"name": "a", "synthetik": True}, "x")
