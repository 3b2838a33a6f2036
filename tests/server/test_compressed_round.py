"""What holds of a round holds of one whose updates and models travel compressed."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.audit import AuditLog
from server.admission import Round, admit
from server.aggregation import build
from server.reduction import reduce_round
from server.results import round_rows
from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import MODEL
from shared_model.compression import CODECS, Codec, through
from shared_model.config import Plan
from shared_model.errors import RefusedError
from shared_model.parameters import Tensors, digest, group_of
from shared_model.parts import after_round
from tests.federation import Cohort, InProcess, federate, small_simulation, start
from tests.server.test_round import PLAN, KilledError
from tests.tampering import REFUSED

SITES = ("alder", "birch")
"""birch has no 1p/19q."""


def make_plan(codec: str) -> Plan:
    training = {**PLAN.training.model_dump(), "local_steps": 1}
    return small_simulation(compression=codec, training=training, tasks=["wt", "idh", "codeletion"]).plan


@dataclass
class Finished:
    """A run of two rounds with what travelled."""

    codec: Codec
    store: RunStore
    folder: Path
    up: dict[tuple[str, int], tuple[wire.Update, Tensors]] = field(default_factory=dict)
    down: dict[tuple[str, int], tuple[wire.Work, Tensors]] = field(default_factory=dict)


class Watched(InProcess):
    """Notes the weights that sites are sent."""

    down: dict[tuple[str, int], tuple[wire.Work, Tensors]]

    def send(self, messages: Any, seconds: float) -> None:
        super().send(messages, seconds)
        for node, (text, tensors) in messages.items():
            if isinstance(header := wire.decode(text), wire.Work):
                self.down[node, header.round] = header, tensors


def watched(cohort: Cohort, folder: Path, **values: Any) -> Watched:
    transport = Watched([config for config in cohort.configs(folder) if config.site in SITES], **values)
    transport.down = {}
    return transport


@pytest.fixture(
    scope="module", params=["int8", pytest.param("fp16", marks=pytest.mark.long)], ids=lambda codec: str(codec)
)
def finished(request: pytest.FixtureRequest, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("compressed")
    found = Finished(CODECS[request.param], start(folder / "run", make_plan(request.param)), folder)

    def note(header: wire.Header, tensors: Tensors) -> tuple[str, Tensors]:
        if isinstance(header, wire.Update):
            found.up[header.site, header.round] = header, tensors
        return wire.encode(header), tensors

    transport = watched(cohort, folder / "sites", tamper=dict.fromkeys(SITES, note))
    federate(found.store, transport, closing=False)
    found.down = transport.down
    return found


def test_the_model_is_the_weighted_mean_of_what_was_sent(finished: Finished) -> None:
    """Over the sites that trained a tensor, within the step of the model's own codec, and the rest to the bit."""
    base, model = finished.store.model(0), finished.store.model(1)
    cases = {site: finished.up[site, 1][0].cases for site in SITES}
    decoded = {site: finished.codec.decode_all(finished.up[site, 1][1], base) for site in SITES}
    mean = {}
    for name in base:
        sites = [site for site in SITES if name in decoded[site]]
        weights = [cases[site][group_of(name)] for site in sites]
        assert sites
        total = sum(w * decoded[site][name].astype(np.float64) for site, w in zip(sites, weights, strict=True))
        mean[name] = np.asarray(total / sum(weights)).astype(np.float32)
    assert [site for site in SITES if any(group_of(name) == "codeletion" for name in decoded[site])] == ["alder"]
    _, settled, lost = through(finished.codec, mean, base)
    assert finished.store.record(1)["error_down"] == pytest.approx(lost, rel=1e-2)
    assert all(np.allclose(model[name], settled[name], rtol=0, atol=2e-6) for name in base)


def test_the_second_model_comes_as_a_change_and_both_sides_make_the_same_bits(finished: Finished) -> None:
    store, plan = finished.store, finished.store.read()[1]
    for site in SITES:
        work, tensors = finished.down[site, 1]
        assert work.change_of is None and digest(tensors) == work.base
        work, change = finished.down[site, 2]
        assert work.change_of == digest(store.model(0)) and work.base == store.manifest(1)["digest"]
        assert {value.dtype for value in change.values()} == {np.dtype(np.uint8)}
        made = after_round(store.model(0), finished.codec.decode_all(change, store.model(0)), plan, 1)
        assert digest(made) == work.base == digest(store.model(1))


def test_what_was_lost_is_measured_on_both_ways(finished: Finished) -> None:
    bound = 0.02 if finished.codec is CODECS["int8"] else 1e-3
    for row in round_rows(finished.store):
        assert row.error_up is not None and 0 < row.error_up < bound
        assert row.error_down is not None and 0 < row.error_down < bound
    assert all(header.error is not None and 0 < header.error < bound for header, _ in finished.up.values())


def test_bytes_are_those_that_travelled(finished: Finished) -> None:
    whole = sum(value.nbytes for value in finished.store.model(0).values())
    first, second = finished.store.record(1), finished.store.record(2)
    assert first["bytes_down"] == 2 * whole
    assert second["bytes_down"] == sum(value.nbytes for site in SITES for value in finished.down[site, 2][1].values())
    assert second["bytes_down"] < first["bytes_down"] / 1.8
    for index, record in ((1, first), (2, second)):
        sent = sum(value.nbytes for site in SITES for value in finished.up[site, index][1].values())
        assert sent <= record["bytes_up"] < sent + 2 * 40_000  # with the names in two files
        assert sent < 2 * whole / 1.8
    for site in SITES:
        lines = [json.loads(line) for line in AuditLog(finished.folder / "sites" / site).lines()]
        listed = [line["facts"]["tensors"]["listed"] for line in lines if line["facts"].get("kind") == "update"]
        for index, rows in enumerate(listed, start=1):
            tensors = finished.up[site, index][1]
            assert rows == [[name, "uint8", [tensors[name].size], tensors[name].nbytes] for name in sorted(tensors)]


@pytest.mark.parametrize("fault", ["NaN", "a tensor more", "a tensor less", "a weight of 1e9 cases", "a stale round"])
def test_admission_looks_at_what_was_meant(finished: Finished, fault: str) -> None:
    store, plan = finished.store, finished.store.read()[1]
    base = store.model(0)
    (terms,) = [row for row in store.terms()[0] if row.site == "alder"]
    current = Round(store.read()[0], 1, digest(base), base, plan)
    update, sent = finished.up["alder", 1]
    honest = finished.codec.decode_all(sent, base)
    assert digest(admit(update, sent, terms, current)) == digest(honest)
    change, reason = REFUSED[fault]
    said, values = change(update, honest, base)
    with np.errstate(all="ignore"):
        travels = {name: finished.codec.encode(value, base.get(name, value)) for name, value in values.items()}
    with pytest.raises(RefusedError, match=re.escape(reason)):
        admit(said, travels, terms, current)
    with pytest.raises(RefusedError, match=r"decompressed|dtype"):
        admit(update, honest, terms, current)
    with pytest.raises(RefusedError, match="nothing was trained"):
        admit(update, {name: finished.codec.encode(base[name], base[name]) for name in sent}, terms, current)


def test_the_order_of_replies_changes_no_bit(finished: Finished, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for site in reversed(SITES):
        update, tensors = finished.up[site, 1]
        store.spool(update, tensors, 1.0)
    base = finished.store.model(0)
    trained, _ = reduce_round(build(PLAN.aggregation), base, store.spooled(1)[::-1], {}, finished.codec)
    _, settled, _ = through(finished.codec, trained, base)
    assert digest(after_round(base, settled, finished.store.read()[1], 1)) == finished.store.manifest(1)["digest"]


@pytest.fixture(scope="module")
def halted(finished: Finished, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run and sites after the first round."""
    folder = tmp_path_factory.mktemp("halted")

    def stop(name: str, facts: dict[str, Any]) -> None:
        if name == "committed":
            raise KilledError

    with pytest.raises(KilledError):
        federate(start(folder / "run", finished.store.read()[1]), watched(cohort, folder / "sites"), stop)
    return folder


def removed(file: Path) -> None:
    file.unlink()


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def others(file: Path) -> None:
    """A number of the kept weights is another."""
    data = bytearray(file.read_bytes())
    data[-3] ^= 0x40
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [removed, damaged, others])
def test_a_site_that_lacks_the_weights_before_gets_them_whole_in_the_same_round(
    halted: Path, harm: Callable[[Path], None], cohort: Cohort, tmp_path: Path
) -> None:
    shutil.copytree(halted, tmp_path, symlinks=True, dirs_exist_ok=True)
    (base,) = (tmp_path / "sites" / "birch" / "answers").glob("*/0001-*/base.safetensors")
    harm(base)
    store, transport = RunStore(tmp_path / "run"), watched(cohort, tmp_path / "sites")
    federate(store, transport, closing=False)
    works = [(nodes, header) for nodes, header in transport.sent if isinstance(header, wire.Work)]
    assert [(nodes, header.change_of is None) for nodes, header in works] == [(SITES, False), (("birch",), True)]
    assert sorted(store.record(2)["sites"]) == list(SITES) and store.record(2)["refused"] == []


def test_a_run_that_stops_anywhere_ends_in_the_same_bytes(finished: Finished, cohort: Cohort, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def stop(name: str, facts: dict[str, Any]) -> None:
        moment = (name, facts.get("round", 0))
        if name in ("reply", "committed") and moment not in seen:
            seen.append(moment)
            raise KilledError

    broken = start(tmp_path / "run", finished.store.read()[1])
    for _ in range(3):
        with pytest.raises(KilledError):
            federate(broken, watched(cohort, tmp_path / "sites"), stop)
    federate(broken, watched(cohort, tmp_path / "sites"), closing=False)
    assert seen == [("reply", 1), ("committed", 1), ("reply", 2)]
    for index in (1, 2):
        same = [(store.model_folder(index) / MODEL).read_bytes() for store in (broken, finished.store)]
        assert same[0] == same[1]
