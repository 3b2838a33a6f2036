"""Memory of the round loop's process at its peak, for more and more sites whose replies come as Flower hands them over.

    python -m benchmarks.senders [--sites 2 4 8 32] [--compression none int8] [--json FILE]

Base preset, one round. Each number of sites is a process of its own: the real round loop, admission, spool, reduction
and commit, over senders that give one recorded reply as Flower's bytes, each in its own name. Sites train nothing, and
the weights are random. Peaks are above what the process had when the run began. Writes docs/benchmarks.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord

from benchmarks.rounds.protocol import said
from benchmarks.rounds.step import RELATIVE
from benchmarks.tables import replace_table
from server.aggregation import build
from server.rounds import Answer, Federation, Message
from server.store import RunStore
from shared_model import wire
from shared_model.compression import CODECS, through
from shared_model.config import Plan, parse_config
from shared_model.flower_environment import ALLOCATOR
from shared_model.flower_message import FORMAT, content, pack, unpack
from shared_model.tasks import TASKS

RUN = "0123456789abcdef"


def plan_of(sites: int, compression: str) -> Plan:
    values = {
        "name": "senders",
        "synthetic": True,
        "rounds": 1,
        "model": {"preset": "base"},
        "compression": compression,
        "sites": [f"site-{number}" for number in range(sites)],
    }
    return parse_config(Plan, values, "senders")


def record(folder: Path, compression: str) -> None:
    """Write a new run, whose weights are random, and one reply to its first round, as it travels."""
    from shared_model.network import build_network
    from shared_model.parameters import shared_state

    plan = plan_of(2, compression)
    base = shared_state(build_network(plan.model, plan.tasks))
    RunStore(folder / "run").create(RUN, plan, base, None)
    draw = np.random.default_rng(0)
    values = {n: v + np.float32(RELATIVE) * draw.standard_normal(v.shape, np.float32) for n, v in base.items()}
    sent, _, lost = through(CODECS[compression], values, base)
    (folder / "reply").mkdir()
    for name, array in pack(sent).items():
        (folder / "reply" / name).write_bytes(array.data)
    (folder / "error.json").write_text(json.dumps(lost if compression != "none" else None))


@dataclass
class Senders:
    """A transport whose sites answer with the recorded reply."""

    folder: Path
    sites: list[str]
    asked: Mapping[str, Message] = field(default_factory=dict)

    def nodes(self) -> dict[str, str | None]:
        return {site: site for site in self.sites}

    def send(self, messages: Mapping[str, Message], seconds: float) -> None:
        """As Flower, whose messages are made, and gone when they are stored."""
        self.asked = {node: (text, {}) for node, (text, _) in messages.items()}
        for tensors in {id(tensors): tensors for _, tensors in messages.values()}.values():
            pack(tensors)

    def receive(self, seconds: float) -> Iterator[Answer]:
        for site, (text, _) in self.asked.items():
            yield self._answer(site, wire.decode(text))

    def _answer(self, site: str, asked: wire.Header) -> Answer:
        header = wire.encode(said(site, asked, tuple(TASKS), json.loads((self.folder / "error.json").read_text())))
        if not isinstance(asked, wire.Work):
            return Answer(site, header)
        parts = ArrayRecord()
        for path in sorted((self.folder / "reply").iterdir()):
            data = path.read_bytes()
            parts[path.name] = Array("uint8", (len(data),), FORMAT, data)
        return Answer(site, *unpack(content(header, parts)))

    def close(self) -> None:
        self.asked = {}


def measure(folder: Path, sites: int, compression: str) -> dict[str, float]:
    """A round of so many sites, in this process."""
    store = RunStore(folder / "run")
    plan = plan_of(sites, compression)
    values = json.loads((folder / "run" / "run.json").read_text())
    (folder / "run" / "run.json").write_text(json.dumps({**values, "plan": plan.model_dump(mode="json")}))
    idle = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    started = time.perf_counter()
    Federation(store, build(plan.aggregation), Senders(folder, list(plan.sites)), lambda *_: None).complete()
    model = sum(value.nbytes for value in store.model(0).values()) / 1e6
    peak = _memory("VmHWM") - idle
    return {"peak_mb": peak, "models": peak / model, "seconds": time.perf_counter() - started}


def _memory(line: str) -> float:
    """MB of this process by /proc."""
    text = Path("/proc/self/status").read_text()
    return float(next(row.split()[1] for row in text.splitlines() if row.startswith(line))) / 1e3


def in_process(recorded: Path, sites: int, compression: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "one"
        shutil.copytree(recorded, folder)
        command = [sys.executable, "-m", "benchmarks.senders", "--measure", str(folder)]
        command += ["--sites", str(sites), "--compression", compression]
        done = subprocess.run(command, env=os.environ | ALLOCATOR, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(results: dict[str, dict[int, dict[str, float]]]) -> str:
    lines = ["| compression | sites | peak above idle, MB | models | seconds |", "|---|---|---|---|---|"]
    for compression, rows in results.items():
        for sites, row in rows.items():
            lines.append(
                f"| {compression} | {sites} | {row['peak_mb']:.0f} | {row['models']:.1f} | {row['seconds']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the round loop's memory over many sites.")
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 4, 8, 32])
    parser.add_argument("--compression", nargs="+", choices=list(CODECS), default=["none", "int8"])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.sites[0], arguments.compression[0])))
        return
    results: dict[str, dict[int, dict[str, float]]] = {}
    for compression in arguments.compression:
        with tempfile.TemporaryDirectory() as name:
            record(Path(name), compression)
            results[compression] = {}
            for sites in arguments.sites:
                results[compression][sites] = in_process(Path(name), sites, compression)
                print(compression, sites, results[compression][sites], flush=True)
    text = table(results)
    print(text)
    replace_table(Path("docs/benchmarks.md"), "senders", text)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
