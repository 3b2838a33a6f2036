"""A released model: chosen by the rule that the plan fixed, signed as a whole, and without a site's name."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.prediction import load_released
from server.card import card
from server.cli import app
from server.coordinator import Coordinator
from server.release import release
from shared_model.checkpoint import MANIFEST, MODEL, read_model
from shared_model.config import ModelConfig, Plan, SiteConfig, parse_config
from shared_model.errors import ConfigError, MtsunetError, RunError
from shared_model.metrics import AucCount, DiceSum
from shared_model.network import build_network
from shared_model.parameters import digest, load_shared, shared_state
from shared_model.released import CARD, RELEASED, SIGNATURE, Released, parse_released
from shared_model.scores import SiteScores
from shared_model.signing import release_is_genuine, release_public_key
from tests.federation import Cohort, InProcess, federate, small_simulation, start
from tests.released import RUN, coordinator, written_run

CASES = {"alder": {"trunk": 11, "wt": 11, "idh": 11}, "birch": {"trunk": 22, "wt": 22}}


def scores(*dice: float, auc: AucCount | None = None) -> SiteScores:
    return SiteScores(dice={"wt": DiceSum.of(dice)} if dice else {}, auc={"idh": auc} if auc else {})


ROUNDS: tuple[dict[str, SiteScores], ...] = (
    # Means of sites 1 and 0.25: their mean is 0.625, the mean over the four cases 0.4375.
    {"alder": scores(1.0, auc=AucCount.of([0.9, 0.1], [True, False])), "birch": scores(0.25, 0.25, 0.25)},
    {"alder": scores(0.5), "birch": scores(0.5, 0.5, 0.5)},
    {"alder": scores(0.5), "birch": scores(0.25, 0.5, 0.75)},
    {"alder": scores(0.5), "birch": scores()},
    {},
)
"""The last round was evaluated by nobody."""


def plan(**fields: Any) -> Plan:
    return small_simulation(rounds=len(ROUNDS), **fields).plan


def read(place: Path) -> Released:
    return parse_released((place / MANIFEST).read_bytes(), str(place))


@pytest.fixture
def server(tmp_path: Path) -> Coordinator:
    return coordinator(tmp_path / "coordinator")


def write(server: Coordinator, wanted: Plan, closed: bool = True) -> None:
    written_run(server.folder / "runs" / RUN, wanted, ROUNDS, CASES, closed)


def test_best_is_the_highest_over_all_cases_and_of_equals_the_later(server: Coordinator) -> None:
    write(server, plan(release={"rule": "best", "task": "wt"}))
    place = release(server, RUN)
    found = read(place)
    assert found.round == 4  # 0.4375, 0.5, 0.5, 0.5
    assert found.chosen.rule == "best"
    assert found.chosen.by is not None and found.chosen.by.value == 0.5
    np.testing.assert_array_equal(read_model(place)["missing_token"], np.arange(4) + 4)


def test_an_interval_of_the_card_by_hand(server: Coordinator) -> None:
    """0.5, 0.25, 0.5, 0.75: variance 2 x 0.0625 / 3, so 1.96 x 0.2041 / 2 = 0.200 to each side."""
    write(server, plan())
    text = (release(server, RUN, 3) / CARD).read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| all sites")]
    assert row.split(" | ")[1] == "0.500 (0.300 to 0.700), n = 4"
    assert set(row.split(" | ")[2:]) == {"not disclosed", "not disclosed |"}
    assert "by hand" in text and "the plan's rule" in text


def test_best_of_a_class_task_looks_at_the_auc(server: Coordinator) -> None:
    write(server, plan(release={"rule": "best", "task": "idh"}))
    found = read(release(server, RUN))
    assert found.round == 1
    assert found.chosen.by is not None and (found.chosen.by.metric, found.chosen.by.value) == ("auc", 1.0)


def test_last_is_the_last_that_some_site_evaluated(server: Coordinator) -> None:
    write(server, plan())
    place = release(server, RUN)
    found = read(place)
    assert (found.round, found.chosen.rule, found.chosen.by) == (4, "last", None)
    assert (found.sites, found.cases) == (2, {"trunk": 33, "wt": 33, "idh": 11})
    text = (place / CARD).read_text()
    assert text.count("updates were not differentially private |") == 2
    training = [line for line in text.splitlines() if line.startswith("| site") and "private" in line]
    assert sorted(line.split(" | ")[1] for line in training) == ["11", "22"]
    assert re.search(r"\| site [12] \| 22 \| not trained ", text)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rule": "best"}, r"plan: release: task: missing, the rule best looks at one\."),
        ({"task": "wt"}, r"plan: release: task: the rule last looks at none; leave it out, or set rule to best\."),
        ({"rule": "best", "task": "mgmt"}, r"plan: release\.task: 'mgmt' is no task of this plan\."),
        ({"rule": "first"}, r"plan: release\.rule: "),
        ({"metric": "dice"}, r"plan: release\.metric: unknown key\. Known here are rule, task"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_with_the_plan(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_config(Plan, {"name": "a", "synthetic": True, "release": values}, "plan")


def test_each_fault_is_one_line_with_a_remedy(server: Coordinator) -> None:
    with pytest.raises(MtsunetError, match="is not known here"):
        release(server, RUN)
    written_run(server.folder / "runs" / RUN, plan(), (), {}, closed=False)
    with pytest.raises(RunError, match=r"no committed round\. Let it come to its end"):
        release(server, RUN)
    write(server, plan(release={"rule": "best", "task": "et"}), closed=False)
    with pytest.raises(RunError, match="is not closed yet"):
        release(server, RUN)
    write(server, plan(release={"rule": "best", "task": "et"}))
    with pytest.raises(RunError, match="no site disclosed a result of 'et'"):
        release(server, RUN)
    for strange in (0, len(ROUNDS) + 1):
        with pytest.raises(RunError, match=f"has no round {strange}. Name one from 1 to 5"):
            release(server, RUN, strange)
    assert not (server.folder / "releases").exists()


def test_a_release_is_never_replaced(server: Coordinator) -> None:
    write(server, plan())
    place = release(server, RUN, 1)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.raises(RunError, match=r"released already\. Keep it: a release is never replaced"):
        release(server, RUN)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert sorted(before) == sorted(RELEASED)
    assert [path.name for path in place.parent.iterdir()] == [RUN]


def test_best_with_no_evaluation_at_all_asks_for_a_hand(server: Coordinator) -> None:
    written_run(server.folder / "runs" / RUN, plan(), [{}], CASES)
    with pytest.raises(RunError, match=r"no site evaluated the model of any round\. Name a round with --round"):
        release(server, RUN)
    assert "not disclosed" in (release(server, RUN, 1) / CARD).read_text()


def test_pretrained_weights_stand_on_the_card_with_their_licence(server: Coordinator) -> None:
    write(server, plan())
    for path in (server.folder / "runs" / RUN / "rounds").glob(f"*/{MANIFEST}"):
        values = json.loads(path.read_bytes())
        values["about"]["pretrained"] = {"sha256": "ab" * 32}
        path.write_text(json.dumps(values))
    text = (release(server, RUN) / CARD).read_text()
    assert f"BrainSegFounder weights (sha256 {'ab' * 32}). Their licence" in text


def test_the_command(server: Coordinator, capsys: pytest.CaptureFixture[str]) -> None:
    (server.folder / "config.yaml").write_text("names: [localhost]\nport: 1\nadmin_port: 2\n")
    write(server, plan())
    app(["release", RUN, "--folder", str(server.folder), "--round", "2"], standalone_mode=False)
    assert f"--get {RUN}" in capsys.readouterr().out
    assert read(server.folder / "releases" / RUN).round == 2


@pytest.fixture(scope="module")
def trained(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Coordinator, Path, list[SiteConfig]]:
    """A real run, its release, and the configs of its sites."""
    folder = tmp_path_factory.mktemp("trained")
    made = coordinator(folder / "coordinator")
    configs = cohort.configs(folder / "joined")
    store = start(made.folder / "runs" / RUN, small_simulation(rounds=1).plan)
    federate(store, InProcess(configs))
    return made, release(made, RUN), configs


def test_the_signature_covers_every_byte(trained: Any) -> None:
    made, place, _ = trained
    key = release_public_key(made.release_key)
    manifest, signature = (place / MANIFEST).read_bytes(), (place / SIGNATURE).read_text()
    assert release_is_genuine(key, manifest, signature)
    for position in range(len(manifest)):
        spoiled = bytearray(manifest)
        spoiled[position] ^= 1
        assert not release_is_genuine(key, bytes(spoiled), signature)
    found = read(place)
    for name, expected in ((CARD, found.card_sha256), (MODEL, found.sha256)):
        assert expected == hashlib.sha256((place / name).read_bytes()).hexdigest()


def test_a_release_is_enough_to_build_the_network(trained: Any) -> None:
    """And what `mtsunet-client predict` does with it."""
    _, place, _ = trained
    found, tensors = read(place), read_model(place)
    network = build_network(ModelConfig.model_validate(found.about["model"]), found.about["tasks"])
    load_shared(network, tensors)
    assert digest(tensors) == found.digest
    model = load_released(place)
    assert model.about.crop == (32, 64, 32)
    assert model.about.grade_edition == "who2021"
    assert model.about.start is None
    assert digest(shared_state(model.network)) == found.digest


def words(values: Any) -> set[str]:
    """Every text in a config's values; a path is taken apart."""
    if isinstance(values, dict):
        return set().union(*(words(value) for value in values.values()))
    if isinstance(values, list):
        return set().union(*(words(value) for value in values))
    return {part for part in values.split("/") if part} if isinstance(values, str) else set()


def test_no_word_of_a_sites_config_stands_in_a_release(trained: Any) -> None:
    _, place, configs = trained
    text = " ".join((place / name).read_text() for name in (CARD, MANIFEST)).lower()
    told = {"cases", "dice", "auc"}
    for config in configs:
        found = words(config.model_dump(mode="json", exclude={"tasks"})) - told
        assert config.site in found
        assert [word for word in found if word.lower() in text] == []


def test_a_release_of_generated_cases_says_so_wherever_it_has_a_number(trained: Any) -> None:
    _, place, _ = trained
    assert read(place).about["synthetic"] is True
    sections = (place / CARD).read_text().split("\n## ")
    assert [name for name in sections if "synthetic" not in name.lower()] == [sections[-1]]
    assert sections[-1].startswith("Limits")
    about = {**read(place).about, "synthetic": False}
    assert "synthetic" not in card(read(place).model_copy(update={"about": about}), []).lower()
