"""The app that travels: the release's own bytes, no code in them, and nothing else passes for it."""

import hashlib
import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.superlink.shell import FOLDER, build
from shared_model import shell, wire

ROOT = Path(__file__).resolve().parents[2]


def archive(content: bytes = shell.CONTENT) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(content))


def with_file(name: str, text: str) -> bytes:
    """The shell with one more file."""
    packed = io.BytesIO(shell.CONTENT)
    with zipfile.ZipFile(packed, "a") as opened:
        opened.writestr(name, text)
    return packed.getvalue()


def test_flower_builds_the_bytes_that_are_shipped() -> None:
    assert build() == (FOLDER / "shell.fab").read_bytes() == shell.CONTENT
    assert shell.fault(shell.CONTENT) is None


def test_it_holds_no_code() -> None:
    project = (FOLDER / "pyproject.toml").read_bytes()
    assert sorted(archive().namelist()) == sorted(shell.FILES) == [".info/CONTENT", "pyproject.toml"]
    assert archive().read("pyproject.toml") == project
    listed = f"pyproject.toml,{hashlib.sha256(project).hexdigest()},{8 * len(project)}"
    assert archive().read(".info/CONTENT").decode() == listed


def test_release_shell_and_package_have_one_version() -> None:
    mine = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert mine["project"]["version"] == package["project"]["version"] == wire.RELEASE
    assert mine["tool"]["flwr"]["app"]["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_file("server/app.py", "import os"), "it carries 1 more files"),
        (with_file("pyproject.toml/../evil.py", ""), "it carries 1 more files"),
        (b"", "it is no archive"),
        (shell.CONTENT[:-30], "it is no archive"),
    ],
    ids=["code", "path", "empty", "truncated"],
)
def test_another_app_is_refused_with_both_hashes(content: bytes, words: str) -> None:
    told = shell.fault(content)
    assert told is not None
    assert told.endswith(words)
    assert hashlib.sha256(content).hexdigest() in told
    assert hashlib.sha256((FOLDER / "shell.fab").read_bytes()).hexdigest() in told


def test_a_changed_settings_file_is_refused_though_the_names_are_right() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name in shell.FILES:
            opened.writestr(name, archive().read(name).replace(b"client.app", b"client.bad"))
    assert shell.fault(packed.getvalue()) == (
        f"app {hashlib.sha256(packed.getvalue()).hexdigest()} is not this release's shell {shell.DIGEST}"
    )


@given(st.integers(0, len(shell.CONTENT) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, mask: int) -> None:
    changed = bytearray(shell.CONTENT)
    changed[place] ^= mask
    told = shell.fault(bytes(changed))
    assert told is not None
    assert hashlib.sha256(changed).hexdigest() in told


@given(st.binary())
def test_any_bytes_are_refused(content: bytes) -> None:
    assert hashlib.sha256(content).hexdigest() in (shell.fault(content) or "")
