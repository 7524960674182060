"""Revocations in a SQLite file, for all processes of a machine: whoever asks looks every quarter of a second for more.

There is no thread to die unseen: `PRAGMA data_version` costs microseconds, and rows are read only when it has changed.
A file that was moved away, replaced or cannot be read makes what is known stale. It needs a local disk.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from chimera.core.clock import Clock
from chimera.core.errors import SecurityError
from chimera.security.revocation import LEEWAY_S, MAX_REVOKED, STALE_AFTER_S, Revocations, Stale, full
from chimera.security.shared_file import SharedFile

POLL_S = 0.25
APPLICATION_ID = 0x43485256  # "CHRV"

TABLES = (
    "CREATE TABLE revoked (n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, until_s REAL NOT NULL)",
    "CREATE INDEX revoked_by_end ON revoked (until_s)",
)


class SqliteRevocations(Revocations):
    """Those in the file at `path`. Raises StorageError if it cannot be used."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        max_revoked: int = MAX_REVOKED,
        stale_after_s: float = STALE_AFTER_S,
        stale: Stale = "revoked",
    ) -> None:
        super().__init__(clock=clock, max_revoked=max_revoked, stale_after_s=stale_after_s, stale=stale)
        self._file = SharedFile(path, APPLICATION_ID, TABLES)
        # A connection of its own: what others are about to write must not make the reader wait.
        self._reader = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        self._reader.execute("PRAGMA query_only = 1")
        self._reading = threading.Lock()
        self._looked_at_s = float("-inf")
        self._version = -1
        self._last_n = 0

    def _look(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._looked_at_s < POLL_S or not self._reading.acquire(blocking=False):
            return
        try:
            self._looked_at_s = now_s
            if self._file.found() != self._file.inode:
                return
            version = self._reader.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._read_on()
                self._version = version
            self._known.sweep_at_times()
            self._fresh_at_s = now_s
        except (sqlite3.Error, OSError, SecurityError):
            return  # what is known grows stale
        finally:
            self._reading.release()

    def _read_on(self) -> None:
        rows = self._reader.execute("SELECT n, id, until_s FROM revoked WHERE n > ? ORDER BY n", (self._last_n,))
        wall_s = self._clock.now() - LEEWAY_S
        for n, revoked_id, until in rows:
            if until > wall_s:
                self._known.add(revoked_id, until)
            self._last_n = n

    def _store(self, revoked_id: str, until: float) -> None:
        with self._file.transaction() as file:
            file.execute("DELETE FROM revoked WHERE until_s <= ?", (self._clock.now() - LEEWAY_S,))
            row = file.execute("SELECT until_s FROM revoked WHERE id = ?", (revoked_id,)).fetchone()
            if row is not None and row[0] >= until:
                return
            if row is None and file.execute("SELECT count(*) FROM revoked").fetchone()[0] >= self._max:
                raise full(self._max)
            # REPLACE, and not UPDATE: a new `n` is what the other processes look for.
            file.execute("INSERT OR REPLACE INTO revoked (id, until_s) VALUES (?, ?)", (revoked_id, until))

    def _end(self) -> None:
        with self._reading:
            self._reader.close()
        self._file.close()
