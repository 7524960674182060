"""Buckets that the processes of one machine share: a file mapped into the memory of each, under one lock.

The file is a table of a fixed size, in sets of 8 rows, as in a processor's cache: a key has its set, and takes the row
of one whose bucket is full and of which nothing is leased, which nobody can tell from a new one. Where a set has no
such row, its keys share the file's first one. The kernel lets go of the lock of a process that dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import threading
from pathlib import Path

from chimera.core.clock import Clock
from chimera.core.errors import InputError, StorageError
from chimera.security.buckets import EPOCH_S, NO_LEASE, Account, Lease, Limit
from chimera.security.strangers import is_strangers

MAGIC = b"CHLIMIT1"
HEADER = struct.Struct("<8s36sI16x")
ROW = struct.Struct("<16sdddqdd")
"""The key's digest; level, leased, leased before, epoch, at; when the row can be taken over. The level is written
before what is leased: a process killed in between has taken tokens that it will not use, and never the other way."""

WAYS = 8
MAX_ROWS = 1 << 20
DIGEST_BYTES = 16
OVERFLOW = b"\xff" * DIGEST_BYTES
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedTokens:
    """The buckets in the file at `path`, for `rows` keys at once, of 64 bytes each. Threads and processes may share it.

    All must give the same `rows`. `clock.monotonic()` must be the machine's own: it is one clock for all processes.
    Raises StorageError if the file cannot be used, InputError for a number of rows that cannot be.
    """

    def __init__(self, path: Path, *, clock: Clock, rows: int = 65_536) -> None:
        if not WAYS <= rows <= MAX_ROWS:
            raise InputError(f"a table has {WAYS} to {MAX_ROWS} rows, not {rows}")
        self.path = path
        self._clock = clock
        self._sets = rows // WAYS
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._file: int
        self._map: mmap.mmap
        self._open()

    def exchange(self, key: str, limit: Limit, amount: float, old: Lease) -> tuple[Lease, float]:
        """See `TokenStore`."""
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
        if self._pid != os.getpid():  # a fork shares its parent's lock: it needs a file of its own
            self._lock = threading.Lock()
            self._map.close()
            os.close(self._file)
            self._open()
        with self._lock:
            if self._file < 0:
                raise StorageError(f"{self.path}: the limits are closed")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                return self._exchange(digest, limit, amount, old)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                self._map.close()
                os.close(self._file)
                self._file = -1

    def _exchange(self, digest: bytes, limit: Limit, amount: float, old: Lease) -> tuple[Lease, float]:
        now = self._clock.monotonic()
        offset, account = self._find(digest, limit, now)
        account.advance(limit, now)
        account.settle(old)
        size = account.lease(limit, amount) if amount else 0.0
        free_at = account.at + 2 * EPOCH_S + (limit.capacity - account.level) / limit.per_s
        row = (account.level, account.leased, account.leased_before, account.epoch, account.at, free_at)
        ROW.pack_into(self._map, offset, digest if offset > HEADER.size else OVERFLOW, *row)
        if size:
            until = (account.epoch + 2) * EPOCH_S
            return Lease(size, size, account.epoch, until), 0.0
        return NO_LEASE, max(0.0, amount - account.level) / limit.per_s

    def _find(self, digest: bytes, limit: Limit, now: float) -> tuple[int, Account]:
        """The key's row and what is in it; of a key without a row, the one that it gets."""
        first = HEADER.size + ROW.size * (1 + WAYS * (int.from_bytes(digest[:8], "little") % self._sets))
        free = -1
        for offset in range(first, first + WAYS * ROW.size, ROW.size):
            found, level, leased, before, epoch, at, free_at = ROW.unpack_from(self._map, offset)
            if found == digest:
                return offset, Account(level, leased, before, epoch, at)
            if free < 0 and (not any(found) or free_at <= now):
                free = offset
        if free >= 0:
            return free, Account(limit.capacity, 0.0, 0.0, int(now // EPOCH_S), now)
        found, level, leased, before, epoch, at, _ = ROW.unpack_from(self._map, HEADER.size)
        if found != OVERFLOW:
            return HEADER.size, Account(limit.capacity, 0.0, 0.0, int(now // EPOCH_S), now)
        return HEADER.size, Account(level, leased, before, epoch, at)

    def _open(self) -> None:
        self._pid = os.getpid()
        size = HEADER.size + ROW.size * (1 + WAYS * self._sets)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._prepare(size)
                fcntl.flock(self._file, fcntl.LOCK_UN)
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error

    def _prepare(self, size: int) -> None:
        boot = BOOT_ID.read_bytes().strip() if BOOT_ID.exists() else b""
        status = os.fstat(self._file)
        if status.st_mode & 0o077 or is_strangers(status):
            raise StorageError(f"{self.path} is not its owner's alone: delete it, or the limits are others' to set")
        there = status.st_size
        if there == 0:
            os.ftruncate(self._file, size)
        elif there != size:
            raise StorageError(f"{self.path} is no table of {WAYS * self._sets} rows: delete it, or give its number")
        self._map = mmap.mmap(self._file, size)
        magic, booted, sets = HEADER.unpack_from(self._map)
        if not any(magic):
            HEADER.pack_into(self._map, 0, MAGIC, boot, self._sets)
        elif magic != MAGIC or sets != self._sets:
            raise StorageError(f"{self.path} is another program's file: name another for the limits")
        elif booted.rstrip(b"\0") != boot:
            self._begin_again(size)
            HEADER.pack_into(self._map, 0, MAGIC, boot, self._sets)

    def _begin_again(self, size: int) -> None:
        """The machine was started anew, and its clock with it: levels stay as they were, and fill from now on."""
        now = self._clock.monotonic()
        for offset in range(HEADER.size, size, ROW.size):
            digest, level, _, _, _, at, free_at = ROW.unpack_from(self._map, offset)
            if any(digest):
                row = (level, 0.0, 0.0, int(now // EPOCH_S), now, now + max(0.0, free_at - at))
                ROW.pack_into(self._map, offset, digest, *row)
