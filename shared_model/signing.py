"""Keys and signatures: a site's key, by which it is known, and the coordinator's key, by which a release is known.

A site signs each request with ECDSA (P-384, SHA-256) over the time it was made, as Flower's nodes do; the headers are
Flower's. A release is signed with Ed25519 over the sha256 of its manifest.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from shared_model.checkpoint import write_bytes
from shared_model.errors import ConfigError

KEY_HEADER = "flwr-public-key"
TIME_HEADER = "flwr-timestamp"
SIGNATURE_HEADER = "flwr-signature"
AHEAD_SECONDS = 5.0
BEHIND_SECONDS = 305.0
"""How far a site's clock may be off; Flower's own bounds."""
CLOCK_REFUSED = 9004
"""The number of a refusal for that alone."""

SitePublicKey = ec.EllipticCurvePublicKey
SitePrivateKey = ec.EllipticCurvePrivateKey


def create_site_key(path: Path) -> SitePublicKey:
    """Write a new private key (OpenSSH, mode 0600) and return its public half. An existing file is never replaced.

    Raises:
        ConfigError: there is a key already.
    """
    if path.exists():
        raise ConfigError(f"{path}: there is a key already", "keep it, or move it away first")
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    write_bytes(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), mode=0o600)
    return key.public_key()


def read_site_key(path: Path) -> SitePrivateKey:
    """A site's private key.

    Raises:
        ConfigError: missing, unreadable, another kind of key, or readable by others than its owner.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others than its owner can read this key", f"chmod 600 {path.name}")
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        remedy = "make one with: mtsunet-client init"
        raise ConfigError(f"{path}: no key can be read here ({type(error).__name__})", remedy) from None
    except (ValueError, UnsupportedAlgorithm, TypeError):
        raise ConfigError(f"{path}: is no unencrypted OpenSSH key", "restore it from a backup") from None
    if not isinstance(key, SitePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: is no ECDSA P-384 key", "make one with: mtsunet-client init")
    return key


def to_line(key: SitePublicKey) -> str:
    """A public key as one OpenSSH line, the form in which it is sent to the coordinator."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def from_line(line: str) -> SitePublicKey:
    """The inverse of `to_line`; a comment after the key is ignored.

    Raises:
        ConfigError: no ECDSA P-384 public key.
    """
    try:
        key = serialization.load_ssh_public_key(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("this is no OpenSSH public key", "send the site.pub that mtsunet-client init wrote") from None
    if not isinstance(key, SitePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError("this is no ECDSA P-384 key", "send the site.pub that mtsunet-client init wrote")
    return key


def to_pem(key: SitePublicKey) -> str:
    """A public key as PEM, the form in which requests carry it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def fingerprint(key: SitePublicKey) -> str:
    """SHA256:..., as `ssh-keygen -l` prints it, for reading out over the telephone."""
    blob = base64.b64decode(to_line(key).split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def signed_headers(key: SitePrivateKey, now: datetime) -> dict[str, str]:
    """Headers that prove who makes a request, and when.

    Args:
        now: an aware time.
    """
    time = now.astimezone(UTC).isoformat()
    return {
        KEY_HEADER: base64.b64encode(to_pem(key.public_key()).encode()).decode(),
        TIME_HEADER: time,
        SIGNATURE_HEADER: base64.b64encode(key.sign(time.encode("ascii"), ec.ECDSA(hashes.SHA256()))).decode(),
    }


@dataclass(frozen=True)
class Signed:
    """A verified signature.

    Attributes:
        key: the signer's public key as PEM.
        nonce: what no second signature shares, whoever made it: the time and ECDSA's r. (An attacker can turn s into
            n - s without the key, so s cannot tell a replay.)
        ahead: seconds that the signer's clock is ahead of ours.
    """

    key: str
    nonce: str
    ahead: float


def verify_headers(headers: Mapping[str, str], now: datetime) -> Signed | None:
    """Who made a request; None where the headers are missing, malformed or wrongly signed."""
    try:
        pem = base64.b64decode(headers[KEY_HEADER], validate=True)
        signature = base64.b64decode(headers[SIGNATURE_HEADER], validate=True)
        time = headers[TIME_HEADER]
        ahead = (datetime.fromisoformat(time) - now).total_seconds()
        key = serialization.load_pem_public_key(pem)
        if not isinstance(key, SitePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            return None
        key.verify(signature, time.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return Signed(to_pem(key), f"{time} {decode_dss_signature(signature)[0]:x}", ahead)
    except (KeyError, ValueError, TypeError, UnicodeError, binascii.Error, UnsupportedAlgorithm, InvalidSignature):
        return None


def create_release_key(path: Path) -> None:
    """Write a new Ed25519 key (PKCS#8 PEM, mode 0600) that signs releases."""
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    write_bytes(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), mode=0o600)


def _release_key(path: Path) -> ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})", "restore it from a backup") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path}: is no Ed25519 key", "restore it from a backup")
    return key


def release_public_key(path: Path) -> str:
    """The public half of a release key, as hex: what sites pin at enrolment."""
    return _release_key(path).public_key().public_bytes_raw().hex()


def sign_release(path: Path, manifest: bytes) -> str:
    """Signature of a manifest, as hex."""
    return _release_key(path).sign(hashlib.sha256(manifest).digest()).hex()


def release_is_genuine(public_key: str, manifest: bytes, signature: str) -> bool:
    """Whether the holder of the pinned key signed this manifest."""
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), hashlib.sha256(manifest).digest())
    except (ValueError, InvalidSignature):
        return False
    return True
