"""Flower's own object store and ours are one interface; and what ours does with its files."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from hypothesis import given, settings
from hypothesis import strategies as st

from server.coordinator import CoordinatorConfig, init
from server.superlink import link
from server.superlink.objects import LARGE, FileObjectStore
from shared_model.errors import RunError

STORES: dict[str, Callable[[str], SqlObjectStore]] = {"Flower's": SqlObjectStore, "files": FileObjectStore}


def _message(*sizes: int) -> tuple[ObjectTree, dict[str, bytes]]:
    """A record whose arrays have these bytes: its tree, and its objects by id."""
    record = RecordDict({f"{size}": ArrayRecord([np.full(size, size % 251, np.uint8)]) for size in sizes})
    return get_object_tree(record), {number: one.deflate() for number, one in get_all_nested_objects(record).items()}


def _opened(folder: Path, kind: str = "files") -> SqlObjectStore:
    folder.mkdir(exist_ok=True)
    store = STORES[kind](str(folder / "link.db"))
    store.initialize()
    return store


def _files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "parts").iterdir()}


def _sent(store: ObjectStore, run: int, *sizes: int) -> tuple[str, dict[str, bytes]]:
    """Announce a record and put its objects; its root's id, and its objects."""
    tree, objects = _message(*sizes)
    store.preregister(run, tree)
    for number, content in objects.items():
        store.put(number, content)
    return tree.object_id, objects


def _announced(store: ObjectStore) -> tuple[str, bytes]:
    """Announce a record; the id and bytes of its large object."""
    tree, objects = _message(3 * LARGE)
    store.preregister(1, tree)
    return max(objects.items(), key=lambda item: len(item[1]))


@pytest.mark.parametrize("kind", STORES)
def test_an_object_is_announced_then_there_then_gone(tmp_path: Path, kind: str) -> None:
    store = _opened(tmp_path, kind)
    tree, objects = _message(10, 3 * LARGE)
    with pytest.raises(NoObjectInStoreError):
        store.put(*next(iter(objects.items())))
    assert {store.get(number) for number in objects} == {None}
    assert set(store.preregister(1, tree)) == set(objects)
    assert {store.get(number) for number in objects} == {b""}
    for number, content in objects.items():
        store.put(number, content)
        store.put(number, content)
        assert store.get(number) == content
    assert store.preregister(2, tree) == []
    store.delete(tree.object_id)
    assert {store.get(number) for number in objects} == {None}
    assert len(store) == 0


@pytest.mark.parametrize("kind", STORES)
def test_bytes_that_are_not_the_announced_ones_are_refused(tmp_path: Path, kind: str) -> None:
    store = _opened(tmp_path, kind)
    large, content = _announced(store)
    with pytest.raises(ValueError, match="does not match"):
        store.put(large, content + b"0")
    assert store.get(large) == b""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["announce", "send", "delete", "end", "restart", "clear"]),
            st.integers(1, 2),
            st.frozensets(st.sampled_from([7, 8, LARGE, 2 * LARGE]), min_size=1, max_size=2),
        ),
        max_size=12,
    )
)
@settings(max_examples=6, deadline=None)
def test_it_answers_as_flowers_own_and_has_a_file_for_each_large_object_that_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, frozenset[int]]]
) -> None:
    folders = {kind: tmp_path_factory.mktemp("store") for kind in STORES}
    stores = {kind: _opened(folder, kind) for kind, folder in folders.items()}
    known: dict[str, bytes] = {}
    for step, run, sizes in steps:
        tree, objects = _message(*sorted(sizes))
        known |= objects
        for kind, store in stores.items():
            if step == "announce":
                store.preregister(run, tree)
            elif step == "send":
                _sent(store, run, *sorted(sizes))
            elif step == "delete":
                store.delete(tree.object_id)
            elif step == "end":
                store.delete_objects_in_run(run)
            elif step == "clear":
                store.clear()
            else:
                stores[kind] = _opened(folders[kind], kind)
        theirs, ours = ({number: store.get(number) for number in known} for store in stores.values())
        assert ours == theirs
        assert all(content in (None, b"", known[number]) for number, content in ours.items())
        assert _files(folders["files"]) == {number for number, content in ours.items() if len(content or b"") >= LARGE}


def test_only_what_is_large_leaves_the_database(tmp_path: Path) -> None:
    objects = _sent(_opened(tmp_path), 1, 10, 20 * LARGE)[1]
    large = {number for number, content in objects.items() if len(content) >= LARGE}
    assert len(large) == 1
    assert _files(tmp_path) == large
    with sqlite3.connect(tmp_path / "link.db") as database:
        assert database.execute("select sum(length(content)) from objects").fetchone()[0] < LARGE


@pytest.mark.parametrize("left", [None, b"torn"])
def test_after_a_power_cut_an_object_without_its_bytes_can_be_sent_again(tmp_path: Path, left: bytes | None) -> None:
    """Or a resumed run, which sends the same model, would be told that it is there, and no site could fetch it."""
    root, objects = _sent(_opened(tmp_path), 1, 3 * LARGE)
    (name,) = _files(tmp_path)
    file = tmp_path / "parts" / name
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    (tmp_path / "parts" / "incoming").write_bytes(b"half of the next")
    store = _opened(tmp_path)
    assert _files(tmp_path) == set()
    assert store.get(name) == b""
    assert store.preregister(2, _message(3 * LARGE)[0]) == [name]
    store.put(name, objects[name])
    assert store.get(name) == objects[name]
    store.delete(root)
    assert _files(tmp_path) == set()


def test_a_file_that_was_never_announced_by_its_row_goes_at_the_next_start(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    large, content = _announced(store)
    with pytest.raises(RuntimeError, match="cut off"), store.session():
        store.put(large, content)
        raise RuntimeError("cut off")
    assert store.get(large) == b""
    assert _files(tmp_path) == {large}
    assert _opened(tmp_path).get(large) == b""
    assert _files(tmp_path) == set()


def test_a_disk_that_takes_no_more_leaves_the_object_announced(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    large, content = _announced(store)
    (tmp_path / "parts" / "incoming").mkdir()
    with pytest.raises(OSError, match="incoming"):
        store.put(large, content)
    assert store.get(large) == b""


def test_a_file_that_went_while_it_was_asked_for_is_gone(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    _sent(store, 1, 3 * LARGE)
    (name,) = _files(tmp_path)
    (tmp_path / "parts" / name).unlink()
    assert store.get(name) is None


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    store = _opened(tmp_path)
    store.delete("../link.db")
    assert (tmp_path / "link.db").exists()


def test_a_server_that_cannot_have_the_folder_says_which(tmp_path: Path) -> None:
    made = init(tmp_path / "coordinator", CoordinatorConfig(names=("localhost",), port=8443, admin_port=8444))
    (made.folder / "parts").touch()
    with pytest.raises(RunError, match="coordinator/parts: File exists"):
        link.build(made)


def test_the_server_uses_it(tmp_path: Path) -> None:
    """And opens a database of an earlier version, whose parts stand in its rows."""
    made = init(tmp_path / "coordinator", CoordinatorConfig(names=("localhost",), port=8443, admin_port=8444))
    root, objects = _sent(_opened(made.folder, "Flower's"), 1, 3 * LARGE)
    store = link.build(made)._state.object_store
    assert isinstance(store, FileObjectStore)
    assert {number: store.get(number) for number in objects} == objects
    store.delete(root)
    _sent(store, 1, 3 * LARGE)
    assert len(_files(made.folder)) == 1
    assert (made.folder / "parts").stat().st_mode & 0o777 == 0o700
    with sqlite3.connect(made.folder / "link.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
