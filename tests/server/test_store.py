"""The run folder: what is whole counts, what is half-written does not, and damage is found."""

from pathlib import Path

import numpy as np
import pytest

from server.store import RunStore
from shared_model import wire
from shared_model.checkpoint import MODEL
from shared_model.compression import CODECS
from shared_model.errors import RunError, WeightsError
from shared_model.parameters import Tensors, digest
from shared_model.scores import SiteScores
from tests.federation import small_simulation

RUN = "0123456789abcdef"
TENSORS: Tensors = {"heads.wt.bias": np.ones(1, np.float32), "missing_token": np.arange(4, dtype=np.float32)}


def update(site: str, index: int = 1) -> wire.Update:
    return wire.Update(
        run=RUN,
        round=index,
        base="0" * 64,
        site=site,
        cases={"wt": 3},
        evaluation=SiteScores(),
        seconds=2.0,
        audit=f"0:{'0' * 64}",
    )


@pytest.fixture
def store(run_folder: Path) -> RunStore:
    store = RunStore(run_folder)
    store.create(RUN, small_simulation().plan, TENSORS, None)
    return store


def test_a_new_run_reads_back(store: RunStore) -> None:
    run, plan = RunStore(store.folder).read()
    assert run == RUN
    assert plan == small_simulation().plan
    assert store.last_round() == 0
    np.testing.assert_array_equal(store.model(0)["missing_token"], TENSORS["missing_token"])


def test_equal_weights_are_equal_files(store: RunStore) -> None:
    store.commit(1, dict(reversed(TENSORS.items())), digest(TENSORS), ["a"], {})
    files = [(store.model_folder(index) / MODEL).read_bytes() for index in (0, 1)]
    assert files[0] == files[1]


def test_a_half_written_round_does_not_count(store: RunStore) -> None:
    (store.folder / "rounds" / ".0001.part").mkdir()
    assert store.last_round() == 0
    store.commit(1, TENSORS, digest(TENSORS), ["a"], {"seconds": 1.0})
    assert store.last_round() == 1
    assert store.record(1) == {"seconds": 1.0}


def test_a_changed_model_is_found(store: RunStore) -> None:
    path = store.model_folder(0) / MODEL
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="is not the file its manifest vouches for"):
        store.model(0)


def test_a_truncated_model_is_found(store: RunStore) -> None:
    path = store.model_folder(0) / MODEL
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WeightsError, match="manifest vouches"):
        store.model(0)


def test_spooled_replies_come_back_in_order_of_name_and_go_with_the_commit(store: RunStore) -> None:
    for site in ("cedar", "alder"):
        store.spool(update(site), TENSORS, 0.5)
    (store.folder / "spool" / "0001" / ".birch.part").mkdir()
    replies = store.spooled(1)
    assert [reply.site for reply in replies] == ["alder", "cedar"]
    assert replies[0].names() == sorted(TENSORS)
    assert replies[0].norm == 0.5
    np.testing.assert_array_equal(replies[1].tensor("missing_token", CODECS["none"], TENSORS), TENSORS["missing_token"])
    store.commit(1, TENSORS, digest(TENSORS), ["alder", "cedar"], {})
    assert store.spooled(1) == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        RunStore(tmp_path).read()
