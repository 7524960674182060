"""The certificate that content credentials are signed with: an operator's own, or one of an authority made here.

C2PA 2.2, section 14.5 (X.509 certificates) asks of a signer's certificate: version 3, digitalSignature, not an
authority, an organization in its name, and an extended key usage of those that sign documents. One that is made here
is valid, and *not trusted* by anybody who was not given `anchor.pem`: only a certificate authority on the C2PA trust
list changes that.

    FOLDER/anchor.pem      the authority's certificate, for whoever checks pictures
    FOLDER/authority.pem   its key and certificate, private
    FOLDER/signer.pem      the signer's key, its certificate and the authority's, private
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from chimera.core.clock import Clock
from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.storage.whole_file import write_whole

AUTHORITY_DAYS: Final = 3_650.0
DAYS: Final = 365.0
RENEWED_BEFORE_DAYS: Final = 30.0
BACK: Final = timedelta(minutes=5)
"""Clocks of those who check may be behind by so much."""

MAX_BYTES: Final = 100_000
MAX_NAME: Final = 64
"""Characters of a name in a certificate (RFC 5280, appendix A.1)."""

DOCUMENT_SIGNING: Final = "1.3.6.1.5.5.7.3.36"
CLAIM_SIGNING: Final = "1.3.6.1.4.1.62558.2.1"
"""RFC 9336 and C2PA's own: extended key usages for what signs documents, and claims on their origin."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An ES256 key and its chain, the signer's certificate first. `anchor` is what a checker has to trust.

    The key does not show in its repr. All are PEM.
    """

    chain: str
    anchor: str
    ends_at_s: float
    key: str = field(repr=False)


def own_credentials(folder: Path, *, operator: str, clock: Clock) -> Credentials:
    """Those of `folder`: made if there are none, and made anew, by the same authority, 30 days before they end.

    `operator` is the person or organization that answers for what is signed, and stands in the certificate.
    Raises InputError for a name that is too long or a file that cannot be read, SecurityError for a key that other
    users can read, MissingExtra without `cryptography`.
    """
    _needs_cryptography()
    if not 1 <= len(operator.strip()) <= MAX_NAME or not operator.isprintable():
        raise InputError(f"the operator's name stands in the certificate: 1 to {MAX_NAME} characters, not {operator!r}")
    with _alone(folder):
        signer = folder / "signer.pem"
        if signer.exists():
            found = read_credentials(signer)
            if found.ends_at_s - clock.now() > RENEWED_BEFORE_DAYS * 86_400:
                return found
        authority, authority_key = _authority(folder, operator.strip(), clock)
        _make(signer, operator.strip(), authority, authority_key, clock)
        return read_credentials(signer)


def read_credentials(path: Path) -> Credentials:
    """An operator's own: one PEM file with the key and the chain, the signer's certificate first.

    The last certificate is taken for the anchor. Raises as `own_credentials` does, and InputError where the key is not
    the certificate's or no P-256 key, or its usage is none that C2PA takes.
    """
    _needs_cryptography()
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if path.stat().st_mode & 0o077:
            raise SecurityError(f"{path} holds a key that other users can read: chmod 600 it, or make a new one")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES} bytes, which no key and chain are")
        key = serialization.load_pem_private_key(data, None)
        chain = x509.load_pem_x509_certificates(data)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}: it has to hold a key without a password, and its certificates") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise InputError(f"{path}: content credentials are signed with ES256 here: give a P-256 key")
    if key.public_key() != chain[0].public_key():
        raise InputError(f"{path}: the key is not that of the first certificate")
    _check_usage(path, chain[0])
    return Credentials(
        chain="".join(map(_pem, chain)),
        anchor=_pem(chain[-1]),
        ends_at_s=chain[0].not_valid_after_utc.timestamp(),
        key=_private_pem(key).decode(),
    )


def _check_usage(path: Path, signer: Any) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        stands = {one.dotted_string for one in usage}
    except x509.ExtensionNotFound:
        stands = set()
    if not stands & {Use.EMAIL_PROTECTION.dotted_string, DOCUMENT_SIGNING, CLAIM_SIGNING}:
        raise InputError(f"{path}: its usage has to be emailProtection, documentSigning or {CLAIM_SIGNING}")


def _authority(folder: Path, operator: str, clock: Clock) -> tuple[Any, Any]:
    """The authority's certificate and key, made if there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    path = folder / "authority.pem"
    if not path.exists():
        key = _new_key()
        subject = _called(operator, "content authority")
        own = _signed(subject, key.public_key(), subject, key, _lasts(clock, AUTHORITY_DAYS), authority=True)
        write_whole(path, _private_pem(key) + _pem(own).encode())
    try:
        if path.stat().st_mode & 0o077:
            raise SecurityError(f"{path} can be read by other users: make a new authority in another folder")
        data = path.read_bytes()
        certificate, key = x509.load_pem_x509_certificate(data), serialization.load_pem_private_key(data, None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}: move it away, and a new authority is made") from error
    anchor = folder / "anchor.pem"
    if not anchor.exists():
        write_whole(anchor, _pem(certificate).encode())
        anchor.chmod(0o644)
    return certificate, key


def _make(path: Path, operator: str, authority: Any, authority_key: Any, clock: Clock) -> None:
    begins, ends = _lasts(clock, DAYS)
    ends = min(ends, authority.not_valid_after_utc)
    if ends.timestamp() <= clock.now():
        raise InputError(f"the authority of {path.parent} has ended: name another folder, and one is made there")
    key = _new_key()
    subject = _called(operator, "content signer")
    signed = _signed(subject, key.public_key(), authority.subject, authority_key, (begins, ends), authority=False)
    write_whole(path, _private_pem(key) + _pem(signed).encode() + _pem(authority).encode())


def _signed(
    subject: Any, public: Any, issuer: Any, key: Any, lasts: tuple[datetime, datetime], *, authority: bool
) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(lasts[0])
        .not_valid_after(lasts[1])
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if not authority:
        uses = [Use.EMAIL_PROTECTION, x509.ObjectIdentifier(CLAIM_SIGNING)]
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(key, hashes.SHA256())


def _called(operator: str, role: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, operator), x509.NameAttribute(NameOID.COMMON_NAME, role)]
    )


def _lasts(clock: Clock, days: float) -> tuple[datetime, datetime]:
    now = datetime.fromtimestamp(clock.now(), UTC)
    return now - BACK, now + timedelta(days=days)


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    text: bytes = certificate.public_bytes(Encoding.PEM)
    return text.decode()


def _private_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes credentials there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder} cannot hold credentials: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtra("cryptography", "content") from None
