"""Links in folders of ours, put there by another user or a restored backup: nothing is written or deleted through one.

A link in the place of `state/cache`, `state/models` and the like is the hospital's own, to a larger disk, and is
followed; below these, where the names are ours, it is not.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.audit import AuditLog
from client.data.cache import CaseCache
from client.logs import note_failure
from client.state import Answers
from client.withdrawal import Withdrawals
from server.conduct import Heads
from server.journal import Journal
from server.registry import Registry
from server.store import RunStore
from shared_model.checkpoint import commit_folder, open_to_append, remove_folder, write_bytes
from shared_model.errors import DataError
from shared_model.parameters import digest
from tests.client.data.test_loading import make_case
from tests.hostile.coordinator_files import LINES
from tests.hostile.site_files import PLACE, PLAN, TENSORS, UPDATE, WORK
from tests.server.test_store import TENSORS as MODEL
from tests.shared_model.test_wire import RUN

EARLIER = f"0000-{'e' * 64}"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of ours, with files of the names that ours have."""
    folder = tmp_path / "outside"
    for name in ("precious", "tensors.safetensors", f"{EARLIER}/precious", "0001/SITE/precious"):
        write_bytes(folder / name, b"precious")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def keep(state: Path) -> None:
    Answers(state).keep(WORK, UPDATE, TENSORS, TENSORS)


def refused(act: Callable[[Path], object], error: type[Exception]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        with pytest.raises(error):
            act(folder)

    return do


def forget_cache(folder: Path) -> None:
    CaseCache(folder / "cache").forget({"p"})


def created(folder: Path) -> None:
    RunStore(folder).create(RUN, PLAN, MODEL, None)


def spooled(folder: Path) -> None:
    RunStore(folder).spool(UPDATE, MODEL, 1.0)


def committed(folder: Path) -> None:
    created(folder)
    RunStore(folder).commit(1, MODEL, digest(MODEL), ["a"], {})


FOLDERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an answer": (PLACE, keep),
    "an answer that is written": (f"answers/{RUN}/.{PLACE.rsplit('/')[-1]}.part", keep),
    "an earlier answer": (f"answers/{RUN}/{EARLIER}", keep),
    "a run's answers": (f"answers/{RUN}", refused(keep, DataError)),
    "a run's answers that end": (f"answers/{RUN}", lambda state: Answers(state).forget(RUN)),
    "a run's answers that are declined": (
        f"answers/{RUN}",
        refused(lambda state: Withdrawals(state)._decline(RUN), DataError),
    ),
    "a cache entry": (f"cache/cases/{'a' * 64}", forget_cache),
    "a round": ("rounds/0000", created),
    "a reply": (f"spool/{UPDATE.round:04d}/{UPDATE.site}", spooled),
    "a spool that goes": ("spool/0001", committed),
}


@pytest.mark.parametrize("place", FOLDERS)
def test_a_link_in_the_place_of_a_folder_leads_nothing_out(place: str, tmp_path: Path, outside: Path) -> None:
    name, act = FOLDERS[place]
    before = content(outside)
    link(tmp_path / "state" / name, outside)
    act(tmp_path / "state")
    assert content(outside) == before


FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "audit log": ("audit.jsonl", refused(lambda state: AuditLog(state).append("sent", {}), DataError)),
    "errors": ("logs/errors.log", refused(lambda state: note_failure(state, ValueError()), OSError)),
    "answer": (f"{PLACE}/header.json", keep),
    "held weights": (
        f"answers/{RUN}/.base.safetensors",
        lambda state: Answers(state).hold(RUN, TENSORS).result(),
    ),
    "journal": ("events.jsonl", refused(lambda folder: Journal(folder).note("opened", {}), OSError)),
    "journal's state": ("status.json", lambda folder: Journal(folder).set("done")),
    "heads' lock": ("heads.lock", refused(lambda folder: Heads(folder / "heads.json").update(a="1:a"), OSError)),
    "heads": ("heads.json", lambda folder: Heads(folder / "heads.json").update(a="1:a")),
    "registry's lock": (
        "sites.lock",
        refused(lambda folder: Registry(folder / "sites.json").enrol("a", LINES[0]), OSError),
    ),
    "run": ("run.json", created),
}


@pytest.mark.parametrize("place", FILES)
def test_a_link_in_the_place_of_a_file_is_replaced_or_refused(place: str, tmp_path: Path, outside: Path) -> None:
    name, act = FILES[place]
    (outside / "precious").write_bytes(b"{}")
    link(tmp_path / "state" / name, outside / "precious")
    act(tmp_path / "state")
    assert (outside / "precious").read_bytes() == b"{}"


def test_the_cache_replaces_a_link_in_an_entrys_place(tmp_path: Path, outside: Path) -> None:
    case, before = make_case(tmp_path), content(outside)
    cache = CaseCache(tmp_path / "cache")
    entry = tmp_path / "cache" / "cases" / cache._key(case)
    link(entry, outside)
    assert np.asarray(cache.get(replace(case)).image[:]).any()
    assert entry.is_dir() and not entry.is_symlink() and content(outside) == before


def test_remove_and_commit_take_the_link_and_not_what_it_leads_to(tmp_path: Path, outside: Path) -> None:
    for target in (outside, outside / "precious", tmp_path / "nowhere"):
        link(tmp_path / "ours", target)
        remove_folder(tmp_path / "ours")
        assert not (tmp_path / "ours").is_symlink()
        link(tmp_path / "ours", target)
        (tmp_path / "part").mkdir()
        commit_folder(tmp_path / "part", tmp_path / "ours")
        assert (tmp_path / "ours").is_dir() and not (tmp_path / "ours").is_symlink()
        remove_folder(tmp_path / "ours")
    remove_folder(tmp_path / "ours")
    assert (outside / "precious").exists() and not (tmp_path / "nowhere").exists()


def test_written_bytes_take_the_links_place_and_appended_ones_do_not_follow(tmp_path: Path, outside: Path) -> None:
    for target in (outside / "precious", tmp_path / "nowhere"):
        link(tmp_path / "ours", target)
        with pytest.raises(OSError):
            open_to_append(tmp_path / "ours")
        write_bytes(tmp_path / "ours", b"new")
        assert not (tmp_path / "ours").is_symlink()
        (tmp_path / "ours").unlink()
    assert (outside / "precious").read_bytes() == b"precious" and not (tmp_path / "nowhere").exists()
