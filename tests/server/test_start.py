"""A run that begins with a released model: its weights to the bit, told on the card; what does not fit is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.card import card
from server.cli import _create
from server.coordinator import Coordinator, CoordinatorConfig, init
from server.release import release
from server.start import Origin, check_fit, create_run
from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import MANIFEST, MODEL, encode_tensors, read_manifest, read_model, write_bytes, write_model
from shared_model.config import Plan, SimulationPlan, parse_config
from shared_model.errors import ConfigError, WeightsError
from shared_model.metrics import DiceSum
from shared_model.parameters import Tensors, digest
from shared_model.released import CARD, RELEASED, SIGNATURE, parse_released
from shared_model.scores import SiteScores
from shared_model.signing import create_site_key, release_public_key, sign_release, to_line
from tests.federation import small_simulation
from tests.released import HEAD, RUN
from tests.server.test_store import update

PLAN: Plan = small_simulation(rounds=1, seed=5, tasks=["wt", "idh"]).plan
NEXT = "fedcba9876543210"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Coordinator, Path]:
    """A coordinator and its release of a run of one round, in which every weight moved by a hundredth."""
    values = {"names": ["localhost"], "port": 1, "admin_port": 2}
    coordinator = init(tmp_path_factory.mktemp("start") / "server", parse_config(CoordinatorConfig, values, "init"))
    store = create_run(coordinator.folder / "runs" / RUN, RUN, PLAN, Origin())
    moved = {name: value + np.float32(0.01) for name, value in store.model(0).items()}
    reply = update("alder").model_dump(mode="json", exclude={"audit"})
    rest = {"refused": [], "absent": [], "flagged": [], "bytes_down": 1, "bytes_up": 1, "seconds": 1.0}
    store.commit(1, moved, digest(moved), ["alder"], {"sites": {"alder": reply}, **rest})
    store.write_terms([], [])
    scores = SiteScores(dice={"wt": DiceSum.of([0.5])})
    store.write_evaluated([wire.Evaluated(run=RUN, site="alder", evaluation=scores, audit=HEAD)])
    return coordinator, release(coordinator, RUN)


@pytest.fixture
def place(made: tuple[Coordinator, Path], tmp_path: Path) -> Path:
    """A copy of the release."""
    for name in RELEASED:
        write_bytes(tmp_path / "model" / name, (made[1] / name).read_bytes())
    return tmp_path / "model"


def begin(place: Path, folder: Path, plan: Plan = PLAN, key: str | None = None) -> RunStore:
    return create_run(folder / "run", NEXT, plan, Origin(released=place, release_key=key))


def test_a_run_begins_with_the_released_weights_and_remembers_whose(place: Path, tmp_path: Path) -> None:
    store = begin(place, tmp_path)
    released = read_model(place)
    assert digest(store.model(0)) == digest(released)
    about = store.manifest(0)["about"]
    assert about["start"] == {"run": RUN, "round": 1, "digest": digest(released)}
    assert about["pretrained"] is None
    assert digest(create_run(tmp_path / "drawn", NEXT, PLAN, Origin()).model(0)) != digest(released)


def test_the_card_of_the_next_release_says_where_it_began(place: Path, tmp_path: Path) -> None:
    about = begin(place, tmp_path).manifest(0)["about"]
    facts = parse_released((place / MANIFEST).read_bytes(), "first")
    assert "It began as" not in card(facts, [])
    (line,) = [line for line in card(facts.model_copy(update={"about": about}), []).splitlines() if "began" in line]
    assert line.startswith(f"- It began as the released model of run {RUN}, round 1 (digest {facts.digest})")


def test_the_command_takes_what_its_coordinator_signed_and_nothing_else(
    made: tuple[Coordinator, Path], place: Path, tmp_path: Path
) -> None:
    coordinator, released = made
    (tmp_path / "plan.yaml").write_text(PLAN.model_copy(update={"sites": ("alder", "birch")}).model_dump_json())
    known = sorted((coordinator.folder / "runs").iterdir())
    for site in ("alder", "birch"):
        coordinator.registry.enrol(site, to_line(create_site_key(tmp_path / site)))
    run = _create(coordinator, tmp_path / "plan.yaml", None, released)
    assert digest(coordinator.run(run).model(0)) == digest(read_model(released))
    (place / SIGNATURE).write_text("00" * 64)
    with pytest.raises(WeightsError, match=r"signature: is not this coordinator's signature of manifest\.json\."):
        _create(coordinator, tmp_path / "plan.yaml", None, place)
    with pytest.raises(ConfigError, match="Leave one of them out"):
        _create(coordinator, tmp_path / "plan.yaml", tmp_path / "file.pt", place)
    assert sorted((coordinator.folder / "runs").iterdir()) == sorted([*known, coordinator.folder / "runs" / run])


def test_a_licence_of_pretrained_weights_goes_on(place: Path, tmp_path: Path) -> None:
    values = read_manifest(place)
    values["about"]["pretrained"] = {"sha256": "ab" * 32}
    (place / MANIFEST).write_text(json.dumps(values))
    assert begin(place, tmp_path).manifest(0)["about"]["pretrained"] == {"sha256": "ab" * 32}


def changed_model(place: Path, change: Callable[[Tensors], object]) -> None:
    """A release whose tensors are others, and its manifest theirs."""
    tensors = dict(read_model(place))
    change(tensors)
    write_model(place, tensors, {**read_manifest(place), "digest": digest(tensors)})


BIAS = "heads.wt.bias"
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such folder": (lambda place: place.rename(place.with_name("away")), r"holds no released model \(manifest"),
    "no card": (lambda place: (place / CARD).unlink(), r"holds no released model \(card\.md: FileNotFoundError\)"),
    "no signature": (lambda place: (place / SIGNATURE).unlink(), r"holds no released model \(signature"),
    "no model": (lambda place: (place / MODEL).unlink(), r"model\.safetensors: cannot be read"),
    "no manifest of a release": (lambda place: (place / MANIFEST).write_text("{}"), r"manifest\.json: .*required"),
    "a changed card": (lambda place: (place / CARD).write_text("good"), r"card\.md: is not the file its manifest"),
    "a changed model": (
        lambda place: (place / MODEL).write_bytes(encode_tensors({BIAS: np.zeros(1, np.float32)})),
        r"model\.safetensors: is not the file its manifest vouches for",
    ),
    "a digest of others": (
        lambda place: (place / MANIFEST).write_text(json.dumps({**read_manifest(place), "digest": "0" * 64})),
        r"manifest\.json: its digest is not that of the tensors",
    ),
    "a missing tensor": (
        lambda place: changed_model(place, lambda tensors: tensors.pop("missing_token")),
        "the model lacks tensor 'missing_token'",
    ),
    "a strange tensor": (
        lambda place: changed_model(place, lambda tensors: tensors.update({"backbone.x": np.zeros(1, np.float32)})),
        "the plan's network has no tensor 'backbone.x'",
    ),
    "a tensor of no part": (
        lambda place: changed_model(place, lambda tensors: tensors.update(x=np.zeros(1, np.float32))),
        "parameter 'x' belongs to no part of the network",
    ),
    "another shape": (
        lambda place: changed_model(place, lambda tensors: tensors.update({BIAS: np.zeros(2, np.float32)})),
        rf"'{BIAS}' is float32 \(2,\), the network's float32 \(1,\)",
    ),
    "another kind": (
        lambda place: changed_model(place, lambda tensors: tensors.update({BIAS: tensors[BIAS].astype(np.float64)})),
        f"'{BIAS}' is float64",
    ),
    "a number that is none": (
        lambda place: changed_model(place, lambda tensors: tensors.update({BIAS: tensors[BIAS] * np.float32("nan")})),
        f"'{BIAS}' holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_folder_that_is_not_a_whole_fitting_release_is_refused_in_one_line(
    damage: str, place: Path, tmp_path: Path
) -> None:
    spoil, reason = DAMAGED[damage]
    spoil(place)
    with pytest.raises(WeightsError, match=reason) as refused:
        begin(place, tmp_path)
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "a head more": ({"tasks": ["wt", "idh", "grade"]}, "the model lacks 'grade', which the plan trains"),
    "a head less": ({"tasks": ["idh"]}, "the plan lacks 'wt', which the model has"),
    "another variant": (
        {"model": {"tumor_aware": "none"}},
        r"model\.tumor_aware is ours in the model and none in the plan\. Set the plan's likewise",
    ),
    "equal shapes of another meaning": (
        {"model": {"patch_merging": "legacy"}},
        r"model\.patch_merging is current in the model and legacy in the plan",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_model_of_another_network_is_refused(what: str, place: Path, tmp_path: Path) -> None:
    fields, reason = UNFIT[what]
    plan = parse_config(Plan, PLAN.model_dump(mode="json") | fields, "plan")
    with pytest.raises(WeightsError, match=reason):
        begin(place, tmp_path, plan)


def test_an_edition_of_the_grade_is_looked_at_where_the_grade_is_trained(tmp_path: Path) -> None:
    graded = PLAN.model_copy(update={"tasks": ("grade",)})
    store = create_run(tmp_path / "run", RUN, graded, Origin())
    own = store.model(0)
    released: Any = SimpleNamespace(about={**store.manifest(0)["about"], "grade_edition": "histologic"})
    with pytest.raises(WeightsError, match="grade_edition is histologic in the model and who2021 in the plan"):
        check_fit(released, own, own, graded, tmp_path)


def test_another_coordinators_signature_is_refused(place: Path, tmp_path: Path, made: tuple[Coordinator, Path]) -> None:
    key = release_public_key(made[0].release_key)
    begin(place, tmp_path, key=key)
    other = init(tmp_path / "other", made[0].config)
    (place / SIGNATURE).write_text(sign_release(other.release_key, (place / MANIFEST).read_bytes()))
    with pytest.raises(WeightsError, match="is not this coordinator's signature"):
        begin(place, tmp_path / "again", key=key)


def test_a_simulation_begins_in_one_way() -> None:
    values = small_simulation(model={"preset": "base", "patch_merging": "legacy"}).model_dump(mode="json")
    assert parse_config(SimulationPlan, values | {"start": "model"}, "plan").start == Path("model")
    with pytest.raises(ConfigError, match=r"^plan: start: a run cannot start from pretrained weights and a released"):
        parse_config(SimulationPlan, values | {"start": "model", "pretrained": "file.pt"}, "plan")
