"""What stands in an audit log, and what stands for it elsewhere: entries, their hashes, and signed anchors.

A line is the JSON of an entry, in ASCII. It holds the SHA-256 of the line before, so that a line fixes all before it
(Haber and Stornetta, "How to time-stamp a digital document", Journal of Cryptology 3, 1991). An anchor says what the
hash of one line is, under a signature (Ed25519, RFC 8032), and is kept where whoever can write the log cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from chimera.core.errors import AuditError, MissingExtra
from chimera.core.types import Frozen
from chimera.security.strangers import is_strangers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

GENESIS = "0" * 64
"""What the first entry holds instead of a hash."""

MAX_LINE_BYTES = 262_144
"""Of a line that is read; redaction keeps those that are written far below."""

MAX_TEXT_BYTES = 16_384
MAX_ACTOR, MAX_ACTION, MAX_RESOURCE, MAX_OUTCOME = 256, 128, 1_024, 64

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class AuditEntry(Frozen):
    """Who did what to what, and what came of it. `at_s` is seconds since the epoch; `seq` counts from 1."""

    seq: Annotated[int, Field(ge=1)]
    at_s: Annotated[float, Field(allow_inf_nan=False)]
    prev: Hash
    actor: str
    action: str
    resource: str
    outcome: str
    detail: dict[str, JsonValue] = Field(default_factory=dict)

    def line(self) -> bytes:
        """The line without its end."""
        fields = {
            "seq": self.seq,
            "at_s": self.at_s,
            "prev": self.prev,
            "actor": self.actor,
            "action": self.action,
            "resource": self.resource,
            "outcome": self.outcome,
            "detail": self.detail,
        }
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


class Anchor(Frozen):
    """That the entry `seq` has the hash `hash`. `removed` says besides that retention took it and all before it."""

    kind: Literal["head", "removed"]
    seq: Annotated[int, Field(ge=0)]
    hash: Hash
    at_s: Annotated[float, Field(allow_inf_nan=False)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    def line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(bytes.fromhex(self.signature), _signed(self.kind, self.seq, self.hash, self.at_s))
        except InvalidSignature:
            return False
        return True


def sign(key: Ed25519PrivateKey, kind: Literal["head", "removed"], seq: int, hashed: str, at_s: float) -> Anchor:
    """An anchor under `key`."""
    signature = key.sign(_signed(kind, seq, hashed, at_s)).hex()
    return Anchor(kind=kind, seq=seq, hash=hashed, at_s=at_s, signature=signature)


def _signed(kind: str, seq: int, hashed: str, at_s: float) -> bytes:
    return b"chimera audit anchor\n" + json.dumps([kind, seq, hashed, at_s]).encode()


def hash_of(line: bytes) -> str:
    """The hash of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def read_anchors(path: Path) -> tuple[Anchor, ...]:
    """The anchors in a file. A last line without an end was being written when its writer died, and is none.

    Raises AuditError for a file or another line that cannot be read.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Anchor.model_validate_json(line))
        except ValidationError:
            raise AuditError(f"{path}, line {number} is no anchor") from None
    return tuple(found)


def append_anchor(path: Path, anchor: Anchor) -> None:
    """Write an anchor at the end of a file, to the disk; what a writer that died left there is cut off first.

    Raises OSError.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)  # may be all that is allowed here
    try:
        end = _whole_lines(file)
        if end != os.fstat(file).st_size:
            os.ftruncate(file, end)
        line = anchor.line()
        if os.write(file, line) != len(line):
            raise OSError("the disk took half a line")
        os.fsync(file)
    finally:
        os.close(file)


def _whole_lines(file: int) -> int:
    size = os.fstat(file).st_size
    start = max(0, size - MAX_TEXT_BYTES)
    return start + os.pread(file, MAX_TEXT_BYTES, start).rfind(b"\n") + 1


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in the PEM file at `path`, made for the owner alone if there is none.

    Keep it where the log's folder is not. Raises AuditError for a file that holds no such key.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise MissingExtra("cryptography", "security") from None
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = Ed25519PrivateKey.generate().private_bytes(encoding, private, serialization.NoEncryption())
            scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # one that was left is not in the way
            with open(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(made)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(scratch, path)  # whoever comes second uses the first one's
            except FileExistsError:
                pass
            finally:
                scratch.unlink()
        status = path.stat()
        if status.st_mode & 0o077 or is_strangers(status):
            raise AuditError(f"{path} is not its owner's alone: whoever else has it can sign; begin a new log and key")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise AuditError(f"{path} cannot be used: {error.strerror}") from None
    except (ValueError, TypeError):
        raise AuditError(f"{path} is no PEM file of a private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(f"{path} holds another kind of key: it must be Ed25519")
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in the PEM file at `path`. Raises AuditError."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise MissingExtra("cryptography", "security") from None
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise AuditError(f"{path} is no PEM file of a public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise AuditError(f"{path} holds another kind of key: it must be Ed25519")
    return key


_SEGMENT = re.compile(r"^audit-(\d{12})\.jsonl$")


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The log's files, by the number of the first entry in each. Raises AuditError if the folder cannot be read."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise AuditError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted((int(match[1]), folder / name) for name in names if (match := _SEGMENT.match(name)))


def segment_path(folder: Path, first_seq: int) -> Path:
    return folder / f"audit-{first_seq:012d}.jsonl"


def removed_path(folder: Path) -> Path:
    """Where the log keeps the statements on what retention took from it."""
    return folder / "removed.jsonl"


def public_key_path(folder: Path) -> Path:
    return folder / "audit.pub"


def anchors_folder(folder: Path) -> Path:
    """Where a log's anchors are unless told otherwise: beside it."""
    return folder.with_name(folder.name + "-anchors")
