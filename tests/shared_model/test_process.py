"""Whether a process that a file names still runs."""

import subprocess
import sys

from shared_model.process import Process


def test_own_process_lives() -> None:
    assert Process.own().lives()


def test_an_ended_process_does_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Process.own()
    assert not Process(number=child.pid, started=here.started - 100).lives()
    child.communicate(b"\n")
    assert not Process(number=child.pid, started=here.started).lives()


def test_a_number_used_again_is_another_process() -> None:
    here = Process.own()
    assert not Process(number=here.number, started=here.started - 1).lives()
