"""Checkpoints of a SQLite file beside its commits: what the write-ahead log holds is copied in the background.

By itself SQLite does so in the middle of a commit, every 4 MB, and whoever waits for that commit waits for the copy
too: 50 to 200 ms on a usual disk, where a commit takes 3.
"""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)

EVERY_BYTES = 1_000_000
"""What is written between two checkpoints; the log, which takes whole pages, grows by up to four times as much."""

COMMIT_BYTES = 8_000
"""What a commit counts for, however small it is: a few pages are the least."""

MAX_PAGES = 16_000
"""Pages of 4 KiB in the log. It begins anew only at a moment when all of it is in the file, which may never come while
there is always something to write; when it is longer than this, a commit waits for that moment."""

READER_MS = 50
"""How long it waits for whoever reads the log just then. If that is not enough, the log grows until the next time."""


class Checkpoints:
    """Looks after the log of the file at `path`, which `connection`, used by one thread, writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._connection = connection
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-checkpoint")
        self._running: Future[int] | None = None
        self._written = 0
        self.waited = 0
        """How often a commit had to wait for the log to begin anew."""

    def committed(self, size_bytes: int) -> None:
        """So much was committed, and stays so whatever becomes of the log. Called in the writing thread."""
        self._written += COMMIT_BYTES + size_bytes
        if self._running is not None:
            if not self._running.done():
                return
            pages, self._running = self._running.result(), None
            if pages > MAX_PAGES:
                self._begin_anew()
        if self._written >= EVERY_BYTES:
            self._written = 0
            self._running = self._thread.submit(self._move)

    def close(self) -> None:
        """Wait for the one that runs. Called in the writing thread, which closes its connection afterwards."""
        self._thread.shutdown()

    def _begin_anew(self) -> None:
        connection = self._connection
        [timeout_ms] = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute(f"PRAGMA busy_timeout = {READER_MS}")
        try:
            connection.execute("PRAGMA wal_checkpoint(RESTART)")
        except sqlite3.Error as error:
            self._warn(error)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")
        self.waited += 1

    def _move(self) -> int:
        """In a thread of its own: copy what no reader holds back. How many pages the log has."""
        try:
            connection = sqlite3.connect(self._path, isolation_level=None)
            try:
                _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            self._warn(error)
            return 0
        return int(pages)

    def _warn(self, error: Exception) -> None:
        """A disk that is full, most likely: commits say so themselves."""
        log.warning("%s: no checkpoint: %s", self._path, error)
