"""The embedded default: a journal in one SQLite file, with group commit.

A durable commit waits for the disk, and that wait is the cost of an append. So one thread writes, and all appends that
arrive while it commits go into its next transaction together: the wait is shared, and the event loop never blocks.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from chimera.core.errors import Overloaded, StorageError
from chimera.core.events import Event
from chimera.storage.journal import (
    MAX_EVENT_BYTES,
    MAX_READ,
    MAX_WAITING_BYTES,
    MAX_WAITING_EVENTS,
    Journal,
    MissionSummary,
    advance,
    check_limit,
    decode_event,
    encode_event,
)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4348494D  # "CHIM": tells a journal from another program's SQLite file
SCHEMA = """
CREATE TABLE missions (
    n INTEGER PRIMARY KEY,
    mission_id TEXT NOT NULL UNIQUE,
    first_at_s REAL NOT NULL,
    last_kind TEXT NOT NULL,
    last_seq INTEGER NOT NULL
);
CREATE TABLE events (
    mission_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (mission_id, seq)
);
"""
LAST_SEQ = "SELECT last_seq FROM missions WHERE mission_id = ?"
INSERT_EVENT = "INSERT INTO events (mission_id, seq, line) VALUES (?, ?, ?)"
UPSERT_MISSION = """
INSERT INTO missions (mission_id, first_at_s, last_kind, last_seq) VALUES (?, ?, ?, ?)
ON CONFLICT (mission_id) DO UPDATE SET last_kind = excluded.last_kind, last_seq = excluded.last_seq
"""
READ_EVENTS = "SELECT line FROM events WHERE mission_id = ? AND seq > ? ORDER BY seq LIMIT ?"
READ_MISSIONS = "SELECT mission_id, first_at_s, last_kind, last_seq FROM missions ORDER BY n DESC LIMIT ?"

MAX_WAITING_READS = 1_000
MAX_SEQ = 2**63 - 1
RETRY_AFTER_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Batch:
    """One append on its way to the disk."""

    events: tuple[Event, ...]
    lines: list[bytes]
    stored: Future[None] = field(default_factory=Future)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.lines))


class SqliteJournal(Journal):
    """A journal in the file at `path` (WAL, synchronous=FULL). Several processes may open the same file.

    `busy_timeout_s` is how long a commit waits for another process's. Raises StorageError if the file is damaged, is
    another program's, or was written by a newer version.
    """

    def __init__(
        self,
        *,
        path: Path,
        busy_timeout_s: float = 10.0,
        max_waiting_events: int = MAX_WAITING_EVENTS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.path = path
        self.commits = 0
        """Transactions committed so far: appends per commit is what group commit gains."""
        self._max_waiting_events = max_waiting_events
        self._max_waiting_bytes = max_waiting_bytes
        self._max_event_bytes = max_event_bytes
        self._lock = threading.Lock()  # guards the fields below, which the event loop and the writer share
        self._waiting: list[_Batch] = []
        self._events = self._bytes = self._reads = 0
        self._closing: Future[None] | None = None
        self._connection = _open(path, busy_timeout_s)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-journal")

    async def append(self, events: Sequence[Event]) -> None:
        batch = _Batch(tuple(events), [encode_event(event, self._max_event_bytes) for event in events])
        with self._lock:
            self._check_open()
            if not batch.events:
                return
            self._admit(batch)
            self._waiting.append(batch)
            if len(self._waiting) == 1:
                self._writer.submit(self._commit_waiting)
        await asyncio.wrap_future(batch.stored)

    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        check_limit(limit)

        def query() -> list[Event]:
            rows = self._connection.execute(READ_EVENTS, (mission_id, max(0, min(after, MAX_SEQ)), limit))
            return [decode_event(line, str(self.path)) for (line,) in rows]

        return await self._query(query)

    async def missions(self, limit: int = 100) -> list[MissionSummary]:
        check_limit(limit)

        def query() -> list[MissionSummary]:
            rows = self._connection.execute(READ_MISSIONS, (limit,))
            return [
                MissionSummary(mission_id=mission, first_at_s=first_at_s, last_kind=last_kind, events=events)
                for mission, first_at_s, last_kind, events in rows
            ]

        return await self._query(query)

    async def close(self) -> None:
        with self._lock:
            if self._closing is None:
                self._closing = self._writer.submit(self._connection.close)  # behind every commit that waits
                self._writer.shutdown(wait=False)
        with _boundary(self.path):
            await asyncio.shield(asyncio.wrap_future(self._closing))

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StorageError(f"{self.path}: the journal is closed")

    def _admit(self, batch: _Batch) -> None:
        """Count `batch` in, or refuse it. What is being committed counts as waiting: it still takes memory."""
        events, size = len(batch.events), batch.size_bytes
        if events > self._max_waiting_events or size > self._max_waiting_bytes:
            raise StorageError(
                f"{events} events of {size} bytes are too much for one append:"
                f" the limits are {self._max_waiting_events} events and {self._max_waiting_bytes} bytes"
            )
        if self._events + events > self._max_waiting_events or self._bytes + size > self._max_waiting_bytes:
            raise Overloaded(f"{self._events} events already wait for {self.path}", RETRY_AFTER_S)
        self._events += events
        self._bytes += size

    async def _query(self, query: Callable[[], T]) -> T:
        with self._lock:
            self._check_open()
            if self._reads >= MAX_WAITING_READS:
                raise Overloaded(f"{self._reads} reads already wait for {self.path}", RETRY_AFTER_S)
            self._reads += 1
            future = self._writer.submit(query)
        future.add_done_callback(self._count_read_out)
        with _boundary(self.path):
            return await asyncio.wrap_future(future)

    def _count_read_out(self, _: Future[T]) -> None:
        with self._lock:
            self._reads -= 1

    def _commit_waiting(self) -> None:
        """In the writer thread: commit everything that waits as one transaction, then answer every append."""
        with self._lock:
            group, self._waiting = self._waiting, []
        wanted = [batch for batch in group if batch.stored.set_running_or_notify_cancel()]
        try:
            with _boundary(self.path):
                refused = self._commit(wanted)
        except Exception as error:  # every append in the group hears of it: none may wait for ever
            refused = dict.fromkeys(wanted, error)
        with self._lock:
            self._events -= sum(len(batch.events) for batch in group)
            self._bytes -= sum(batch.size_bytes for batch in group)
        for batch in wanted:
            if batch in refused:
                batch.stored.set_exception(refused[batch])
            else:
                batch.stored.set_result(None)

    def _commit(self, group: list[_Batch]) -> dict[_Batch, Exception]:
        """Write `group`, less the batches that break a mission's order: those are returned with their errors."""
        refused: dict[_Batch, Exception] = {}
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for batch in group:
                try:
                    self._write(batch)
                except StorageError as error:
                    refused[batch] = error
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self.commits += 1
        return refused

    def _write(self, batch: _Batch) -> None:
        missions = {event.mission_id: event for event in batch.events}
        stored = {mission: self._connection.execute(LAST_SEQ, (mission,)).fetchone() for mission in missions}
        last = advance(batch.events, {mission: row[0] for mission, row in stored.items() if row})  # before any write
        self._connection.executemany(
            INSERT_EVENT,
            [(event.mission_id, event.seq, line) for event, line in zip(batch.events, batch.lines, strict=True)],
        )
        first_at_s = {event.mission_id: event.at_s for event in reversed(batch.events)}
        self._connection.executemany(
            UPSERT_MISSION,
            [(mission, first_at_s[mission], event.kind.value, last[mission]) for mission, event in missions.items()],
        )


class _boundary:
    """Turns SQLite's errors into StorageErrors that name the file and say what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StorageError(f"{self._path}: {_advice(error, self._path)}") from error


def _advice(error: sqlite3.Error | OSError, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return (
            f"the journal is damaged ({error}): move it away together with {path.name}-wal and {path.name}-shm, then"
            " restore a copy or start with a new one; `sqlite3 FILE .recover` saves what can still be read"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process holds the journal ({error}): stop it, or use another file"
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full ({error}): free some space"
    return str(error)


def _open(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    with _boundary(path):
        _create(path)
        # After this function only the writer thread touches the connection.
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, busy_timeout_s)
        except BaseException:
            connection.close()
            raise
    return connection


def _create(path: Path) -> None:
    """Make the file and its parent folders for the owner alone; what exists is left as it is."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
    # An existing file is not opened here: closing it would drop the locks that this process holds on it.
    if not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    connection.execute("BEGIN")  # one view of the file, which another process may be making just now
    _is_new(connection, path)  # before anything is written: another program's file stays as it is
    connection.execute("COMMIT")
    _switch_to_wal(connection, path, busy_timeout_s)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if _is_new(connection, path):  # asked again under the lock: two processes may open a new file at once
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file holds nothing yet. Raises StorageError if it holds anything but a journal of this version."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version == 0 and application == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise StorageError(f"{path} is a SQLite file of another program: name another file for the journal")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a newer Chimera (schema {version}; this one knows {SCHEMA_VERSION}):"
            " upgrade Chimera or name another file for the journal"
        )
    return False


def _switch_to_wal(connection: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    """Turn WAL on. SQLite answers "locked" here without waiting, so the waiting is done here, within the same limit."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StorageError(
                f"{path}: the file system has no write-ahead log (journal mode {mode}): use a local disk"
            )
        return
