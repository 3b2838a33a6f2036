"""The audit log: any edit shows, a power cut costs nothing that was told, and two writers keep it whole."""

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import audit
from client.audit import START, AuditLog
from shared_model.errors import DataError

FACTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@contextmanager
def log_of(content: bytes) -> Iterator[AuditLog]:
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder))
        log.path.write_bytes(content)
        yield log


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "state")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a whole log."""
    log = AuditLog(tmp_path_factory.mktemp("written"))
    for number in range(6):
        log.append("sent", {"run": f"{number:016x}", "bytes": 19999, "listed": [["a", 0.5], ["ü\n\u2028", None]]})
    return log.path.read_bytes().splitlines(keepends=True)


def test_the_first_lines_by_hand(log: AuditLog) -> None:
    assert log.head == f"0:{START}"
    first = log.append("joined", {"run": "x"})
    second = log.append("sent", {})
    one, two = (json.loads(line) for line in log.path.read_text().splitlines())
    text = f'{{"event":"joined","facts":{{"run":"x"}},"n":1,"previous":"{START}","time":"{one["time"]}"}}'
    assert one["hash"] == hashlib.sha256(text.encode()).hexdigest()
    assert (two["n"], two["previous"]) == (2, one["hash"])
    assert (first, second) == (f"1:{one['hash']}", f"2:{two['hash']}")
    assert log.head == second
    assert log.lines() == log.path.read_text().splitlines()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(), FACTS), max_size=5))
def test_what_was_appended_is_whole_and_contained(lines: list[tuple[str, dict[str, object]]]) -> None:
    with log_of(b"") as log:
        heads = [log.head, *(log.append(event, facts) for event, facts in lines)]
        assert log.verify() is None
        assert log.head == heads[-1]
        assert all(log.contains(head) for head in heads)
        assert [json.loads(line)["facts"] for line in log.lines()] == [facts for _, facts in lines]


def test_another_number_or_hash_is_not_contained(log: AuditLog) -> None:
    heads = [log.append("sent", {}) for _ in range(3)]
    hashes = [head.split(":")[1] for head in heads]
    assert not log.contains(f"2:{hashes[0]}")
    assert not log.contains(f"4:{hashes[2]}")
    assert not log.contains(f"0:{hashes[0]}")
    assert not log.contains(f"3:{START}")


@settings(max_examples=300)
@given(data=st.data(), mask=st.integers(1, 255))
def test_a_changed_byte_shows(written: list[bytes], data: st.DataObject, mask: int) -> None:
    changed = bytearray(b"".join(written))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= mask
    with log_of(bytes(changed)) as log:
        assert log.verify() is not None


@given(data=st.data(), piece=st.binary(min_size=1, max_size=3))
def test_bytes_put_in_or_taken_out_show(written: list[bytes], data: st.DataObject, piece: bytes) -> None:
    whole = b"".join(written)
    place = data.draw(st.integers(0, len(whole) - 1))
    for changed in (whole[:place] + piece + whole[place:], whole[:place] + whole[place + 1 :]):
        with log_of(changed) as log:
            assert log.verify() is not None


def test_each_removed_swapped_or_doubled_line_shows(written: list[bytes]) -> None:
    count = len(written)
    changed = [written[:i] + written[i + 1 :] for i in range(count - 1)]
    changed += [[*written[:i], written[j], *written[i:]] for i in range(count + 1) for j in range(count)]
    for i in range(count):
        for j in range(i):
            swapped = list(written)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            changed.append(swapped)
    assert len(changed) == 5 + 42 + 15
    for lines in changed:
        with log_of(b"".join(lines)) as log:
            assert "a line was removed or moved" in (log.verify() or "")


def rewritten(line: bytes, **change: object) -> bytes:
    """A line with other values and the hash that fits them."""
    values = {key: value for key, value in json.loads(line).items() if key != "hash"} | change
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    values["hash"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_a_line_rewritten_with_its_hash_shows_at_the_next_or_is_another_head(written: list[bytes]) -> None:
    assert rewritten(written[2]) == written[2]
    for place in range(5):
        with log_of(
            b"".join([*written[:place], rewritten(written[place], event="other"), *written[place + 1 :]])
        ) as log:
            assert log.verify() == f"before line {place + 2} a line was removed or moved"
    for change in ({"n": 7}, {"previous": START}):
        with log_of(b"".join([*written[:5], rewritten(written[5], **change)])) as log:
            assert log.verify() == "before line 6 a line was removed or moved"
    with log_of(b"".join([*written[:5], rewritten(written[5], event="other")])) as log:
        assert log.verify() is None
        assert not log.contains(f"6:{json.loads(written[5])['hash']}")


def test_a_cut_tail_is_whole_but_lacks_the_head_that_the_coordinator_was_told(written: list[bytes]) -> None:
    heads = [f"{number}:{json.loads(line)['hash']}" for number, line in enumerate(written, start=1)]
    for kept in range(len(written)):
        with log_of(b"".join(written[:kept])) as log:
            assert log.verify() is None
            assert [log.contains(head) for head in heads] == [number < kept for number in range(len(heads))]
            log.append("sent", {"in its place": True})
            assert log.verify() is None
            assert not log.contains(heads[-1])


@pytest.mark.parametrize(
    "line",
    ['{"n":1,"x":NaN}', '{"n":1,"x":1e999}', "[" * 100_000, "{}", "[]", "", "\udcff", '{"n":1,"n":1}'],
    ids=lambda line: repr(line)[:20],
)
def test_what_json_reads_and_a_log_does_not_shows_too(log: AuditLog, line: str) -> None:
    log.append("sent", {})
    with log.path.open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    assert log.verify() == "line 2 was edited"
    assert not log.contains(f"2:{START}")
    with pytest.raises(DataError, match="last line is damaged"):
        log.append("sent", {})


@pytest.mark.parametrize("values", [{}, {"n": None}, {"n": "x"}, {"n": 1.5}, {"n": True}, {"n": [1]}], ids=str)
def test_a_line_that_has_its_hash_and_no_number_is_damaged(log: AuditLog, values: dict[str, object]) -> None:
    log.append("sent", {})
    with log.path.open("ab") as file:
        file.write(audit._canonical({**values, "hash": audit._hash(values)}) + b"\n")
    with pytest.raises(DataError, match="last line is damaged"):
        log.append("sent", {})
    assert log.verify() is not None


def test_another_spelling_of_the_same_values_shows(log: AuditLog) -> None:
    log.append("sent", {"a": 1})
    log.path.write_bytes(log.path.read_bytes().replace(b":", b": "))
    assert log.verify() == "line 1 was edited"


def test_what_a_power_cut_left_of_a_line_is_dropped_at_the_next_append(written: list[bytes]) -> None:
    whole = b"".join(written[:2])
    for torn in (written[2][:1], written[2][:100], written[2][:-1]):
        with log_of(whole + torn) as log:
            assert log.head == f"2:{json.loads(written[1])['hash']}"
            assert log.append("sent", {}) == log.head
            assert log.verify() is None
            assert log.path.read_bytes().startswith(whole + b'{"event":"sent","facts":{}')
    with log_of(written[0][:50]) as log:
        assert log.append("sent", {}).startswith("1:")
        assert log.verify() is None


@pytest.mark.parametrize("place", [0, 30, -80, -2])
def test_after_a_damaged_last_line_nothing_is_written(written: list[bytes], place: int) -> None:
    changed = bytearray(b"".join(written[:3]))
    changed[place if place < 0 else len(written[0]) + len(written[1]) + place] ^= 1
    with log_of(bytes(changed)) as log:
        with pytest.raises(DataError, match="last line is damaged"):
            log.append("sent", {})
        with pytest.raises(DataError, match="last line is damaged"):
            _ = log.head
        assert log.path.read_bytes() == changed


def test_a_line_too_long_to_be_found_again_is_not_written(log: AuditLog) -> None:
    head = log.append("sent", {"reason": "x" * (audit.TAIL // 4)})
    with pytest.raises(DataError, match="too long"):
        log.append("refused", {"reason": "ü" * (audit.TAIL // 4)})
    assert log.head == head
    with log.path.open("ab") as file:
        file.write(b"t" * (audit.TAIL // 2))
    assert log.append("sent", {}).startswith("2:")
    assert log.verify() is None


def append_many(state: Path, writer: int, barrier: Barrier) -> None:
    hashed = audit._hash

    def slowly_hashed(values: dict[str, Any]) -> str:
        time.sleep(0.002)  # between reading the last line and writing the next
        return hashed(values)

    audit._hash = slowly_hashed
    barrier.wait(60)
    for number in range(50):
        AuditLog(state).append("sent", {"writer": writer, "number": number})


def test_two_processes_write_one_whole_log(log: AuditLog) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=append_many, args=(log.state, writer, barrier)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
        assert process.exitcode == 0
    assert log.verify() is None
    facts = [json.loads(line)["facts"] for line in log.lines()]
    for writer in range(2):
        assert [fact["number"] for fact in facts if fact["writer"] == writer] == list(range(50))
    assert len(facts) == 100
