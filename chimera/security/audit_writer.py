"""The thread that puts an audit log on the disk: lines in groups with one fsync each, and a signed head now and then.

A head is signed once its line is on the disk, so that no crash makes the anchors say more than the log holds.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chimera.core.clock import Clock
from chimera.core.errors import AuditError, Overloaded
from chimera.security.audit_anchors import AnchorStore
from chimera.security.audit_entry import Anchor, append_anchor, removed_path, segment_path, segments, sign
from chimera.security.audit_verify import outdated

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DAY_S = 86_400.0
MIN_RETENTION_DAYS = 90
FLUSH_S = 60.0

GATHER_S = 0.02
"""For which the first line of a group waits for others, unless somebody waits for the disk."""

GROUP = 500
"""Lines in one: while they are put together, nobody else's Python runs."""


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """When a head is signed, when a new file begins, how long files are kept, and what may wait for the disk."""

    anchor_entries: int = 1_000
    anchor_s: float = 10.0
    segment_bytes: int = 16_000_000
    retention_days: int = 400
    waiting_entries: int = 10_000
    waiting_bytes: int = 16_000_000
    wait_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A line on its way, with its end; `hash` is its own."""

    seq: int
    at_s: float
    hash: str
    line: bytes


OnFailure = Literal["refuse", "go_on"]


class AuditWriter:
    """Writes lines after entry `seq`, whose hash is `hashed`, to the files in `folder`.

    `changed` guards what is shared with the callers' threads; the files belong to the writer's own thread. `failure`
    is what the disk said; from then on nothing is written, as nobody knows what a disk kept whose fsync has failed.
    """

    def __init__(
        self,
        folder: Path,
        key: Ed25519PrivateKey,
        anchors: AnchorStore,
        *,
        clock: Clock,
        limits: AuditLimits,
        on_failure: OnFailure,
        seq: int,
        hashed: str,
        at_s: float,
    ) -> None:
        self._folder = folder
        self._key = key
        self._anchors = anchors
        self._clock = clock
        self._limits = limits
        self._on_failure = on_failure
        self._seq, self._hash, self._at_s = seq, hashed, at_s
        self.changed = threading.Condition(lock := threading.Lock())
        self._work = threading.Condition(lock)
        self.failure: Exception | None = None
        self.anchor_error: Exception | None = None
        self.lost = 0
        self._durable_seq = self._queued_seq = seq
        self._anchored_seq = -1
        self._queue: list[Pending] = []
        self._entries = self._bytes = 0
        self._idle = self._hurry = self._closing = False
        self._file = self._open_last()
        self._size = os.fstat(self._file).st_size
        self._retire()
        self._anchor()
        self._anchored_at = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def admit(self, most_bytes: int) -> None:
        """With `changed` held, wait until a line may be put. Raises AuditError, and Overloaded if that takes long."""
        limits = self._limits
        if not self.changed.wait_for(lambda: self._may_go_on(most_bytes), limits.wait_s):
            raise Overloaded(f"{self._entries} audit entries already wait for the disk", limits.wait_s)
        if self._closing:
            raise AuditError(f"{self._folder}: the audit log is closed")
        if self.failure is not None and self._on_failure == "refuse":
            raise self._failed()

    def put(self, pending: Pending) -> None:
        """With `changed` held and after `admit`."""
        if self.failure is not None:
            self.lost += 1
            return
        self._queue.append(pending)
        self._queued_seq = pending.seq
        self._entries += 1
        self._bytes += len(pending.line)
        if self._idle:
            self._idle = False
            self._work.notify()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until all that was put before is on the disk. Raises AuditError if it is not."""
        with self.changed:
            wanted = self._queued_seq
            self._hurry = True
            self._work.notify()
            if not self.changed.wait_for(lambda: self._durable_seq >= wanted or self.failure, timeout_s):
                raise AuditError(f"{self._folder}: the disk has not answered for {timeout_s:g} s")
            if self._durable_seq < wanted or (self.failure is not None and self._on_failure == "refuse"):
                raise self._failed()

    def close(self) -> None:
        """Write what waits, and sign the last head."""
        with self.changed:
            self._closing = True
            self._work.notify()
            self.changed.notify_all()
        self._thread.join()
        os.close(self._file)

    def _may_go_on(self, most_bytes: int) -> bool:
        limits = self._limits
        has_room = self._entries < limits.waiting_entries and self._bytes + most_bytes <= limits.waiting_bytes
        return has_room or self._closing or self.failure is not None

    def _failed(self) -> AuditError:
        return AuditError(f"{self._folder}: the audit log cannot be written: {self.failure}")

    def _run(self) -> None:
        while True:
            with self.changed:
                self._idle = not self._queue
                self._work.wait_for(lambda: self._queue or self._closing, self._patience_s())
                self._idle = False
                if 0 < len(self._queue) < GROUP:
                    self._work.wait_for(lambda: self._hurry or self._closing, GATHER_S)
                group, self._queue = self._queue[:GROUP], self._queue[GROUP:]
                self._hurry = self._hurry and bool(self._queue)
                ends = self._closing and not group
            if group:
                self._store(group)
            if ends or self._is_anchor_due():
                self._anchor()
            if ends:
                return

    def _patience_s(self) -> float | None:
        if self._seq == self._anchored_seq or self.failure:
            return None
        return max(0.01, self._anchored_at + self._limits.anchor_s - self._clock.monotonic())

    def _is_anchor_due(self) -> bool:
        since = self._seq - self._anchored_seq
        passed_s = self._clock.monotonic() - self._anchored_at
        return since > 0 and (passed_s >= self._limits.anchor_s or since >= self._limits.anchor_entries)

    def _store(self, group: list[Pending]) -> None:
        try:
            self._write(group)
        except Exception as error:  # whatever it is: a thread that dies unseen would take entries and write none
            with self.changed:
                self.failure = error
                self.lost += len(group) + len(self._queue)
                self._queue = []
                self._entries = self._bytes = 0
                self.changed.notify_all()
            return
        with self.changed:
            self._durable_seq = group[-1].seq
            self._entries -= len(group)
            self._bytes -= sum(len(pending.line) for pending in group)
            self.changed.notify_all()

    def _write(self, group: list[Pending]) -> None:
        lines: list[bytes] = []
        for pending in group:
            if self._is_next_file(pending):
                self._put_down(lines)
                lines = []
                self._begin_file(pending)
            lines.append(pending.line)
            self._size += len(pending.line)
            self._seq, self._hash, self._at_s = pending.seq, pending.hash, pending.at_s
        self._put_down(lines)

    def _is_next_file(self, pending: Pending) -> bool:
        is_full = self._size + len(pending.line) >= self._limits.segment_bytes
        return self._size > 0 and (is_full or pending.at_s // DAY_S > self._at_s // DAY_S)

    def _put_down(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _begin_file(self, pending: Pending) -> None:
        before, self._file = self._file, self._open(segment_path(self._folder, pending.seq), os.O_EXCL)
        os.close(before)
        self._size = 0
        self._anchor()
        self._retire()

    def _open_last(self) -> int:
        files = segments(self._folder)
        path = files[-1][1] if files else segment_path(self._folder, self._seq + 1)
        return self._open(path, 0)

    def _open(self, path: Path, flags: int) -> int:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # its name too has to last
        finally:
            os.close(folder)
        return file

    def _anchor(self) -> None:
        """Sign the head. A store that does not take it is asked again, with the head of then."""
        if self.failure is not None:
            return
        self._anchored_at = self._clock.monotonic()
        if self._tell(sign(self._key, "head", self._seq, self._hash, self._clock.now())):
            self._anchored_seq = self._seq

    def _tell(self, anchor: Anchor) -> bool:
        try:
            self._anchors(anchor)
        except Exception as error:  # whatever somebody's own store raises, the log goes on
            self.anchor_error = error
            return False
        self.anchor_error = None
        return True

    def _retire(self) -> None:
        """Remove files of which every entry is too old: first it is signed what they were."""
        oldest_s = self._clock.now() - max(MIN_RETENTION_DAYS, self._limits.retention_days) * DAY_S
        for last, path in outdated(self._folder, oldest_s):
            statement = sign(self._key, "removed", last.seq, last.hash, self._clock.now())
            append_anchor(removed_path(self._folder), statement)
            self._tell(statement)
            path.unlink()
