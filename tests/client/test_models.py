"""A hospital fetches a released model, takes nothing that is not genuine, and sees its own results beside."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from client import models
from client.app import answer
from client.audit import AuditLog
from client.cli import app
from client.connection import RefusedHereError
from client.models import get_model, kept_models, list_models
from client.report import compare, table
from client.results import Results
from server.coordinator import Coordinator
from server.release import release
from shared_model import wire
from shared_model.checkpoint import MANIFEST, MODEL, read_model
from shared_model.config import DataConfig, Invitation, SiteConfig
from shared_model.errors import ConfigError, MtsunetError, WeightsError
from shared_model.metrics import DiceSum
from shared_model.parameters import digest
from shared_model.released import CARD, RELEASED, SIGNATURE
from shared_model.scores import SiteScores
from shared_model.signing import create_release_key, create_site_key, release_public_key, sign_release
from shared_model.skeleton import skeleton
from tests.federation import Cohort, small_simulation, start
from tests.released import RUN, coordinator, written_run

OTHER = "f" * 16
PLAN = small_simulation(rounds=2).plan
SCORES = SiteScores(dice={"wt": DiceSum.of([0.25, 0.5, 0.5, 0.75])})
"""0.5, and 0.2 to each side (test_release.py works it out)."""


@pytest.fixture
def server(tmp_path: Path) -> Coordinator:
    """A coordinator with two released runs."""
    made = coordinator(tmp_path / "coordinator")
    for run in (RUN, OTHER):
        written_run(made.folder / "runs" / run, PLAN, [{}, {"alder": SCORES}], {"alder": {"wt": 8}}, run=run)
        release(made, run)
    return made


@pytest.fixture
def site(server: Coordinator, tmp_path: Path) -> SiteConfig:
    """A hospital that is enrolled there."""
    folder = tmp_path / "hospital"
    key = release_public_key(server.release_key)
    data = DataConfig(folder=folder / "images", labels=folder / "labels.csv")
    invited = Invitation(site="alder", address="coordinator:8443", authority="none", release_key=key)
    config = SiteConfig(
        site="alder", data=data, tasks=("wt",), state=folder / "state", invitation=folder / "invitation.yaml"
    )
    create_site_key(config.key)
    (folder / "invitation.yaml").write_text(skeleton(invited))
    (folder / "config.yaml").write_text(skeleton(config))
    return config


Change = Callable[[str, bytes], bytes]
"""(page, what the coordinator would say) -> what a hostile one says."""


@pytest.fixture
def serve(server: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], list[str]]:
    """Answers in the place of the coordinator's pages; returns the pages asked for."""

    def start_serving(change: Change) -> list[str]:
        asked: list[str] = []

        def page(invitation: Invitation, key: object, path: str, limit: int = 0) -> bytes:
            asked.append(path)
            releases = server.folder / "releases"
            if path == "models":
                return change(path, json.dumps({"models": sorted(one.name for one in releases.iterdir())}).encode())
            return change(path, (releases / path.removeprefix("models/")).read_bytes())

        monkeypatch.setattr(models, "fetch", page)
        return asked

    return start_serving


def honest(path: str, data: bytes) -> bytes:
    return data


def fetched(site: SiteConfig) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in AuditLog(site.state).lines()]
    return [line["facts"] for line in lines if line["event"] == "fetched model"]


def test_a_genuine_model_is_kept_whole_and_stands_in_the_audit_log(
    site: SiteConfig, server: Coordinator, serve: Callable[[Change], list[str]]
) -> None:
    serve(honest)
    assert list_models(site) == [RUN, OTHER]
    place = get_model(site, RUN, kept_models(site))
    assert place == site.state / "models" / RUN
    source = server.folder / "releases" / RUN
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        name: (source / name).read_bytes() for name in RELEASED
    }
    assert set(read_model(place)) == {"missing_token"}
    assert fetched(site) == [{"run": RUN, "sha256": json.loads((place / MANIFEST).read_bytes())["sha256"]}]
    assert AuditLog(site.state).verify() is None
    with pytest.raises(ConfigError, match="is here already"):
        get_model(site, RUN, kept_models(site))


def flipped(name: str, position: int = 0) -> Change:
    def change(path: str, data: bytes) -> bytes:
        if path != f"models/{RUN}/{name}":
            return data
        spoiled = bytearray(data)
        spoiled[position] ^= 1
        return bytes(spoiled)

    return change


def another_run(server: Coordinator) -> Change:
    """A genuine release, but of the other run."""
    other = server.folder / "releases" / OTHER
    return lambda path, data: data if path == "models" else (other / path.rsplit("/")[-1]).read_bytes()


def own_key(server: Coordinator) -> Change:
    """The manifest and card of the server's own making, rightly signed with a key that was not pinned."""
    key = server.folder / "another.key"
    create_release_key(key)
    return lambda path, data: (
        sign_release(key, (server.folder / "releases" / RUN / MANIFEST).read_bytes()).encode()
        if path.endswith(SIGNATURE)
        else data
    )


HOSTILE: dict[str, tuple[Callable[[Coordinator], Change], str]] = {
    "model": (lambda _: flipped(MODEL), "model.safetensors is not the file"),
    "model's end": (lambda _: flipped(MODEL, -1), "model.safetensors is not the file"),
    "card": (lambda _: flipped(CARD, 5), "card.md is not the file"),
    "manifest": (lambda _: flipped(MANIFEST, 40), "the signature is not"),
    "signature": (lambda _: flipped(SIGNATURE), "the signature is not"),
    "no signature": (lambda _: lambda path, data: b"\xff" if path.endswith(SIGNATURE) else data, "the signature is"),
    "another key": (own_key, "the signature is not"),
    "another run": (another_run, f"the manifest is that of run '{OTHER}'"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_is_not_genuine_is_refused_and_leaves_nothing(
    attack: str, site: SiteConfig, server: Coordinator, serve: Callable[[Change], list[str]]
) -> None:
    make, reason = HOSTILE[attack]
    asked = serve(make(server))
    with pytest.raises(WeightsError, match=reason):
        get_model(site, RUN, kept_models(site))
    assert not kept_models(site).exists()
    assert fetched(site) == []
    if "signature" in reason:
        assert f"models/{RUN}/{MODEL}" not in asked  # nothing large is fetched that nobody vouches for


@pytest.mark.parametrize("page", [b'{"models": ["../../etc"]}', b'{"models": 3}', b"[]", b"<html>"])
def test_a_list_that_is_none_is_refused(page: bytes, site: SiteConfig, serve: Callable[[Change], list[str]]) -> None:
    serve(lambda path, data: page if path == "models" else data)
    with pytest.raises(RefusedHereError, match="list of models is none"):
        list_models(site)


def test_what_is_not_offered_is_not_asked_for(site: SiteConfig, serve: Callable[[Change], list[str]]) -> None:
    asked = serve(honest)
    with pytest.raises(ConfigError, match="no model of it is offered"):
        get_model(site, "../secret", kept_models(site))
    assert asked == ["models"]


def test_the_commands(
    site: SiteConfig, serve: Callable[[Change], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(honest)
    named = ["--site", str(tmp_path / "hospital" / "config.yaml")]
    app(["models", *named, "--get", RUN], standalone_mode=False)
    assert f"genuine, and here: {site.state / 'models' / RUN}" in capsys.readouterr().out
    app(["models", *named], standalone_mode=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [[RUN, "here"], [OTHER, "offered"]]
    app(["report", *named, "--json", RUN], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["own"], told["released_round"], told["federation"][0]["value"]) == ([], 2, 0.5)
    app(["report", *named, RUN], standalone_mode=False)
    assert "0.500 (0.300 to 0.700)" in capsys.readouterr().out


def text_of(site: SiteConfig) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table(compare(site, RUN)))
    return " ".join(captured.get().split())


def test_own_results_stand_beside_the_federations(site: SiteConfig, serve: Callable[[Change], list[str]]) -> None:
    with pytest.raises(MtsunetError, match="has no results here"):
        compare(site, RUN)
    results = Results(site.state)
    for index, value in ((1, 0.5), (2, 0.625), (3, 0.75)):
        results.keep(RUN, index, SiteScores(dice={"wt": DiceSum.of([value]), "tc": DiceSum.of([0.5])}), True)
    alone = text_of(site)
    assert "this hospital, round 3" in alone and "0.750, n = 1 │ not fetched" in alone
    serve(honest)
    get_model(site, RUN, kept_models(site))
    both = text_of(site)
    assert "synthetic" in both
    assert "whole tumour: Dice │ 0.625, n = 1 │ 0.500 (0.300 to 0.700), n = 4" in both  # round 2 is the released one
    assert "tumour core: Dice │ 0.500, n = 1 │ not disclosed" in both


def test_a_site_keeps_all_of_an_evaluation_that_it_may_not_send(cohort: Cohort, tmp_path: Path) -> None:
    birch = next(config for config in cohort.configs(tmp_path / "hospitals") if config.site == "birch")
    coarse = birch.model_copy(update={"minimum_cell": 2})  # one patient is held out
    store = start(tmp_path / "run", PLAN)
    run, final = store.read()[0], store.model(0)
    answer(coarse, wire.encode(wire.Opening(run=run, release=wire.RELEASE, plan=PLAN)), {})
    text, _ = answer(coarse, wire.encode(wire.Closing(run=run, round=2, base=digest(final))), final)
    told = wire.decode(text)
    assert isinstance(told, wire.Evaluated) and told.evaluation.dice == {}
    kept, synthetic = Results(coarse.state).read(run)
    assert synthetic and list(kept) == [2]
    assert {task: total.n for task, total in kept[2].dice.items()}["wt"] == 1
    assert text_of(coarse).count("not fetched") >= 3
