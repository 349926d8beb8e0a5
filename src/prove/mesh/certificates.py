"""Certificates of the mesh: an authority, and short-lived ones with SPIFFE IDs.

By `cryptography`; elliptic curve P-256. SPIFFE's rules for X.509 (github.com/spiffe/spiffe,
standards/X509-SVID.md): one URI, no name besides, not to sign others with.
"""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from prove.mesh.envoy import CA, TLS_CERT, TLS_KEY

AUTHORITY_LIFETIME = timedelta(days=3650)
BACKDATED = timedelta(minutes=1)
"""For clocks that are behind."""
_LATEST = "..data"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs the certificates of one mesh."""

    def __init__(self, pair: Pair) -> None:
        """Raises ValueError for what is no certificate or key."""
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is of another kind")
        self._key = key
        self.pem = pair.certificate

    @classmethod
    def at(cls, directory: Path) -> "Authority":
        """The authority kept in `directory`, made when there is none; raises OSError."""
        certificate, key = directory / CA, directory / "ca.key"
        if not (certificate.exists() and key.exists()):
            made = new_authority()
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(key, made.key)
            _write(certificate, made.certificate)
        return cls(Pair(certificate.read_bytes(), key.read_bytes()))

    def issue(self, identity: str, until: datetime) -> Pair:
        """A certificate with one URI, for both ends of mTLS, and its new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        authority = self._key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(datetime.now(UTC), until) - BACKDATED)
            .not_valid_after(until)
            # Without a subject the names are what counts, and critical (RFC 5280, 4.2.1.6).
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]),
                critical=True,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def new_authority() -> Pair:
    """A self-signed certificate that may sign others, but not other authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prove mesh")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def store(directory: Path, pair: Pair, authority: bytes) -> None:
    """Put all files of an identity in place at once, as a mounted Secret of Kubernetes does.

    Readers see the old files or the new ones, never some of each. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    files: Mapping[str, bytes] = {TLS_CERT: pair.certificate, TLS_KEY: pair.key, CA: authority}
    made = directory / f"..{time.time_ns()}"
    made.mkdir(mode=0o700)
    for name, content in files.items():
        _write(made / name, content)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"{_LATEST}/{name}")
    following = directory / "..data_tmp"
    following.unlink(missing_ok=True)
    following.symlink_to(made.name)
    following.rename(directory / _LATEST)
    # The one before may be being read just now.
    for old in sorted(directory.glob("..[0-9]*"))[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def expiry(directory: Path) -> datetime | None:
    """Until when an identity's certificate holds; None where there is none that can be read."""
    try:
        found = x509.load_pem_x509_certificate((directory / TLS_CERT).read_bytes())
    except (OSError, ValueError):
        return None
    return found.not_valid_after_utc


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
