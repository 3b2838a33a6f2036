"""The site's own logs: no message of an error, and an end to their growth."""

from pathlib import Path

import pytest

from client import logs
from client.logs import append, note_failure


def test_a_failure_is_noted_without_its_message(tmp_path: Path) -> None:
    try:
        raise ValueError("DOE^JANE")
    except ValueError as error:
        note_failure(tmp_path, error)
    text = (tmp_path / "logs" / "errors.log").read_text()
    assert "ValueError" in text and "test_logs.py" in text
    assert "DOE" not in text


def test_a_log_begins_anew_and_the_one_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT_BYTES", 100)
    for index in range(100):
        append(tmp_path / "node.log", f"line {index:03d}")  # 9 bytes each
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "node.log.1"]
    kept = "".join((tmp_path / name).read_text() for name in ("node.log.1", "node.log")).splitlines()
    assert kept == [f"line {index:03d}" for index in range(100 - len(kept), 100)]
    assert all(path.stat().st_size <= 110 for path in tmp_path.iterdir())
