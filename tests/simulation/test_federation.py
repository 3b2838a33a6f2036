"""The command on Flower's real engine: a whole run, one killed twice that resumes to the same bytes, and no network."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from server.simulation.reaper import MARK
from server.summary import read_summary
from shared_model.checkpoint import MODEL, read_model
from tests.federation import Cohort, small_simulation

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600


def command(*arguments: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [*launcher, sys.executable, "-m", "server.simulation.cli", *arguments]


def run(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, launcher=launcher), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


def prepare_run(cohort: Cohort, folder: Path, rounds: int, baselines: bool) -> Path:
    """A run folder that `--resume` takes up from the start, with the cohort in it; saves generating it."""
    for site in cohort.sites:
        shutil.copytree(cohort.folder / site.name, folder / "cohort" / site.name)
    simulation = small_simulation(rounds=rounds).model_dump(mode="json")
    (folder / "simulation.json").write_text(json.dumps({"simulation": simulation, "baselines": baselines}))
    return folder


@pytest.fixture(scope="module")
def unbroken(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained where there is no network but loopback, if this machine allows that."""
    folder = tmp_path_factory.mktemp("unbroken")
    run_folder = prepare_run(cohort, folder / "run", rounds=1, baselines=False)
    result = run("--resume", str(run_folder), launcher=loopback_only())
    assert result.returncode == 0, result.stdout + result.stderr
    return run_folder


def loopback_only() -> tuple[str, ...]:
    """What starts a command in a network namespace with loopback alone; empty where that is not allowed."""
    launcher = ("unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    if not shutil.which("unshare") or not shutil.which("ip"):
        return ()
    allowed = subprocess.run([*launcher, "true"], capture_output=True).returncode == 0
    return launcher if allowed else ()


def test_a_run_needs_no_network(unbroken: Path) -> None:
    if not loopback_only():
        pytest.skip("this machine allows no network namespace: unshare or ip is missing or forbidden")
    assert (unbroken / "report.html").exists()


def test_a_run_leaves_what_it_promises(unbroken: Path) -> None:
    summary = read_summary(unbroken / "summary.json")
    assert summary.synthetic
    assert [site.name for site in summary.sites] == ["alder", "birch", "cedar", "dogwood"]
    assert [row.index for row in summary.rounds] == [1]
    assert summary.rounds[0].present == ("alder", "birch", "cedar", "dogwood")
    assert summary.totals.bytes_up > 0
    assert {row.task for row in summary.rows("federated")} == {"wt", "tc", "et", "idh", "codeletion", "grade"}
    assert "synthetic" in (unbroken / "report.html").read_text()
    manifest = json.loads((unbroken / "manifest.json").read_bytes())
    assert manifest["about"]["synthetic"] is True
    assert read_model(unbroken)
    assert len(list((unbroken / "segmentations").glob("*.nii.gz"))) == summary.test_cases
    assert not list((unbroken / "sites").glob("*/errors.log"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Look again and again; past the patience the process is killed, so that leaving its `with` cannot hang."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"waited {PATIENCE_SECONDS} s in vain")
        time.sleep(0.2)


def of_run(run_pid: int) -> set[int]:
    """Processes that carry the mark of the run whose process is `run_pid`; none once that has ended."""
    try:
        children = psutil.Process(run_pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    marks = {_environment(child).get(MARK) for child in children} - {None}
    return {process.pid for process in psutil.process_iter() if _environment(process).get(MARK) in marks}


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def run_to_its_end(folder: Path, output: Path) -> bool:
    """Resume a run; true if it ended well and left no process."""
    members: set[int] = set()

    def ended() -> bool:
        members.update(of_run(process.pid))
        return process.poll() is not None

    with (
        output.open("w") as file,
        subprocess.Popen(command("--resume", str(folder)), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        wait_until(ended, process)
    assert process.returncode == 0, output.read_text()
    assert len(members) > 4
    return not still_alive(members)


def still_alive(members: set[int]) -> list[psutil.Process]:
    """Those that are there ten seconds later."""
    there = [process for process in psutil.process_iter() if process.pid in members]
    return psutil.wait_procs(there, timeout=10)[1]


def kill_at(moment: str, folder: Path) -> None:
    """Resume a run and kill it once there is a file of this pattern; no process of it is left."""
    with subprocess.Popen(
        command("--resume", str(folder)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: bool(list(folder.glob(moment))) or process.poll() is not None, process)
        assert process.poll() is None, "the run ended before the moment came"
        members = of_run(process.pid)
        assert len(members) > 4
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert still_alive(members) == []
    assert not (folder / MODEL).exists()


@pytest.mark.long
def test_a_run_that_is_killed_twice_leaves_no_process_and_resumes_to_the_same_bytes(
    cohort: Cohort, tmp_path: Path
) -> None:
    """The run that nobody kills trains the baselines as well, and compares them."""
    broken, whole = (prepare_run(cohort, tmp_path / name, 2, baselines=name == "whole") for name in ("broken", "whole"))
    for moment in ("federation/spool/0001/*/header.json", "federation/rounds/0001/record.json"):
        kill_at(moment, broken)
    for folder in (broken, whole):
        assert run_to_its_end(folder, tmp_path / "output")
    assert (broken / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    summary = read_summary(whole / "summary.json")
    locals_ = [f"local {site.name}" for site in summary.sites]
    assert [way.name for way in summary.ways] == ["federated", "centralised", "averaged local", *locals_]
    assert {row.task for row in summary.rows("local cedar")} == {"wt", "idh", "codeletion", "grade"}
    assert all(comparison.first == "federated" for comparison in summary.comparisons)
