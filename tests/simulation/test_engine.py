"""Where a federation's sites work: on this machine, or on the nodes of a Ray cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.scale_nodes import two_nodes
from server.simulation.engine import ray_arguments
from server.simulation.reaper import MARK, marked
from tests.federation import Cohort
from tests.simulation.test_federation import PATIENCE_SECONDS, ROOT, command, prepare_run

MARKED = "a cluster of two nodes"


def test_a_run_starts_its_own_ray_whatever_else_runs_here() -> None:
    own = ray_arguments(3, {})
    assert (own["address"], own["num_cpus"]) == ("local", 3)


def test_a_named_cluster_is_joined_as_it_is() -> None:
    joined = ray_arguments(3, {"RAY_ADDRESS": "127.0.0.1:6379"})
    assert joined["address"] == "127.0.0.1:6379"
    assert not {"num_cpus", "object_store_memory"} & set(joined)


@pytest.mark.long
def test_a_run_on_a_cluster_of_two_nodes_leaves_it_running(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepare_run(cohort, tmp_path / "run", rounds=1, baselines=False)
    monkeypatch.setenv(MARK, MARKED)
    with two_nodes() as address:
        environment = {**os.environ, "RAY_ADDRESS": address}
        result = subprocess.run(
            command("--resume", str(folder)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env=environment,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert sum(process.name() == "raylet" for process in marked(MARKED)) == 2
    assert (folder / "report.html").exists()
    assert marked(MARKED) == []
