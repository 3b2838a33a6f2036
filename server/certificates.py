"""The coordinator's own certificate authority, and the certificate of its public port."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared_model.checkpoint import write_bytes
from shared_model.errors import ConfigError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Longest life that common TLS stacks accept."""
RENEW_DAYS = 30
BACKDATED = timedelta(minutes=5)
"""Against a site's clock that is behind."""


def create_authority(key_file: Path, certificate_file: Path) -> None:
    """Write a new authority: an EC P-256 key (mode 0600) and its self-signed certificate, good for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "MTS-UNET federation")])
    builder = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
    )
    _write(key_file, certificate_file, key, builder.sign(key, hashes.SHA256()))


def issue_server_certificate(
    authority_key: Path, authority: Path, names: Sequence[str], key_file: Path, certificate_file: Path
) -> None:
    """Write a new key and certificate for the public port.

    Args:
        names: host names and IP addresses by which sites reach it.

    Raises:
        ConfigError: the authority cannot be read, or its key is another's.
    """
    issuer = read_certificate(authority)
    try:
        signer = serialization.load_pem_private_key(authority_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{authority_key}: cannot be read ({type(error).__name__})", "restore the backup") from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{authority_key}: is no EC key", "restore the backup")
    if signer.public_key() != issuer.public_key():
        raise ConfigError(f"{authority_key}: is not the key of {authority.name}", "restore the backup")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    _write(key_file, certificate_file, key, builder.sign(signer, hashes.SHA256()))


def read_certificate(path: Path) -> x509.Certificate:
    """A PEM certificate.

    Raises:
        ConfigError: missing or no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no certificate ({type(error).__name__})", "restore it from a backup") from None


def days_left(path: Path) -> float:
    """Days until a certificate ends; negative once it has."""
    return (read_certificate(path).not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(key_file: Path, file: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    write_bytes(key_file, pem, mode=0o600)
    write_bytes(file, certificate.public_bytes(serialization.Encoding.PEM))
