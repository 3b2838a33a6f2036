"""Readers of what a site keeps, of which a disk or a hand may have changed any byte."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from client.audit import AuditLog
from client.data.split import read_split
from client.migrations import version_of
from client.policy import Approvals
from client.results import Results
from client.state import Answers, Runs
from client.status import in_words, progress, read_status
from client.withdrawal import Withdrawals
from shared_model.checkpoint import write_json
from shared_model.config import DataConfig, SiteConfig
from shared_model.errors import ConfigError, DataError, RefusedError, WeightsError, WireError
from shared_model.metrics import DiceSum
from shared_model.process import Process
from shared_model.scores import SiteScores
from tests.federation import small_simulation
from tests.hostile.guard import Decoder
from tests.hostile.payloads import tensor_files, texts
from tests.shared_model.test_wire import RUN, UPDATE, WORK

PLAN = small_simulation().plan
SCORES = SiteScores(dice={"wt": DiceSum.of([0.5, 1.0])})
TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "missing_token": np.zeros(4, np.float32)}
LATER = WORK.model_copy(update={"round": WORK.round + 1})
Write = Callable[[Path], object]


def site(state: Path) -> SiteConfig:
    return SiteConfig(site="a", data=DataConfig(folder=state, layout="bids"), tasks=("wt",), state=state)


def audit(state: Path) -> None:
    log = AuditLog(state)
    whole = log.verify() is None
    log.lines()
    log.contains(f"2:{'a' * 64}")
    assert log.contains(log.append("sent", {})) or not whole


def status(state: Path) -> None:
    in_words(read_status(site(state)))


def training(state: Path) -> None:
    with progress(state, RUN, 1, 10):
        (state / "copy.json").write_bytes((state / "progress.json").read_bytes())
    (state / "copy.json").rename(state / "progress.json")


def said(state: Path) -> None:
    write_json(state / "client.json", {"said": "joined", "time": 1.5, "process": Process.own().model_dump()})


def results(state: Path) -> None:
    for scores in Results(state).read(RUN)[0].values():
        scores.rows()
    Results(state).keep(RUN, 3, SCORES, True)


def appended(state: Path) -> None:
    for number in range(3):
        AuditLog(state).append("sent", {"run": RUN, "bytes": number, "listed": [["a", 0.5]]})


def kept(name: str, write: Write, read: Write, refusal: type[Exception] | tuple[type[Exception], ...]) -> Decoder:
    """A reader of one file of a state folder, beside which all is as `write` left it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        valid = (Path(folder) / name).read_bytes()

    def decode(folder: Path, data: bytes) -> None:
        if not (folder / name).exists():
            write(folder)
        (folder / name).write_bytes(data)
        read(folder)

    return Decoder(decode, refusal, tensor_files(valid) if name.endswith(".safetensors") else texts(valid), 250)


def answered(state: Path) -> None:
    answers = Answers(state)
    answers.keep(WORK, UPDATE, TENSORS, TENSORS, answers.hold(RUN, TENSORS))


def approved(state: Path) -> None:
    Approvals(state).rows()
    Approvals(state).check(PLAN)


PLACE = f"answers/{RUN}/{WORK.round:04d}-{WORK.base}"
DAMAGED = (WireError, WeightsError, DataError)

DECODERS = {
    "opened run": kept(
        f"runs/{RUN}.json",
        lambda state: Runs(state).keep(RUN, PLAN, {"wt": 3}),
        lambda state: (Runs(state).cases(RUN), Runs(state).plan(RUN).digest()),
        RefusedError,
    ),
    "answer": kept(f"{PLACE}/header.json", answered, lambda state: Answers(state).find(WORK), DAMAGED),
    "answer's tensors": kept(
        f"{PLACE}/tensors.safetensors", answered, lambda state: Answers(state).find(WORK), DAMAGED
    ),
    "moments": kept(f"{PLACE}/moments.safetensors", answered, lambda state: Answers(state).moments(LATER), DAMAGED),
    "held weights": kept(
        f"{PLACE}/base.safetensors", answered, lambda state: Answers(state).base(RUN, WORK.base), DAMAGED
    ),
    "audit log": kept("audit.jsonl", appended, audit, DataError),
    "withdrawals": kept(
        "withdrawals.json",
        lambda state: write_json(state / "withdrawals.json", {"patients": {"ab": [RUN]}, "changed": {RUN: 2}}),
        lambda state: Withdrawals(state).suppresses(RUN, 5),
        DataError,
    ),
    "results": kept(f"results/{RUN}.json", lambda state: Results(state).keep(RUN, 2, SCORES, True), results, DataError),
    "approvals": kept(
        f"plans/{PLAN.digest()}.json",
        lambda state: Approvals(state).approve(PLAN),
        approved,
        (ConfigError, RefusedError),
    ),
    "what was said": kept("client.json", said, status, DataError),
    "progress": kept("progress.json", training, status, DataError),
    "split": kept(
        "splits/0-0.2.json",
        lambda state: write_json(state / "splits/0-0.2.json", {"held_out": {"ab": True}}),
        lambda state: read_split(state / "splits/0-0.2.json"),
        DataError,
    ),
    "version": kept(
        "version.json",
        lambda state: write_json(state / "version.json", {"version": 1}),
        version_of,
        (ConfigError, DataError),
    ),
}
