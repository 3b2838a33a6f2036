"""The bundle installs on a machine that reaches no package index, and the client runs there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.test_federation import loopback_only

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.long


def test_a_hospital_without_an_index_installs_and_begins(tmp_path: Path) -> None:
    if not (alone := loopback_only()):
        pytest.skip("this machine allows no network namespace: unshare or ip is missing or forbidden")
    subprocess.run(["make", "bundle"], cwd=ROOT, check=True)
    script = f"""
set -e
{sys.executable} -m venv {tmp_path}/venv
{tmp_path}/venv/bin/python -m pip install --quiet --no-index --find-links {ROOT}/bundle federated-mtsunet
cd {tmp_path}
venv/bin/mtsunet-client init north --folder north
venv/bin/mtsunet-client plans --site north/config.yaml
venv/bin/python -c "import client.site, shared_model.shell; print(client.site.__file__)"
"""
    done = subprocess.run([*alone, "bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "send to the coordinator: north/site.pub" in done.stdout
    assert str(tmp_path / "venv") in done.stdout.splitlines()[-1]
    assert not list((tmp_path / "venv").glob("lib/*/site-packages/ray"))
