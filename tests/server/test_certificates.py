"""Certificates: a stranger's verifier trusts the server's under its own names and its own authority, and no other."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from server import certificates
from server.certificates import create_authority, days_left, issue_server_certificate, read_certificate
from shared_model.errors import ConfigError

NAMES = ("fed.example.org", "10.0.0.5", "2001:db8::1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority (ca), the server's certificate (tls) and an authority of the same name that is another (other)."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        create_authority(folder / f"{name}.key", folder / f"{name}.crt")
    issue(folder)
    return folder


def issue(folder: Path, names: tuple[str, ...] = NAMES, to: str = "tls") -> None:
    issue_server_certificate(folder / "ca.key", folder / "ca.crt", names, folder / f"{to}.key", folder / f"{to}.crt")


def trusted(folder: Path, name: str, authority: str = "ca", later: timedelta = timedelta()) -> bool:
    """Whether a client that trusts the authority believes that the server's certificate is that of `name`."""
    try:
        subject: x509.IPAddress | x509.DNSName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    store = Store([read_certificate(folder / f"{authority}.crt")])
    verifier = PolicyBuilder().store(store).time(datetime.now(UTC) + later).build_server_verifier(subject)
    try:
        chain = verifier.verify(read_certificate(folder / "tls.crt"), [])
    except VerificationError:
        return False
    assert chain == [read_certificate(folder / "tls.crt"), read_certificate(folder / "ca.crt")]
    return True


@pytest.mark.parametrize("name", NAMES)
def test_the_server_is_trusted_under_each_of_its_names(folder: Path, name: str) -> None:
    assert trusted(folder, name)


@pytest.mark.parametrize("name", ["example.org", "a.fed.example.org", "fed.example.com", "10.0.0.6", "2001:db8::2"])
def test_the_server_is_not_trusted_under_another_name(folder: Path, name: str) -> None:
    assert not trusted(folder, name)


@pytest.mark.parametrize("name", NAMES)
def test_another_authority_of_the_same_name_vouches_for_nothing(folder: Path, name: str) -> None:
    assert read_certificate(folder / "other.crt").subject == read_certificate(folder / "ca.crt").subject
    assert not trusted(folder, name, "other")


@pytest.mark.parametrize(
    ("later", "good"),
    [
        (-timedelta(minutes=6), False),
        (-timedelta(minutes=4), True),
        (timedelta(days=396), True),
        (timedelta(days=398), False),
    ],
    ids=["a slow clock", "a clock a little behind", "the last day", "past it"],
)
def test_it_is_good_from_five_minutes_ago_for_397_days(folder: Path, later: timedelta, good: bool) -> None:
    assert trusted(folder, NAMES[0], later=later) is good


def test_a_server_certificate_issues_no_other(folder: Path) -> None:
    for name, authority in (("ca", True), ("tls", False)):
        extensions = read_certificate(folder / f"{name}.crt").extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is authority
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (authority, authority, True)


def test_keys_are_their_owners_alone_and_fit_their_certificates(folder: Path) -> None:
    for name in ("ca", "tls"):
        assert (folder / f"{name}.key").stat().st_mode & 0o777 == 0o600
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
        assert key.public_key() == read_certificate(folder / f"{name}.crt").public_key()


def test_days_left_are_counted_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert days_left(folder / "tls.crt") == pytest.approx(397, abs=0.01)
    assert days_left(folder / "ca.crt") == pytest.approx(3650, abs=0.01)
    monkeypatch.setattr(certificates, "SERVER_DAYS", 0)
    issue(folder, to="ended")
    assert -0.01 < days_left(folder / "ended.crt") < 0


def test_a_common_name_is_cut_where_x509_ends_it(folder: Path) -> None:
    long = "a" * 60 + ".example.org"
    issue(folder, (long,), to="long")
    names = read_certificate(folder / "long.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [long]
    assert read_certificate(folder / "long.crt").subject.rfc4514_string() == f"CN={long[:64]}"


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("ca.key", None, "ca.key: cannot be read (FileNotFoundError)"),
        ("ca.key", b"", "ca.key: cannot be read (ValueError)"),
        ("ca.key", pem(ec.generate_private_key(ec.SECP256R1()), b"locked"), "ca.key: cannot be read (TypeError)"),
        ("ca.key", pem(ed25519.Ed25519PrivateKey.generate()), "ca.key: is no EC key"),
        ("ca.key", pem(ec.generate_private_key(ec.SECP256R1())), "ca.key: is not the key of ca.crt"),
        ("ca.crt", None, "ca.crt: no certificate (FileNotFoundError)"),
        ("ca.crt", b"-----BEGIN", "ca.crt: no certificate (ValueError)"),
    ],
    ids=["no key", "empty key", "locked key", "another kind", "another key", "no certificate", "cut certificate"],
)
def test_an_authority_that_will_not_do_is_told_in_one_line(
    folder: Path, tmp_path: Path, file: str, content: bytes | None, words: str
) -> None:
    for name in ("ca.key", "ca.crt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        issue(tmp_path)
    assert words in caught.value.what
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tls.key").exists()
