"""Where text from outside becomes a path, and that none of it can lead out of the folder that it is put into.

text             comes from                   becomes                               is checked by
run              messages                     runs/RUN.json, results/RUN.json,
                                              answers/RUN/ below state/             wire.RunId
round, base      messages                     state/answers/RUN/ROUND-BASE/         wire.Round, wire.Digest
plan's hash      Opening; computed here       state/plans/HASH.json                 nothing to check
plan's seed      Opening                      state/splits/SEED-SHARE.json          Plan.seed
site             Update                       runs/RUN/spool/ROUND/SITE/            config.Name
site             `enrol`, typed by a person   invitations/SITE.yaml                 registry.Enrolment
run, file        GET /v1/site/models/...      releases/RUN/FILE                     what is in releases/, RELEASED
run              the list of models           state/models/RUN/                     models.parse_offered
case             a hospital's own table       cases/CASE/, PREPARED/CASE/           manifest.FOLDER_NAME
case             folders of a public set      RESULTS/CASE.json                     Dataset.case
institution      a public set's table         RUN/sites/SITE/                       partition

Named by the person at the machine, and followed as they stand: folders and files of a config, RUN of a command.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import TypeAdapter, ValidationError
from starlette.testclient import TestClient

from client.data.datasets import datasets
from client.data.manifest import FOLDER_NAME
from client.models import parse_offered
from server.registry import Registry
from server.simulation.partition import partition
from server.superlink.pages import build
from shared_model import wire
from shared_model.config import Plan
from shared_model.errors import ConfigError, DataError, MtsunetError
from shared_model.released import CARD, RELEASED, SIGNATURE
from shared_model.signing import to_line
from tests.shared_model.test_wire import HEADERS, RUN

ESCAPES = (
    *("..", ".", "", "/", "/etc/passwd", "../a", "a/b", "a/../..", "a\\b", "..\\a", "C:a", "~", "~root", "a\0", "\0"),
    *(
        "a\n",
        "\na",
        " a",
        "a ",
        ".a",
        "a.",
        "-rf",
        "con\t",
        "a\u2215b",
        "a\uff0fb",
        "\u202ea",
        "%2e%2e",
        "a%2fb",
        "a;b",
    ),
)
"""Ways out of a folder, and names that only look like one name."""
PADDED = (f"{RUN}\n", f"{RUN}/..", f"../{RUN}", f"{RUN[:-1]}/", f"{RUN[:-1]}.", "0" * 15 + "\0", RUN.upper(), "٠" * 16)


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.kind)
def test_no_header_takes_a_name_that_leads_out(header: wire.Header) -> None:
    values = header.model_dump()
    assert type(header).model_validate(values) == header
    for field in {"run", "site", "base", "plan"} & set(values):
        for text in (*ESCAPES, *PADDED):
            with pytest.raises(ValidationError, match=field):
                type(header).model_validate(values | {field: text})
    for index in (-1, 10_001, "../1", "1/..", 1.5) if "round" in values else ():
        with pytest.raises(ValidationError, match="round"):
            type(header).model_validate(values | {"round": index})


def test_a_plans_own_names_and_numbers(tmp_path: Path) -> None:
    good = {"name": "a", "synthetic": True, "sites": ["a", "b"]}
    Plan.model_validate(good)
    for text in ESCAPES:
        for change in ({"name": text}, {"sites": ["a", text]}, {"seed": text}):
            with pytest.raises(ValidationError):
                Plan.model_validate(good | change)


def test_a_site_is_enrolled_under_a_name_alone(tmp_path: Path) -> None:
    line = to_line(ec.generate_private_key(ec.SECP384R1()).public_key())
    for text in ESCAPES:
        with pytest.raises(ConfigError):
            Registry(tmp_path / "sites.json").enrol(text, line)
    assert not (tmp_path / "sites.json").exists()


def test_offered_models_are_runs() -> None:
    for text in (*ESCAPES, *PADDED):
        page = TypeAdapter(dict[str, list[str]]).dump_json({"models": [text]})
        with pytest.raises(MtsunetError):
            parse_offered(page)


def test_pages_serve_the_four_files_of_a_release_and_nothing_else(tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    for path in (releases / RUN / CARD, releases / RUN / SIGNATURE, releases / RUN / "other", tmp_path / "release.key"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    app = build(Registry(tmp_path / "sites.json"), set, releases)
    client = TestClient(app)
    assert client.get(f"/v1/site/models/{RUN}/{CARD}").text == CARD
    asked = [f"{RUN}/{name}" for name in (*ESCAPES, "other", "../../release.key", "..%2f..%2frelease.key")]
    asked += [f"{run}/{CARD}" for run in (*ESCAPES, *PADDED)]
    asked += ["../release.key", "%2e%2e/release.key", "..%2frelease.key", f"{RUN}/%2e%2e/%2e%2e/release.key"]
    for name in asked:
        try:
            answer = client.get(f"/v1/site/models/{name}")
        except Exception as error:  # the test's own client will not send it
            assert type(error).__name__ == "InvalidURL"
            continue
        assert answer.status_code == 404 or set(answer.json()) == {"models"}, name
    (releases / RUN / SIGNATURE).unlink()
    (releases / RUN / SIGNATURE).symlink_to(tmp_path / "release.key")
    (releases / "linked").symlink_to(releases / RUN)
    for name in (f"{RUN}/{SIGNATURE}", f"linked/{CARD}"):
        assert client.get(f"/v1/site/models/{name}").status_code == 404, name
    assert set(RELEASED) >= {CARD, SIGNATURE}


@pytest.mark.parametrize("source", ["manifest", *datasets()])
def test_a_case_is_a_folders_name(source: str) -> None:
    pattern = FOLDER_NAME if source == "manifest" else re.compile(datasets()[source].case)
    assert [text for text in ESCAPES if text != "a." and pattern.fullmatch(text)] == []


def test_an_institution_of_a_table_is_a_folders_name(tmp_path: Path) -> None:
    table, case = tmp_path / "partition.csv", SimpleNamespace(id="FeTS2022_01")
    for text in ("../1", "1/2", "..", "a b", "1\\2"):
        table.write_text(f"Partition_ID,Subject_ID\n{text},{case.id}\n")
        with pytest.raises(DataError, match="is no name for a folder"):
            partition([case], table, 1)  # type: ignore[list-item]
