"""Certificates for mutual TLS between the nodes of a Ray cluster: an authority of its own, and what it signs.

Whoever has a certificate of the authority is let in, so it must be the cluster's own, and its key stays where the
certificates are made. A node is given its own folder, in which everything is that Ray asks for.

    FOLDER/ca.pem  ca-key.pem             the authority; its key is for whoever makes certificates, and for no node
    FOLDER/NODE/ca.pem  cert.pem  key.pem   what a node has

Nodes ask one another at addresses, which have to stand in the certificate (RFC 5280, section 4.2.1.6); each is server
and client, so it is good for both.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import InputError, MissingExtra, SecurityError

AUTHORITY_DAYS = 3_650.0

DAYS = 365.0

MAX_ADDRESSES = 4_096
"""An address takes 6 bytes, and TLS stacks refuse certificates of more than 100 KB."""

MAX_NODES = 10_000
MAX_BYTES = 200_000

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""In every certificate: Ray's processes of one node ask one another there."""

BACK = timedelta(minutes=5)
"""Clocks of other nodes may be behind by so much."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_DNS = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that lies at `path`; `node` is empty for the authority's."""

    node: str
    path: Path
    ends_at: datetime
    addresses: int = 0
    trusted: bool = True
    """Signed by the authority of this folder."""

    def days_left(self, clock: Clock) -> float:
        """Days until it ends; negative once it has."""
        return (self.ends_at.timestamp() - clock.now()) / 86_400

    def environment(self) -> dict[str, str]:
        """What Ray has to be told on its node, before anything imports Ray."""
        folder = self.path.parent.absolute()
        return {
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(folder / "cert.pem"),
            "RAY_TLS_SERVER_KEY": str(folder / "key.pem"),
            "RAY_TLS_CA_CERT": str(folder / "ca.pem"),
        }


def make(
    folder: Path, node: str, addresses: Iterable[str], *, clock: Clock, days: float = DAYS, renew: bool = False
) -> Certificate:
    """Make a node's key and certificate in `folder`, and the authority if there is none.

    `addresses` are IP addresses, networks such as 10.0.1.0/24 (every address of it) and DNS names. With `renew` the
    node gets a new key and certificate in place of those it has, and its addresses if none are given.
    Raises InputError, MissingExtra, SecurityError.
    """
    _needs_cryptography()
    if not _NAME.fullmatch(node):
        raise InputError(f"--node {node!r}: a name is up to 63 of a-z, 0-9 and -, such as worker-1")
    if not 0 < days <= AUTHORITY_DAYS:
        raise InputError(f"a certificate is good for up to {AUTHORITY_DAYS:g} days, not {days:g}")
    given = list(addresses)
    names = _names(given)
    own = folder / node
    with _alone(folder):
        if own.joinpath("cert.pem").exists():
            if not renew:
                raise InputError(f"{own} has a certificate already: --renew makes a new one in its place")
            names = names if given else _names_of(_read(own / "cert.pem"))
        return _make(own, names, clock, timedelta(days=days))


def _make(own: Path, names: list[Any], clock: Clock, lasts: timedelta) -> Certificate:
    folder = own.parent
    authority, key = _authority(folder, clock)
    now = datetime.fromtimestamp(clock.now(), UTC)
    ends_at = min(now + lasts, authority.not_valid_after_utc)
    if ends_at <= now:
        raise InputError(f"{folder / 'ca.pem'} ended {ends_at:%Y-%m-%d}: make a new authority in another folder")
    private = _new_key()
    signed = _signed(_called(own.name), private.public_key(), authority.subject, key, (now - BACK, ends_at), names)
    own.mkdir(mode=0o700, exist_ok=True)
    _write(own / "ca.pem", _pem(authority), 0o644)
    _write(own / "key.pem", _private_pem(private), 0o600)
    _write(own / "cert.pem", _pem(signed), 0o644)
    return Certificate(own.name, own / "cert.pem", signed.not_valid_after_utc, len(names))


def check(folder: Path) -> list[Certificate]:
    """The authority and all nodes' certificates in `folder`, the first to end first. Raises InputError."""
    _needs_cryptography()
    authority = _read(folder / "ca.pem")
    found = [Certificate("", folder / "ca.pem", authority.not_valid_after_utc)]
    paths = sorted(folder.glob("*/cert.pem"))
    if len(paths) > MAX_NODES:
        raise InputError(f"{folder} has {len(paths)} nodes; up to {MAX_NODES} are read")
    for path in paths:
        one, node = _read(path), path.parent
        good = _is_of(one, authority, node)
        found.append(Certificate(node.name, path, one.not_valid_after_utc, len(_names_of(one)), good))
    return sorted(found, key=lambda one: (one.ends_at, one.node))


def _names(addresses: Iterable[str]) -> list[Any]:
    from cryptography import x509

    found: dict[Any, None] = {}
    for address in (*LOOPBACK, *addresses):
        try:
            network = ip_network(address)
        except ValueError:
            if "/" in address or not _DNS.fullmatch(address.lower()) or address.replace(".", "").isdigit():
                raise InputError(f"--address {address!r}: neither an address, a network nor a name of a host") from None
            found[x509.DNSName(address.lower())] = None
            continue
        if network.num_addresses > MAX_ADDRESSES:
            raise InputError(f"--address {address}: {network.num_addresses} addresses, of at most {MAX_ADDRESSES}")
        for one in network:
            found[x509.IPAddress(ip_address(one))] = None
    if len(found) > MAX_ADDRESSES + len(LOOPBACK):
        raise InputError(f"--address: {len(found)} addresses in one certificate, of at most {MAX_ADDRESSES}")
    return list(found)


def _authority(folder: Path, clock: Clock) -> tuple[Any, Any]:
    """The authority's certificate and key, made if neither is there."""
    from cryptography.hazmat.primitives import serialization

    path, key_path = folder / "ca.pem", folder / "ca-key.pem"
    if not path.exists() and not key_path.exists():
        key, now = _new_key(), datetime.fromtimestamp(clock.now(), UTC)
        subject = _called(f"chimera cluster {secrets.token_hex(4)}")
        lasts = (now - BACK, now + timedelta(days=AUTHORITY_DAYS))
        own = _signed(subject, key.public_key(), subject, key, lasts, None)
        _write(key_path, _private_pem(key), 0o600)
        _write(path, _pem(own), 0o644)
        return own, key
    try:
        if key_path.stat().st_mode & 0o077:
            raise SecurityError(f"{key_path} can be read by other users: make a new authority in another folder")
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{key_path}: {error}: certificates are made where the authority's key is") from error
    return _read(path), key


def _signed(subject: Any, public: Any, issuer: Any, key: Any, lasts: tuple[datetime, datetime], names: Any) -> Any:
    """A certificate for `public`; without `names` it is an authority's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    whose = names is None
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(lasts[0])
        .not_valid_after(lasts[1])
        .add_extension(x509.BasicConstraints(ca=whose, path_length=0 if whose else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not whose, key_cert_sign=whose, crl_sign=whose, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([Use.SERVER_AUTH, Use.CLIENT_AUTH]), critical=False)
    return builder.sign(key, hashes.SHA256())


def _is_of(one: Any, authority: Any, own: Path) -> bool:
    """Whether the authority signed it, for the key that lies beside it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    try:
        one.verify_directly_issued_by(authority)
        key = serialization.load_pem_private_key((own / "key.pem").read_bytes(), None)
    except (ValueError, TypeError, InvalidSignature):
        return False
    except FileNotFoundError:  # it has been moved to its node
        return True
    except OSError as error:
        raise InputError(f"{own / 'key.pem'}: {error}") from error
    same: bool = key.public_key() == one.public_key()
    return same


def _names_of(one: Any) -> list[Any]:
    from cryptography import x509

    try:
        return list(one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _called(name: str) -> Any:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())  # gRPC knows no Ed25519 in TLS


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    written: bytes = certificate.public_bytes(Encoding.PEM)
    return written


def _private_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    written: bytes = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    return written


def _read(path: Path) -> Any:
    from cryptography import x509

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES} bytes: no certificate")
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is not there: `chimera certs make` makes it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file whole; nobody else can read it meanwhile."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process makes certificates here at a time: two would make two authorities."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise InputError(f"{folder}: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _needs_cryptography() -> None:
    try:
        import cryptography
    except ImportError:
        raise MissingExtra("cryptography", "security") from None
    del cryptography
