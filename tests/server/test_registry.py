"""The registry: one key in force per site, nothing forgotten, and every process sees the same at once."""

import json
import multiprocessing
import shutil
import tempfile
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.registry import Registry
from shared_model.errors import ConfigError
from shared_model.signing import from_line, to_line, to_pem


def new_line() -> str:
    return to_line(ec.generate_private_key(ec.SECP384R1()).public_key())


LINES = [new_line() for _ in range(5)]
PEMS = [to_pem(from_line(line)) for line in LINES]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "sites.json")


def refusal(registry: Registry, site: str, line: str, replace: bool = False) -> str:
    """Why an enrolment is refused; it leaves the rows as they were."""
    before = registry.rows()
    with pytest.raises(ConfigError) as caught:
        registry.enrol(site, line, replace)
    assert "\n" not in str(caught.value)
    assert registry.rows() == before
    return str(caught.value)


def test_an_enrolled_key_is_known_and_another_is_not(registry: Registry) -> None:
    assert (registry.rows(), registry.sites()) == ((), {})
    row = registry.enrol("north", f"{LINES[0]} a comment\n")
    assert (row.site, row.key, row.pem, row.revoked, row.node) == ("north", LINES[0], PEMS[0], None, None)
    assert registry.of_key(PEMS[0]) == row
    assert registry.of_key(PEMS[1]) is None
    assert registry.sites() == {"north": row}


def test_a_key_serves_one_site_once(registry: Registry) -> None:
    registry.enrol("north", LINES[0])
    assert "this key is enrolled for 'north'" in refusal(registry, "south", LINES[0])
    assert "this key is enrolled for 'north'" in refusal(registry, "north", LINES[0], replace=True)
    registry.revoke("north")
    assert "this key is revoked for 'north'" in refusal(registry, "north", LINES[0])


def test_a_second_key_is_taken_only_in_place_of_the_first(registry: Registry) -> None:
    first = registry.enrol("north", LINES[0])
    assert f"site 'north' has a key already ({first.fingerprint})" in refusal(registry, "north", LINES[1])
    second = registry.enrol("north", LINES[1], replace=True)
    assert registry.sites() == {"north": second}
    assert [(row.key, row.revoked is None) for row in registry.rows()] == [(LINES[0], False), (LINES[1], True)]


def test_a_revoked_site_is_shut_out_stays_listed_and_may_come_back_with_a_new_key(registry: Registry) -> None:
    registry.enrol("north", LINES[0])
    registry.enrol("south", LINES[1])
    registry.revoke("north")
    assert list(registry.sites()) == ["south"]
    known = registry.of_key(PEMS[0])
    assert known is not None and known.revoked is not None
    for site in ("north", "west"):
        with pytest.raises(ConfigError, match=f"site '{site}' is not enrolled"):
            registry.revoke(site)
    registry.enrol("north", LINES[2])
    assert [row.site for row in registry.rows()] == ["north", "south", "north"]


@pytest.mark.parametrize(
    ("site", "line", "words"),
    [
        ("North Hospital", LINES[0], "'North Hospital' is no name for a site"),
        ("../north", LINES[0], "'../north' is no name for a site"),
        ("north", "ssh-ed25519 AAAA", "no OpenSSH public key"),
        ("north", "", "no OpenSSH public key"),
    ],
    ids=["capitals", "path", "no key", "empty"],
)
def test_a_bad_name_or_key_is_refused_in_one_line(registry: Registry, site: str, line: str, words: str) -> None:
    assert words in refusal(registry, site, line)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[1]", '[{"site": "north"}]', "\udcff", None],
    ids=["empty", "mapping", "number", "missing", "bytes", "folder"],
)
def test_a_damaged_file_lets_nobody_in(registry: Registry, content: str | None) -> None:
    registry.enrol("north", LINES[0])
    registry.path.unlink()
    if content is None:
        registry.path.mkdir()
    else:
        registry.path.write_bytes(content.encode(errors="surrogateescape"))
    for look in (registry.rows, registry.sites, lambda: registry.of_key(PEMS[0]), lambda: registry.revoke("north")):
        with pytest.raises(ConfigError, match=r"sites\.json: cannot be read"):
            look()


def test_a_file_that_cannot_even_be_looked_for_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with pytest.raises(ConfigError, match=r"sites\.json: cannot be read"):
        Registry(tmp_path / "folder" / "sites.json").of_key(PEMS[0])


def test_a_file_whose_key_was_cut_lets_nobody_in(registry: Registry) -> None:
    registry.enrol("north", LINES[0])
    rows = json.loads(registry.path.read_bytes())
    rows[0]["key"] = rows[0]["key"][:-9]
    registry.path.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=r"sites\.json: cannot be read"):
        registry.of_key(PEMS[0])


def test_a_lost_file_lets_nobody_in_and_a_restored_one_all(registry: Registry) -> None:
    row = registry.enrol("north", LINES[0])
    moved = registry.path.rename(registry.path.with_name("backup.json"))
    assert registry.of_key(PEMS[0]) is None
    moved.rename(registry.path)
    assert registry.of_key(PEMS[0]) == row


def enrol_ten(path: Path, worker: int, barrier: Barrier) -> None:
    registry, lines = Registry(path), [new_line() for _ in range(10)]
    barrier.wait(60)
    for number, line in enumerate(lines):
        registry.give_node(registry.enrol(f"site-{worker}-{number}", line), 10 * worker + number)
    registry.revoke(f"site-{worker}-9")


def test_enrolments_by_three_processes_lose_none_and_are_seen_at_once(registry: Registry) -> None:
    registry.enrol("north", LINES[0])
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=enrol_ten, args=(registry.path, worker, barrier)) for worker in range(3)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
        assert process.exitcode == 0
    expected = {f"site-{worker}-{number}": 10 * worker + number for worker in range(3) for number in range(10)}
    assert {row.site: row.node for row in registry.rows()} == expected | {"north": None}
    assert len(registry.rows()) == 31
    assert set(expected) - set(registry.sites()) == {"site-0-9", "site-1-9", "site-2-9"}


class AgainstADict(RuleBasedStateMachine):
    """Two registries on one file, as two processes have them, against dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.both = [Registry(self.folder / "sites.json"), Registry(self.folder / "sites.json")]
        self.known: dict[str, tuple[str, int | None]] = {}
        self.in_force: dict[str, str] = {}

    which = st.integers(0, 1)
    sites = st.sampled_from(["north", "south"])
    lines = st.sampled_from(LINES)

    @rule(which=which, site=sites, line=lines, replace=st.booleans())
    def enrol(self, which: int, site: str, line: str, replace: bool) -> None:
        if line in self.known or (site in self.in_force and not replace):
            refusal(self.both[which], site, line, replace)
        else:
            row = self.both[which].enrol(site, line, replace)
            assert (row.site, row.key) == (site, line)
            self.known[line], self.in_force[site] = (site, None), line

    @rule(which=which, site=sites)
    def revoke(self, which: int, site: str) -> None:
        if site in self.in_force:
            self.both[which].revoke(site)
            del self.in_force[site]
        else:
            with pytest.raises(ConfigError, match="is not enrolled"):
                self.both[which].revoke(site)

    @rule(which=which, line=lines, node=st.integers(1, 9))
    def give_node(self, which: int, line: str, node: int) -> None:
        row = self.both[which].of_key(PEMS[LINES.index(line)])
        assert (row is None) == (line not in self.known)
        if row is not None:
            self.both[which].give_node(row, node)
            self.known[line] = (self.known[line][0], node)

    @invariant()
    def both_see_what_the_dicts_hold(self) -> None:
        for registry in self.both:
            assert [(row.key, (row.site, row.node)) for row in registry.rows()] == list(self.known.items())
            assert {site: row.key for site, row in registry.sites().items()} == self.in_force
            assert {row.key for row in registry.rows() if row.revoked is None} == set(self.in_force.values())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(
    max_examples=15, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)
