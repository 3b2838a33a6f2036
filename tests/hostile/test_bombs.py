"""Small files and answers that become large things: refused without them."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from client import connection
from client.connection import RefusedHereError
from shared_model import shell
from shared_model.config import Plan, load_config
from shared_model.errors import ConfigError
from tests.hostile.guard import MEBIBYTE, bounded

BOMB = 100 * MEBIBYTE
LITTLE = 64 * MEBIBYTE
"""Memory that is too little for a bomb."""

LAUGHS = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi"))
"""Nine times nine, eight times over: as text 200 MB."""
YAML: dict[str, str | bytes] = {
    "laughs": f"a: &a [x]\n{LAUGHS}",
    "laughs as a key": f"a: &a [x]\n{LAUGHS}? *i\n: 1",
    "merged": "a: &a {x: 1}\n" + LAUGHS.replace("[", "{<<: [").replace("]", "]}"),
    "itself": "name: &a [*a]",
    "an object": "name: !!python/object/apply:os.system [id]",
    "a tag of YAML's own": "name: !!timestamp x",
    "nested": "name: " + "[" * 100_000,
    "nested by lines": "- " * 100_000,
    "a long whole number": "name: a\nsynthetic: true\nminimum_sites: 0x" + "f" * 900_000,
    "a long number to base 60": "name: " + "1:" * 500_000 + "1",
    "a number beyond any float": "name: " + "1:" * 400 + "1.0",
    "large": "#" * (2 * MEBIBYTE),
    "NUL": "name: a\0",
    "UTF-16": "name: a".encode("utf-16"),
    "a tab": "name:\n\t- a",
}


@pytest.mark.parametrize("trick", YAML)
def test_hostile_yaml_is_refused(trick: str, tmp_path: Path) -> None:
    text = YAML[trick]
    (tmp_path / "plan.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with bounded(10, 4 * LITTLE), pytest.raises(ConfigError):
        load_config(Plan, tmp_path / "plan.yaml")


def test_an_alias_that_stands_for_little_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("name: &n a\nsynthetic: true\nminimum_sites: 1\nsites: [*n]")
    assert load_config(Plan, tmp_path / "plan.yaml").sites == ("a",)


def packed(fill: Callable[[zipfile.ZipFile], object]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        fill(archive)
    return stream.getvalue()


def linked(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("pyproject.toml")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


APPS = {
    "bomb": lambda archive: archive.writestr("pyproject.toml", bytes(BOMB)),
    "absolute": lambda archive: archive.writestr("/etc/cron.d/x", ""),
    "above": lambda archive: archive.writestr("../../client/app.py", ""),
    "link": linked,
    "entries": lambda archive: [archive.writestr(f"{number}", "") for number in range(20_000)],
}


@pytest.mark.parametrize("trick", APPS)
def test_a_hostile_app_is_looked_at_and_not_unpacked(
    trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = packed(APPS[trick])
    monkeypatch.chdir(tmp_path)
    with bounded(10, LITTLE):
        assert "is not this release's shell" in (shell.fault(data) or "")
    assert not list(tmp_path.iterdir())


def ask(answer: httpx.Response) -> bytes:
    transport = httpx.MockTransport(lambda request: answer)
    with httpx.Client(base_url="https://x", transport=transport) as client:
        return connection._whole(client, "/", {}, MEBIBYTE).content


class Endless(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield bytes(MEBIBYTE)


def test_an_answer_without_end_is_cut_off() -> None:
    with bounded(10, LITTLE), pytest.raises(RefusedHereError, match="more than 1048576 bytes"):
        ask(httpx.Response(200, stream=Endless()))


def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = zlib.compress(bytes(BOMB))
    assert len(bomb) < MEBIBYTE
    with bounded(10, LITTLE):
        assert ask(httpx.Response(200, headers={"content-encoding": "deflate"}, stream=httpx.ByteStream(bomb))) == bomb
