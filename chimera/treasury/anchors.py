"""The head of the ledger, kept outside it: whoever can write the database anew cannot write these.

Each line of a file is one head, signed. `chimera.security.audit_entry` has the like for the audit log, under a key of
its own; here the key may be behind a port (`keys.SigningKey`), and what is signed names the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, ValidationError

from chimera.core.errors import LedgerError, SecurityError
from chimera.core.hashing import canonical_json
from chimera.core.types import Frozen
from chimera.treasury.ledger import Head
from chimera.treasury.types import Digest, Id, Micros, Signature

MAX_BYTES = 64 * 2**20
"""Of a file: one anchor each quarter of an hour for five years."""

MAX_LINE_BYTES = 1_000


class Signs(Protocol):
    """A signing key, of which only its name and this are needed."""

    @property
    def key_id(self) -> str: ...

    def sign(self, payload: bytes) -> bytes: ...


class HeadAnchor(Frozen):
    """That the ledger ended with the row `seq`, of that hash, at the moment `at`. `signature` is over `payload()`."""

    at: Micros
    seq: Annotated[int, Field(strict=True, ge=0)]
    hash: Digest
    key_id: Id
    signature: Signature = ""

    def payload(self) -> bytes:
        """What is signed: all but the signature, in canonical JSON, with what kind of thing it is."""
        return canonical_json({"chimera": "HeadAnchor", **self.model_dump(exclude={"signature"})}).encode()


Verify = Callable[[HeadAnchor], bool]


def anchor(path: Path, head: Head, *, key: Signs, at: int) -> HeadAnchor:
    """Sign a head and add it to the file at `path`, whole and to the disk; what a writer that died left is cut off.

    Raises LedgerError for a file that cannot be written or is full, and SecurityError where the key is out of reach.
    """
    made = HeadAnchor(at=at, seq=head.seq, hash=head.hash, key_id=key.key_id)
    made = made.model_copy(update={"signature": key.sign(made.payload()).hex()})
    line = made.model_dump_json().encode() + b"\n"
    try:
        is_new = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _cut_half_line(file)
            if os.fstat(file).st_size >= MAX_BYTES:
                raise LedgerError(f"{path} is full: begin another file, and keep this one")
            if os.write(file, line) != len(line):
                raise LedgerError(f"{path} took half a line: make room on its disk")
            os.fsync(file)
        finally:
            os.close(file)
        if is_new:
            _sync_folder(path.parent)
    except OSError as error:
        raise LedgerError(f"{path} takes no anchor: {error.strerror}") from None
    return made


def read_anchors(path: Path, verify: Verify) -> tuple[HeadAnchor, ...]:
    """The anchors in a file, the oldest first. A last line without an end was never finished, and is none.

    Raises LedgerError for a file or line that cannot be read, and for rows that go back; SecurityError for a signature
    that is not good.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + MAX_LINE_BYTES + 1)
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES + MAX_LINE_BYTES:
        raise LedgerError(f"{path} is larger than a file of anchors can be")
    found: list[HeadAnchor] = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            each = HeadAnchor.model_validate_json(line)
        except ValidationError:
            raise LedgerError(f"{path}, line {number} is no anchor: restore the file from a copy") from None
        if not each.signature or not verify(each):
            raise SecurityError(f"{path}, line {number}: the signature is not good, so somebody else wrote it")
        if found and (each.seq, each.at) < (found[-1].seq, found[-1].at):
            raise LedgerError(f"{path}, line {number} is of an earlier row than the line before it")
        found.append(each)
    return tuple(found)


def _cut_half_line(file: int) -> None:
    size = os.fstat(file).st_size
    start = max(0, size - MAX_LINE_BYTES)
    end = start + os.pread(file, MAX_LINE_BYTES, start).rfind(b"\n") + 1
    if end != size:
        os.ftruncate(file, end)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
