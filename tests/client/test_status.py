"""What `status` says: only of processes that live, in plain words, and with nothing of a case."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import client.learner
from client.site import Site
from client.status import Progress, Said, Status, in_words, progress, read_status
from shared_model import wire
from shared_model.checkpoint import write_json
from shared_model.config import DataConfig, SiteConfig
from shared_model.errors import DataError
from shared_model.parameters import digest
from shared_model.process import Process
from tests.federation import Cohort, small_simulation, start

ROOT = Path(__file__).resolve().parents[2]
RUN = "0123456789abcdef"
HERE = Process.own()


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    data = DataConfig(folder=tmp_path / "cases", labels=tmp_path / "l.csv")
    return SiteConfig(site="north", data=data, tasks=("wt",), state=tmp_path / "state")


@pytest.fixture
def gone() -> Process:
    """A process that has ended, and whose number another one has by now."""
    return HERE.model_copy(update={"started": HERE.started - 100.0})


def said(config: SiteConfig, line: str, process: Process) -> None:
    write_json(config.state / "client.json", {"said": line, "time": 86400.0, "process": process.model_dump()})


def training(config: SiteConfig, process: Process) -> None:
    values = {"run": RUN, "round": 3, "step": 4, "steps": 10, "process": process.model_dump(), "time": 90061.0}
    write_json(config.state / "progress.json", values)


def test_no_client_yet(site: SiteConfig) -> None:
    assert read_status(site) == Status(site="north", running=False, last=None, training=None)
    assert in_words(read_status(site)) == ["site 'north': no client has run here yet", "no training now"]
    assert not site.state.exists()


def test_a_client_that_trains(site: SiteConfig) -> None:
    said(site, "joined", HERE)
    training(site, HERE)
    assert in_words(read_status(site)) == [
        f"site 'north': the client runs (process {HERE.number})",
        "1970-01-02 00:00:00Z: joined",
        f"training run {RUN}, round 3, step 4 of 10, since 1970-01-02 01:01:01Z",
    ]


def test_what_a_dead_process_left_is_not_shown(site: SiteConfig, gone: Process) -> None:
    said(site, "joined", gone)
    training(site, gone)
    status = read_status(site)
    assert status == Status(
        site="north", running=False, last=Said(said="joined", time=86400.0, process=gone), training=None
    )
    assert in_words(status) == [
        "site 'north': the client does not run",
        "1970-01-02 00:00:00Z: joined",
        "no training now",
    ]


def test_a_torn_file_is_one_line(site: SiteConfig) -> None:
    said(site, "joined", HERE)
    (site.state / "client.json").write_text("{")
    with pytest.raises(DataError, match=r"client\.json: cannot be read"):
        read_status(site)


def test_the_command(site: SiteConfig, tmp_path: Path) -> None:
    said(site, "joined", HERE)
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site.model_dump(mode="json")))
    command = [sys.executable, "-m", "client.cli", "status", "--site", str(path)]
    plain, values = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for more in ([], ["--json"])
    )
    assert plain.splitlines() == in_words(read_status(site))
    assert json.loads(values) == {
        "site": "north",
        "running": True,
        "last": {"said": "joined", "time": 86400.0, "process": HERE.model_dump()},
        "training": None,
    }


def test_progress_is_written_once_a_second_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    seen, moments = [], [10.0]
    with progress(tmp_path, RUN, 2, 5, clock=lambda: moments[-1]) as on_step:
        seen.append(json.loads(path.read_bytes())["step"])
        for moment in (10.4, 11.0, 11.9, 12.1):  # 0.4, 1.0, 0.9 and 1.1 s since the last writing
            moments.append(moment)
            on_step()
            seen.append(json.loads(path.read_bytes())["step"])
        values = json.loads(path.read_bytes())
    assert seen == [0, 0, 2, 2, 4]
    assert set(values) == {"run", "round", "step", "steps", "process", "time"}
    assert (values["run"], values["round"], values["steps"], values["process"]) == (RUN, 2, 5, HERE.model_dump())
    assert list(tmp_path.iterdir()) == []


def test_progress_is_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), progress(tmp_path, RUN, 1, 1):
        assert (tmp_path / "progress.json").exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_round_tells_its_steps(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_simulation(rounds=1).plan
    config = cohort.configs(tmp_path / "sites")[0]
    base = start(tmp_path / "run", plan).model(0)
    seen: list[Progress | None] = []
    train: Any = client.learner.train

    def watched(*arguments: Any) -> Any:
        *others, on_step = arguments

        def step() -> None:
            on_step()
            seen.append(read_status(config).training)

        seen.append(read_status(config).training)
        return train(*others, step)

    monkeypatch.setattr("client.learner.train", watched)
    monkeypatch.setattr("client.status.WRITE_SECONDS", 0.0)
    learner = Site(config, plan, RUN).learner
    learner.load(base)
    learner.train(wire.Work(run=RUN, round=1, plan=plan.digest(), base=digest(base), settings={}), {})
    assert [(now.run, now.round, now.step, now.steps, now.process) for now in seen if now] == [
        (RUN, 1, 0, 2, HERE),
        (RUN, 1, 1, 2, HERE),
        (RUN, 1, 2, 2, HERE),
    ]
    assert read_status(config).training is None and not (config.state / "progress.json").exists()
