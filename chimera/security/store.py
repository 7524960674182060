"""Where identity is kept: one private SQLite file with users, API keys, sessions and revocations.

Writes go one after another through one thread, so that nobody's event loop waits for the disk, and return when they
are durable. Reads are lookups by key in a connection of their own: a few microseconds, never behind a writer (WAL).
Who holds what in it: users.py, api_keys.py, sessions.py; revocations are here.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from chimera.core.clock import Clock
from chimera.core.errors import StorageError
from chimera.security.store_file import boundary, open_file

T = TypeVar("T")

KEEP_S = 600.0
"""Seconds for which a revocation is kept after its token has ended, for clocks that differ."""


class SecurityStore:
    """The file at `path`. Processes and threads may share it; a process sees another's writes at once.

    Raises StorageError if the file cannot be used.
    """

    def __init__(self, path: Path, *, clock: Clock, busy_timeout_s: float = 10.0) -> None:
        self.path = path
        self._clock = clock
        self._writer = open_file(path, busy_timeout_s)
        self._reader = open_file(path, busy_timeout_s)
        self._reading = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-security-store")
        self._closed = False

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a security store does not leave its process: open the file where it is needed")

    def close(self) -> None:
        """Wait for what is being written, and let go of the file."""
        if not self._closed:
            self._closed = True
            self._thread.shutdown()
            with self._reading:
                self._reader.close()
            self._writer.close()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in one transaction: all of it, durably, or nothing."""
        self._refuse_closed()
        return await asyncio.wrap_future(self._thread.submit(self._transaction, work))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT by key. Short: it holds up whoever else reads."""
        with self._reading, boundary(self.path):
            return self._reader.execute(sql, values).fetchall()

    def is_revoked(self, id: str) -> bool:
        """Whether a token, a session or a key of this id was revoked, by whichever process."""
        return bool(self.rows("SELECT 1 FROM revoked WHERE id = ?", (id,)))

    def revoke(self, id: str, until: float) -> None:
        """Refuse `id` from now on; it may be forgotten after `until` (wall seconds), when it is of no use anyway.

        Durable when it returns: the calling thread waits.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO revoked VALUES (?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                (id, until + KEEP_S),
            )
            connection.execute("DELETE FROM revoked WHERE until <= ?", (now,))

        self._refuse_closed()
        self._thread.submit(self._transaction, work).result()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StorageError(f"{self.path}: this store was closed")

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with boundary(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
        return result
