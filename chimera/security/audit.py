"""The audit log: who did what, to what, with what outcome. Append-only, chained, signed, and without secrets.

`append` costs a moment: the line is on the disk a few milliseconds later (`flush` waits for it), and in the signed
head some seconds after that. See docs/audit.md for what that proves and what it does not.
"""

from __future__ import annotations

import atexit
import fcntl
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from chimera.core.clock import Clock
from chimera.core.errors import AuditBusy, AuditError, InputError
from chimera.security.audit_anchors import AnchorStore, FileAnchors
from chimera.security.audit_entry import (
    GENESIS,
    MAX_ACTION,
    MAX_ACTOR,
    MAX_LINE_BYTES,
    MAX_OUTCOME,
    MAX_RESOURCE,
    AuditEntry,
    anchors_folder,
    hash_of,
    public_key_path,
    public_pem,
    segments,
)
from chimera.security.audit_verify import tail
from chimera.security.audit_writer import AuditLimits, AuditWriter, OnFailure, Pending
from chimera.security.redaction import clean, clean_detail

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEPT = 10_000
MAX_FOUND = 10_000
MOST_BYTES = 65_536
"""Of a line, whatever it is made of: what redaction leaves, in escaped ASCII, is well below."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are asked for: those that have all that is given. `since` and `until` are seconds, inclusive."""

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, entry: AuditEntry) -> bool:
        return (
            (self.actor is None or entry.actor == self.actor)
            and (self.action is None or entry.action == self.action)
            and (self.outcome is None or entry.outcome == self.outcome)
            and (self.since is None or entry.at_s >= self.since)
            and (self.until is None or entry.at_s <= self.until)
        )


def choose(entries: Iterable[AuditEntry], wanted: Wanted, *, limit: int, after: int | None) -> tuple[AuditEntry, ...]:
    """The first `limit` of them after entry `after`; without one, the last. The oldest comes first in both."""
    if not 1 <= limit <= MAX_FOUND:
        raise InputError(f"1 to {MAX_FOUND} entries can be asked for, not {limit}")
    if after is None:
        return tuple(deque((entry for entry in entries if wanted.matches(entry)), maxlen=limit))
    return tuple(islice((entry for entry in entries if entry.seq > after and wanted.matches(entry)), limit))


class AuditLog:
    """The log in `folder`, signed with `key`. Thread-safe; there is one writer, in one process.

    `anchors` takes the signed heads; the default is a folder beside this one, which should be made one on another
    disk or machine. The last `kept` entries are in memory for queries, all are on the disk for `limits.retention_days`.
    `on_failure`: once the disk has failed, `append` raises ("refuse"), or entries are kept in memory only, and counted
    in `lost` ("go_on").

    Raises AuditBusy if another process has the log, and AuditError if it cannot be used, or its end was tampered with.
    """

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey,
        *,
        clock: Clock,
        anchors: AnchorStore | None = None,
        limits: AuditLimits | None = None,
        kept: int = KEPT,
        on_failure: OnFailure = "refuse",
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._pid = os.getpid()
        self._lock_file = _lock(folder)
        try:
            cut_bytes = _cut_torn_line(folder)
            before = tail(folder, max(kept, 1))
            self._kept = deque(before, maxlen=kept)
            self._seq = before[-1].seq if before else 0
            self._hash = hash_of(before[-1].line()) if before else GENESIS
            anchors = anchors or FileAnchors(anchors_folder(folder))
            _check_head(folder, anchors, before, key.public_key())
            _check_key(folder, key)
            self._writer = AuditWriter(
                folder,
                key,
                anchors,
                clock=clock,
                limits=limits or AuditLimits(),
                on_failure=on_failure,
                seq=self._seq,
                hashed=self._hash,
                at_s=before[-1].at_s if before else clock.now(),
            )
        except BaseException as error:
            os.close(self._lock_file)
            if isinstance(error, OSError):
                raise AuditError(f"{folder} cannot be used: {error.strerror}") from None
            raise
        self._open = True
        atexit.register(self.close)
        if cut_bytes:
            self.append("audit", "audit.repair", folder.name, "ok", {"cut_bytes": cut_bytes})

    @property
    def lost(self) -> int:
        """Entries that are in memory only, since the disk failed."""
        return self._writer.lost

    @property
    def failure(self) -> Exception | None:
        """What the disk said when it failed, or what of the log's files could not be read."""
        return self._writer.failure

    @property
    def anchor_error(self) -> Exception | None:
        """Why the last signed head could not be put away; None if it could. It is tried again."""
        return self._writer.anchor_error

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> AuditEntry:
        """Write down what happened, without its secrets, and return it as it stands there.

        Raises AuditError if it cannot be written down: then it must not be done. Raises Overloaded if the disk is a
        second behind.
        """
        if self._pid != os.getpid():
            raise AuditError(f"{self.folder}: a forked process cannot write its parent's audit log")
        fields = (clean(actor, MAX_ACTOR), clean(action, MAX_ACTION), clean(resource, MAX_RESOURCE))
        cleaned = clean_detail(detail or {})
        with self._writer.changed:
            self._writer.admit(MOST_BYTES)
            entry = AuditEntry(
                seq=self._seq + 1,
                at_s=self._clock.now(),
                prev=self._hash,
                actor=fields[0],
                action=fields[1],
                resource=fields[2],
                outcome=clean(outcome, MAX_OUTCOME),
                detail=cleaned,
            )
            line = entry.line()
            hashed = hash_of(line)
            self._writer.put(Pending(entry.seq, entry.at_s, hashed, line + b"\n"))
            self._seq, self._hash = entry.seq, hashed
            self._kept.append(entry)
        return entry

    def query(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> tuple[AuditEntry, ...]:
        """Of the entries in memory, those that have all that is given, the oldest first.

        The last `limit`; or with `after`, the first ones after that entry. `since` and `until` are seconds since the
        epoch, inclusive. Older entries are `audit_verify.entries`' to read.
        """
        with self._writer.changed:
            kept = tuple(self._kept)
        return choose(kept, Wanted(actor, action, outcome, since, until), limit=limit, after=after)

    def flush(self) -> None:
        """Wait until all that was appended is on the disk. Raises AuditError if it is not."""
        self._writer.flush()

    def close(self) -> None:
        """Write what waits, sign the last head, and let another process have the log. Idempotent."""
        if self._open and self._pid == os.getpid():
            self._open = False
            atexit.unregister(self.close)
            self._writer.close()
            os.close(self._lock_file)


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuditError(f"{folder} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise AuditBusy(f"{folder}: another process writes this audit log; give this one a folder of its own") from None
    return file


def _check_key(folder: Path, key: Ed25519PrivateKey) -> None:
    """Put the public key beside a log that begins. Refuse to go on with a log under another key than its own."""
    path, public = public_key_path(folder), public_pem(key.public_key())
    if path.exists() and path.stat().st_size:
        if path.read_bytes() != public:
            raise _other_key(folder)
    else:
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(public)
        os.replace(draft, path)


def _other_key(folder: Path) -> AuditError:
    return AuditError(
        f"{folder} is signed with another key than this: restore that key, or move the folder and its anchors away as"
        " they are and begin a new log"
    )


def _check_head(folder: Path, anchors: AnchorStore, before: Sequence[AuditEntry], public_key: Ed25519PublicKey) -> None:
    """Refuse to go on with a log that was put back, where its last signed head can be read."""
    head = anchors.latest() if isinstance(anchors, FileAnchors) else None
    if head is None or head.seq == 0:
        return
    if not head.is_signed_by(public_key):
        raise _other_key(folder)
    ends = before[-1].seq if before else 0
    signed = [entry for entry in before if entry.seq == head.seq]
    if head.seq > ends or (signed and hash_of(signed[0].line()) != head.hash):
        raise AuditError(
            f"{folder} ends with entry {ends}, and is not the log that was signed at entry {head.seq}: it was put back"
            " or written anew. Move it and its anchors away as evidence, and run `chimera audit verify` on it"
        )


def _cut_torn_line(folder: Path) -> int:
    """Cut off the half of a line that a writer left when it was killed. Returns its bytes."""
    files = segments(folder)
    if not files:
        return 0
    with files[-1][1].open("r+b") as file:
        size = file.seek(0, 2)
        start = max(0, size - MAX_LINE_BYTES)
        file.seek(start)
        end = start + file.read().rfind(b"\n") + 1
        file.truncate(end)
        os.fsync(file.fileno())
    return size - end
