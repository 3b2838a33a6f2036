"""Keys and signatures: a stranger's tools agree about them, and nothing garbled, changed or malleable gets through."""

import base64
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from hypothesis import given
from hypothesis import strategies as st

from shared_model import signing
from shared_model.errors import ConfigError

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP384R1())
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)  # of P-384 (SEC 2, 2.5.1)
GENUINE = signing.signed_headers(KEY, NOW)
NAMES = sorted(GENUINE)
TEXTS = st.text() | st.binary().map(lambda data: base64.b64encode(data).decode())
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def ssh_keygen(*words: str | Path) -> str:
    return subprocess.run(["ssh-keygen", *map(str, words)], check=True, capture_output=True, text=True).stdout


def openssh(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.OpenSSH
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_key_is_its_owners_alone_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / "site.key"
    public = signing.create_site_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.read_site_key(path).public_key() == public
    assert signing.from_line(signing.to_line(public)) == public
    assert signing.from_line(f" {signing.to_line(public)} north\n") == public
    assert serialization.load_pem_public_key(signing.to_pem(public).encode()) == public


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o601], ids=oct)
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    signing.create_site_key(path)
    path.chmod(mode)
    assert "Chmod 600 site.key" in refusal(lambda: signing.read_site_key(path))


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    signing.create_site_key(path)
    before = path.read_bytes()
    assert "there is a key already" in refusal(lambda: signing.create_site_key(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (openssh(ed25519.Ed25519PrivateKey.generate()), "no ECDSA P-384 key"),
        (openssh(ec.generate_private_key(ec.SECP256R1())), "no ECDSA P-384 key"),
        (openssh(rsa.generate_private_key(65537, 2048)), "no ECDSA P-384 key"),
        (pkcs8(KEY), "no unencrypted OpenSSH key"),
        (openssh(KEY)[:200], "no unencrypted OpenSSH key"),
        (signing.to_line(KEY.public_key()).encode(), "no unencrypted OpenSSH key"),
        (b"", "no unencrypted OpenSSH key"),
        (None, "no key can be read here (FileNotFoundError)"),
    ],
    ids=["ed25519", "p-256", "rsa", "pkcs8", "truncated", "public", "empty", "missing"],
)
def test_another_kind_of_key_is_refused_in_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "site.key"
    if content is not None:
        path.touch(0o600)
        path.write_bytes(content)
    assert words in refusal(lambda: signing.read_site_key(path))


@needs_ssh_keygen
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    ssh_keygen("-q", "-t", "ecdsa", "-b", "384", "-N", "a passphrase", "-f", path)
    assert "no unencrypted OpenSSH key" in refusal(lambda: signing.read_site_key(path))


@needs_ssh_keygen
def test_ssh_keygen_prints_the_same_public_key_and_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    public = signing.create_site_key(path)
    assert ssh_keygen("-y", "-f", path).strip() == signing.to_line(public)
    (tmp_path / "site.pub").write_text(f"{signing.to_line(public)} north\n")
    bits, fingerprint, *_ = ssh_keygen("-l", "-E", "sha256", "-f", tmp_path / "site.pub").split()
    assert (bits, fingerprint) == ("384", signing.fingerprint(public))


@given(st.text() | st.text(max_size=30).map(lambda text: f"ecdsa-sha2-nistp384 {text}"))
def test_any_text_is_no_public_key(line: str) -> None:
    refusal(lambda: signing.from_line(line))


def test_a_line_of_another_kind_of_key_is_refused() -> None:
    line = signing.to_line(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert "no ECDSA P-384 key" in refusal(lambda: signing.from_line(line))


def test_headers_are_flowers_own_and_flower_verifies_them() -> None:
    assert signing.AHEAD_SECONDS == SYSTEM_TIME_TOLERANCE
    assert signing.BEHIND_SECONDS == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    assert set(GENUINE) == {FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER}
    public = bytes_to_public_key(base64.b64decode(GENUINE[FLEET_HTTP_PUBLIC_KEY_HEADER]))
    signature = base64.b64decode(GENUINE[FLEET_HTTP_SIGNATURE_HEADER])
    time = GENUINE[TIMESTAMP_HEADER]
    assert time == "2026-03-01T12:00:00+00:00"
    assert verify_signature(public, time.encode(), signature)
    assert not verify_signature(public, time.replace("12", "13").encode(), signature)


@pytest.mark.parametrize("seconds", [-400.0, 0.0, 7.5])
def test_headers_tell_who_and_how_far_the_clock_is_ahead(seconds: float) -> None:
    signed = signing.verify_headers(GENUINE, NOW - timedelta(seconds=seconds))
    assert signed is not None
    assert signed.key == signing.to_pem(KEY.public_key())
    assert signed.ahead == seconds


def signed_by(key: ec.EllipticCurvePrivateKey, time: str) -> dict[str, str]:
    """Headers whose signature is good, whatever the key and the time."""
    signature = key.sign(time.encode(), ec.ECDSA(hashes.SHA256()))
    return {
        signing.KEY_HEADER: base64.b64encode(signing.to_pem(key.public_key()).encode()).decode(),
        signing.TIME_HEADER: time,
        signing.SIGNATURE_HEADER: base64.b64encode(signature).decode(),
    }


def test_a_time_without_a_zone_another_curve_and_another_signer_are_nobody() -> None:
    assert signing.verify_headers(signed_by(KEY, NOW.isoformat()), NOW) is not None
    assert signing.verify_headers(signed_by(KEY, "2026-03-01T12:00:00"), NOW) is None
    assert signing.verify_headers(signed_by(KEY, "yesterday"), NOW) is None
    assert signing.verify_headers(signed_by(ec.generate_private_key(ec.SECP256R1()), NOW.isoformat()), NOW) is None
    other = signed_by(ec.generate_private_key(ec.SECP384R1()), NOW.isoformat())
    mixed = GENUINE | {signing.KEY_HEADER: other[signing.KEY_HEADER]}
    assert signing.verify_headers(mixed, NOW) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_header_is_nobody(name: str) -> None:
    assert signing.verify_headers({key: value for key, value in GENUINE.items() if key != name}, NOW) is None


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, TEXTS)).filter(bool))
def test_garbled_headers_are_nobody(garbled: dict[str, str]) -> None:
    assert signing.verify_headers(GENUINE | garbled, NOW) is None


@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.characters(max_codepoint=0x17F))
def test_a_changed_character_makes_nobody_or_the_same_request(name: str, place: int, character: str) -> None:
    text = GENUINE[name]
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    signed = signing.verify_headers(GENUINE | {name: changed}, NOW)
    assert signed is None or signed == signing.verify_headers(GENUINE, NOW)


def test_a_signature_turned_without_the_key_has_the_same_nonce() -> None:
    r, s = decode_dss_signature(base64.b64decode(GENUINE[signing.SIGNATURE_HEADER]))
    turned = base64.b64encode(encode_dss_signature(r, ORDER - s)).decode()
    assert turned != GENUINE[signing.SIGNATURE_HEADER]
    signed = signing.verify_headers(GENUINE | {signing.SIGNATURE_HEADER: turned}, NOW)
    assert signed is not None
    assert signed == signing.verify_headers(GENUINE, NOW)
    assert signed.nonce == f"2026-03-01T12:00:00+00:00 {r:x}"


def test_two_requests_at_one_time_have_two_nonces() -> None:
    pair = [signing.verify_headers(signing.signed_headers(KEY, NOW), NOW) for _ in range(2)]
    assert pair[0] is not None and pair[1] is not None
    assert pair[0].nonce != pair[1].nonce


@pytest.fixture(scope="module")
def release_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "release.key"
    signing.create_release_key(path)
    return path


def test_a_release_is_known_by_its_key(release_key: Path, tmp_path: Path) -> None:
    assert release_key.stat().st_mode & 0o777 == 0o600
    public, signature = signing.release_public_key(release_key), signing.sign_release(release_key, b"manifest")
    assert signing.release_is_genuine(public, b"manifest", signature)
    signing.create_release_key(tmp_path / "other.key")
    assert not signing.release_is_genuine(signing.release_public_key(tmp_path / "other.key"), b"manifest", signature)
    assert not signing.release_is_genuine(
        public, b"manifest", signing.sign_release(tmp_path / "other.key", b"manifest")
    )


@given(data=st.data(), manifest=st.binary(min_size=1), which=st.integers(0, 2), mask=st.integers(1, 255))
def test_any_changed_byte_is_no_release(
    release_key: Path, data: st.DataObject, manifest: bytes, which: int, mask: int
) -> None:
    public, signature = signing.release_public_key(release_key), signing.sign_release(release_key, manifest)
    parts = [bytearray.fromhex(public), bytearray(manifest), bytearray.fromhex(signature)]
    parts[which][data.draw(st.integers(0, len(parts[which]) - 1))] ^= mask
    assert not signing.release_is_genuine(parts[0].hex(), bytes(parts[1]), parts[2].hex())


@given(st.text(), st.text())
def test_any_text_is_no_release(release_key: Path, public: str, signature: str) -> None:
    genuine = signing.release_public_key(release_key)
    assert not signing.release_is_genuine(public, b"manifest", signing.sign_release(release_key, b"manifest"))
    assert not signing.release_is_genuine(genuine, b"manifest", signature)


@pytest.mark.parametrize("content", [None, b"", pkcs8(KEY)], ids=["missing", "empty", "another kind"])
def test_a_release_key_that_will_not_do_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "release.key").write_bytes(content)
    assert "release.key" in refusal(lambda: signing.release_public_key(tmp_path / "release.key"))
