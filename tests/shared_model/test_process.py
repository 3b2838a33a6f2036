"""Whether a process that a file names still runs."""

import os
import subprocess
import sys
import time

import psutil
import pytest
from pydantic import ValidationError

from shared_model.process import Process


def test_own_process_lives() -> None:
    assert Process.own().lives()


def test_an_ended_process_does_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.lives()
    child.communicate(b"\n")
    assert not process.lives()


def test_a_killed_process_that_nobody_waits_for_does_not() -> None:
    """Flower's executor leaves its children so."""
    child = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.lives()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not process.lives()
    child.communicate()


def test_a_number_used_again_is_another_process() -> None:
    here = Process.own()
    assert not here.model_copy(update={"started": here.started - 1}).lives()
    assert not here.model_copy(update={"boot": "before"}).lives()


def test_a_clock_that_is_set_anew_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system tells when it was started by its clock of the moment, and with it when a process began."""
    here, boot = Process.own(), psutil.boot_time()
    for place in ("psutil", "psutil._psplatform"):
        monkeypatch.setattr(f"{place}.boot_time", lambda: boot + 7200)
    assert psutil.Process().create_time() > boot + 7200
    assert here.lives()


CHILD = """
import os, sys, threading
from shared_model import process
process.GRACE_SECONDS = process.LOOK_SECONDS = 0.1
process.end_with_parent(*map(int, sys.argv[1:]))
print(os.getpid(), flush=True)
threading.Event().wait()
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_process_that_waits_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    process = Process.of(child.pid)
    assert process.lives()
    parent.kill()
    end = time.monotonic() + 20
    while process.lives():
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.communicate()


def test_a_process_that_waits_ends_with_another_while_its_parent_lives() -> None:
    """As a fork server does, which lives as long as those whom it forked."""
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        subprocess.Popen(waits) as other,
        subprocess.Popen([sys.executable, "-c", CHILD, str(other.pid)], stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None and int(child.stdout.readline()) == child.pid
        other.kill()
        assert child.wait(20) == 1


def test_a_number_that_no_process_has_is_refused_where_a_file_names_it() -> None:
    with pytest.raises(ValidationError):
        Process.model_validate_json('{"number": -1, "started": 0.0}')
    assert not Process(number=10**30, started=0.0).lives()


def test_a_program_begins_again_with_what_its_environment_lacks_and_keeps_what_it_has() -> None:
    program = (
        "import os, sys; from shared_model.process import begin_again_with; print(os.getpid(), flush=True);"
        "begin_again_with({'A_B_C': '1', 'D_E_F': '2'}); print(sys.argv, os.environ['A_B_C'], os.environ['D_E_F'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "x y"], env=os.environ | {"D_E_F": "3"}, stdout=subprocess.PIPE, text=True
    )
    lines = child.communicate()[0].splitlines()
    assert lines == [str(child.pid), str(child.pid), "['-c', 'x y'] 1 3"]
