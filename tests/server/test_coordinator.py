"""The coordinator's folder: made whole and private, never over another, and its config refused in one line."""

from pathlib import Path

import pytest
from cryptography import x509

from server.certificates import read_certificate
from server.coordinator import FOLDER_VARIABLE, Coordinator, CoordinatorConfig, from_environment, init
from server.enrolment import write_invitation
from shared_model.config import Invitation, load_config
from shared_model.errors import ConfigError
from shared_model.signing import release_is_genuine, release_public_key, sign_release

CONFIG = CoordinatorConfig(names=("fed.example.org", "10.0.0.5"), port=8443, admin_port=8444)
SECRETS = ("authority/ca.key", "tls/server.key", "release.key", "admin.token", "executor.secret")


@pytest.fixture
def made(tmp_path: Path) -> Coordinator:
    return init(tmp_path / "coordinator", CONFIG)


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        _ = Coordinator(folder).config
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_init_makes_a_private_folder_that_reads_back(made: Coordinator) -> None:
    files = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()}
    assert files == {*SECRETS, "config.yaml", "authority/ca.crt", "tls/server.crt"}
    assert made.folder.stat().st_mode & 0o777 == 0o700
    for name in SECRETS:
        assert (made.folder / name).stat().st_mode & 0o777 == 0o600, name
    assert Coordinator(made.folder).config == CONFIG
    assert CONFIG.address == "fed.example.org:8443"
    names = read_certificate(made.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    signature = sign_release(made.release_key, b"manifest")
    assert release_is_genuine(release_public_key(made.release_key), b"manifest", signature)


def test_two_coordinators_share_no_secret(made: Coordinator, tmp_path: Path) -> None:
    other = init(tmp_path / "other", CONFIG)
    for name in (*SECRETS, "authority/ca.crt", "tls/server.crt"):
        assert (made.folder / name).read_bytes() != (other.folder / name).read_bytes(), name
    assert len(made.token) == 43  # 32 bytes in base64 without padding
    assert len(made.secret_file.read_bytes()) == 32


def test_init_takes_an_empty_folder_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made = init(tmp_path / "empty", CONFIG)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    (tmp_path / "file").touch()
    for folder in (made.folder, tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="is no empty folder"):
            init(folder, CONFIG)
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_coordinator_says_how_to_make_one(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: holds no coordinator. Make one with: mtsunet-server init."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prot: 1", "prot: unknown key. Known here are names, listen, port"),
        ("names: [x]", "'names' stands twice"),
        ("certificate: own.pem", "certificate, certificate_key and authority belong together"),
        ("{certificate: own.pem, certificate_key: own.key}", "config.yaml: bad YAML"),
        ("certificate_key: own.key\nauthority: ca.pem", "certificate, certificate_key and authority belong together"),
        ("health_port: 70000", "health_port: input should be less than or equal to 65535"),
        ("health_port: [", "config.yaml: bad YAML"),
    ],
    ids=["unknown", "twice", "no key", "a mapping in braces", "no certificate", "no port", "bad YAML"],
)
def test_a_wrong_config_is_told_in_one_line(made: Coordinator, line: str, words: str) -> None:
    with (made.folder / "config.yaml").open("a") as file:
        file.write(f"{line}\n")
    told = refusal(made.folder)
    assert words in told
    assert str(made.folder / "config.yaml") in told


@pytest.mark.parametrize("name", ["fed.example.org:8443", "https://fed", "zürich.ch", "fe80::1%eth0", "beef:8443", ""])
def test_a_name_that_no_hospital_could_reach_is_refused(made: Coordinator, name: str) -> None:
    (made.folder / "config.yaml").write_text(f"names: ['{name}']\nport: 1\nadmin_port: 2\n")
    assert f"names: '{name}' is no host name or IP address" in refusal(made.folder)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("fed-1.example.org", "fed-1.example.org:8443"),
        ("10.0.0.5", "10.0.0.5:8443"),
        ("2001:DB8::1", "[2001:DB8::1]:8443"),
    ],
    ids=["name", "IPv4", "IPv6"],
)
def test_an_invitation_holds_what_a_hospital_needs(tmp_path: Path, name: str, address: str) -> None:
    made = init(tmp_path / "coordinator", CONFIG.model_copy(update={"names": (name,)}))
    invitation = load_config(Invitation, write_invitation(made, "north"))
    assert invitation == Invitation(
        site="north",
        address=address,
        authority=(made.folder / "authority" / "ca.crt").read_text(),
        release_key=release_public_key(made.release_key),
    )


def test_renew_changes_the_certificate_and_its_key_and_keeps_the_authority(made: Coordinator) -> None:
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    made.renew()
    after = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {made.certificate, made.certificate_key}
    assert made.certificate_key.stat().st_mode & 0o777 == 0o600
    read_certificate(made.certificate).verify_directly_issued_by(read_certificate(made.authority))


def test_ones_own_certificate_is_used_and_not_renewed(made: Coordinator) -> None:
    with (made.folder / "config.yaml").open("a") as file:
        file.write("certificate: own/chain.pem\ncertificate_key: /etc/own.key\nauthority: own/ca.pem\n")
    own = Coordinator(made.folder)
    assert own.certificate == made.folder / "own" / "chain.pem"
    assert own.certificate_key == Path("/etc/own.key")
    assert own.authority == made.folder / "own" / "ca.pem"
    with pytest.raises(ConfigError, match=r"chain\.pem: was not issued here"):
        own.renew()
    assert not own.certificate.exists()


def test_a_process_of_the_server_finds_its_folder_and_an_unknown_run_is_told(
    made: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(made.folder))
    assert from_environment() == made
    with pytest.raises(ConfigError, match="run '0123456789abcdef' is not known here"):
        from_environment().run("0123456789abcdef")
