"""How often a capability has been used: counts by block id, in memory or in a SQLite file that all processes share.

A count is kept until its capability has expired, and some minutes more, as a clock may be put back. A full store
refuses new ids, as forgetting a count would give uses back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from chimera.core.clock import Clock
from chimera.core.errors import InputError, SecurityError
from chimera.security.revocation import LEEWAY_S
from chimera.security.shared_file import SharedFile

MAX_COUNTED = 100_000

TABLES = (
    "CREATE TABLE uses (id TEXT PRIMARY KEY, used INTEGER NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX uses_by_end ON uses (until_s)",
)
APPLICATION_ID = 0x43485553  # "CHUS"


class MemoryUses:
    """For one process."""

    def __init__(self, *, clock: Clock, max_counted: int = MAX_COUNTED) -> None:
        _check(max_counted)
        self._clock = clock
        self._max = max_counted
        self._used: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def take(self, uses: Sequence[tuple[str, int]], until: float) -> bool:
        """Count one more use of each id, or none and false where one is used up. Raises SecurityError when full."""
        with self._lock:
            if any(self._used.get(block_id, (0, 0.0))[0] >= limit for block_id, limit in uses):
                return False
            new = {block_id for block_id, _ in uses if block_id not in self._used}
            if len(self._used) + len(new) > self._max:
                now_s = self._clock.now() - LEEWAY_S
                self._used = {block_id: kept for block_id, kept in self._used.items() if kept[1] > now_s}
                if len(self._used) + len(new) > self._max:
                    raise _full(self._max)
            for block_id in {block_id for block_id, _ in uses}:
                used, kept_until = self._used.get(block_id, (0, 0.0))
                self._used[block_id] = (used + 1, max(kept_until, until))
        return True


class SqliteUses:
    """For all processes of a machine, in the SQLite file at `path`. A use is on the disk before it is allowed."""

    def __init__(self, path: Path, *, clock: Clock, max_counted: int = MAX_COUNTED) -> None:
        _check(max_counted)
        self._clock = clock
        self._max = max_counted
        self._file = SharedFile(path, APPLICATION_ID, TABLES)

    def take(self, uses: Sequence[tuple[str, int]], until: float) -> bool:
        """As above. Raises StorageError when the file cannot be used."""
        with self._file.transaction() as file:
            for block_id, limit in uses:
                row = file.execute("SELECT used FROM uses WHERE id = ?", (block_id,)).fetchone()
                if row is not None and row[0] >= limit:
                    return False
            file.execute("DELETE FROM uses WHERE until_s <= ?", (self._clock.now() - LEEWAY_S,))
            file.executemany(
                "INSERT INTO uses VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET used = used + 1,"
                " until_s = max(until_s, excluded.until_s)",
                sorted({(block_id, until) for block_id, _ in uses}),
            )
            if file.execute("SELECT count(*) FROM uses").fetchone()[0] > self._max:
                raise _full(self._max)
        return True

    def close(self) -> None:
        self._file.close()


def _check(max_counted: int) -> None:
    if max_counted < 1:
        raise InputError(f"a store of {max_counted} counts: give at least 1")


def _full(most: int) -> SecurityError:
    return SecurityError(
        f"uses of {most} capabilities are counted already: wait until some expire, or give it more room"
    )
