"""What `benchmarks.rounds` counts, and its table."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rounds import memory
from benchmarks.rounds.__main__ import LINE, WAYS, WEIGHTS, report, surround
from benchmarks.rounds.counting import COUNTS, Count, Span, read_counts, traffic
from benchmarks.rounds.ours import run_ours
from benchmarks.rounds.protocol import senders
from benchmarks.rounds.results import Result
from benchmarks.rounds.step import NOISE, SECONDS, make_noise, step
from benchmarks.rounds.watch import KINDS, MARK, NODE, RUN, SERVER, Watch
from server.certificates import create_authority, issue_server_certificate
from server.store import RunStore
from shared_model.flower_environment import ALLOCATOR

ROOT = Path(__file__).resolve().parents[2]
PEAKS = {SERVER: 800_000_000, RUN: 1_900_000_000, NODE: 970_000_000}
TALK = """
import pathlib, socket, ssl, sys, time
from benchmarks.rounds.counting import count
from shared_model.flower_environment import ALLOCATOR
count()
context = ssl.create_default_context(cafile=sys.argv[1])
with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[2]))), server_hostname="127.0.0.1") as own:
    assert own.send(b"x" * 3000) == 3000
    assert own.recv(10)
one, other = socket.socketpair()
one.send(b"not counted")
other.recv(100)
time.sleep(0.3)
"""


def result(*seconds: float, down: float = 0.0, up: float = 0.0) -> Result:
    """The first round is always dearer."""
    rows = [900.0, *seconds]
    return Result(rows, [9e9, *[down] * len(seconds)], [9e9, *[up] * len(seconds)], PEAKS)


def test_the_table_tells_medians_without_the_first_round_and_ratios() -> None:
    flare = Result([99.0, 8.0, 8.0], [], [], {SERVER: 2_110_000_000, NODE: 790_000_000})
    results = {
        "none": [result(10.0, 12.0, 30.0, down=250e6, up=251e6)],
        "flower": [result(24.0, 24.0, 25.0, down=260e6, up=261e6)],
        "flare": [flare],
        "fixed": [result(5.0)],
        "fixed-flower": [result(12.5)],
    }
    lines = report(results, 4, "base").splitlines()
    assert "| ours, float32 | 12.0 | 0.50 | 1.50 | 250.0 | 251.0 | 0.80 | 1.90 | 0.97 |" in lines
    assert "| stock Flower FedAvg | 24.0 | 1.00 | 3.00 | 260.0 | 261.0 | 0.80 | 1.90 | 0.97 |" in lines
    assert "| NVIDIA FLARE FedAvg | 8.0 | 0.33 | 1.00 | – | – | 2.11 | – | 0.79 |" in lines
    assert "| ours | 5.0 | 0.40 | – | 0.0 | 0.0 | 0.80 | 1.90 | 0.97 |" in lines
    assert set(results) <= set(WAYS)


def test_ratios_are_taken_within_a_turn() -> None:
    """The machine of the second turn is half as fast, that of the third as the first."""
    results = {
        "int8": [result(4.0, 4.0, 5.0, up=10e6), result(10.0, 8.0, 8.0, up=10e6), result(3.0, 3.0, 3.0, up=10e6)],
        "flower": [result(10.0, 10.0), result(20.0, 20.0), result(10.0, 10.0)],
    }
    text = report(results, 4, "base")
    assert "| ours, int8 | 4.0 | 0.40 (0.30–0.40) | – | 0.0 | 10.0 | 0.80 | 1.90 | 0.97 |" in text.splitlines()
    assert "medians of rounds 2 to 4, 3 turns, " in text


def test_memory_counts_from_the_beginning_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the watch takes for a server held 120 MB before the run, holds 60, and as much again in it, for a
    moment that no look falls into.
    """
    word = next(iter(KINDS))
    talk = "import sys; a = bytearray(120_000_000); del a; a = bytearray(60_000_000); print(1, flush=True); input(); "
    talk += "b = bytearray(60_000_000); del b; print(2, flush=True); input()"
    for name, value in {MARK: "a test", **ALLOCATOR}.items():  # memory that is let go leaves the process
        monkeypatch.setenv(name, value)
    watch, kind = Watch("a test"), KINDS[word]
    command = [sys.executable, "-c", talk, word]
    with watch.watching(), subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "1\n"
        _until(lambda: watch.peaks.get(kind, 0) > 120e6)
        before = watch.peaks[kind]
        watch.begin()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "2\n"
        _until(lambda: watch.peaks[kind] > watch.idle[kind] + 50e6 and len(watch._looks.get(kind, ())) > 10)
        process.stdin.write("\n")
        process.stdin.flush()
    assert before - watch.idle[kind] == pytest.approx(60e6, rel=0.1)
    assert watch.peaks[kind] - watch.idle[kind] == pytest.approx(60e6, rel=0.1)
    assert abs(watch.floor(kind) - watch.idle[kind]) < 6e6


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)


def test_memory_is_told_in_models_too() -> None:
    text = memory.table([("int8", 4, {"idle": 0.3, "floor": 0.1, "above": 0.5, "run": 1.0})])
    assert "| int8 | 4 | 300 | 100.0 | 500.0 | 2.00 | 1.00 | 4.0 |" in text


def test_a_rounds_bytes_are_those_of_its_time() -> None:
    rows = [Count(0.0, 5, 0), Count(1.0, 100, 0), Count(2.0, 100, 40), Count(3.0, 107, 50), Count(4.0, 900, 900)]
    counts = {"1": rows, "2": [row._replace(received=3 * row.received) for row in rows]}
    assert traffic(counts, Span(0.5, 3.5)) == ((102 + 306) / 2, 50.0)
    assert Result.of([Span(0.5, 3.5)], {}, {}).down == []


def test_a_node_counts_what_goes_by_tls_alone(tmp_path: Path) -> None:
    key, certificate = tmp_path / "ca.key", tmp_path / "ca.crt"
    create_authority(key, certificate)
    issue_server_certificate(key, certificate, ["127.0.0.1"], tmp_path / "tls.key", tmp_path / "tls.crt")
    counted = tmp_path / "counts"
    counted.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=_serve, args=(listener, tmp_path))
        serving.start()
        subprocess.run(
            [sys.executable, "-c", TALK, str(certificate), str(listener.getsockname()[1])],
            env={**os.environ, COUNTS: str(counted), "PYTHONPATH": str(ROOT)},
            check=True,
        )
        serving.join()
    (rows,) = read_counts(counted).values()
    assert rows[0][1:] == (0, 0) and rows[-1][1:] == (7, 3000)


def _serve(listener: socket.socket, folder: Path) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    with context.wrap_socket(listener.accept()[0], server_side=True) as other:
        size = 0
        while size < 3000:
            size += len(other.recv(4096))
        other.sendall(b"answers")


def test_a_step_is_small_noise_that_no_two_answers_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_noise(tmp_path / "noise.npy", 20_010)
    monkeypatch.setenv(NOISE, str(tmp_path / "noise.npy"))
    monkeypatch.setenv(SECONDS, "0")
    before = {"a": np.full((100, 200), 0.5, np.float32), "b": np.zeros(10, np.float32)}
    one, other = step(before, 1), step(before, 2)
    for name, size in (("a", 0.5e-3), ("b", 1e-3)):
        assert one[name].dtype == np.float32 and one[name].shape == before[name].shape
        assert np.std(one[name] - before[name]) == pytest.approx(size, rel=0.02 if name == "a" else 0.7)
        assert not np.array_equal(one[name], other[name])
    assert np.array_equal(step(before, 1)["a"], one["a"])


def test_the_seconds_of_another_program_are_read_from_its_lines() -> None:
    said = (
        "job.log\nround 1: start->all aggregated 9.31 s (first result 8.00); ->persist done 9.9\nround 2: all 8.02 s\n"
    )
    assert LINE.findall(said + json.dumps({"round 3": "1.0 s"})) == ["9.31", "8.02"]


@pytest.mark.long
def test_the_server_takes_senders_for_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole round of a real coordinator and five senders of the tiny preset, over TLS; their updates are real."""
    for name in (MARK, COUNTS, NOISE, SECONDS, "PYTHONPATH"):
        monkeypatch.setenv(name, "")  # and back, when the test ends
    surround(tmp_path, "a test", WEIGHTS["tiny"], 0.0)
    names = [f"site-{number}" for number in range(5)]
    (span,) = run_ours(tmp_path, 1, "tiny", {"compression": "int8"}, names, senders)
    assert span.seconds > 0
    store = RunStore(next((tmp_path / "c" / "runs").iterdir()))
    assert sorted(store.record(1)["sites"]) == names
    assert all(0 < row["error"] < 0.01 for row in store.record(1)["sites"].values())
    assert store.closed
