"""Agents' state in one SQLite file, the embedded default."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from chimera.core.errors import Overloaded, StorageError
from chimera.storage import strict_json
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction
from chimera.storage.state import StateStore, Versioned, check_key, check_version, encode_value

MAX_WAITING = 10_000
RETRY_AFTER_S = 0.1
NEXT_VERSION = "UPDATE last_version SET version = version + 1 RETURNING version"
PUT = "INSERT OR REPLACE INTO state VALUES (?, ?, ?)"

T = TypeVar("T")


def _to_1(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL)")
    connection.execute("CREATE TABLE last_version (version INTEGER NOT NULL)")
    connection.execute("INSERT INTO last_version VALUES (0)")


STATE = Layout(what="state store", application_id=0x43485354, upgrades=(_to_1,))  # "CHST"


class SqliteState(StateStore):
    """The store in the file at `path` (WAL, synchronous=FULL). Several processes may open the same file.

    Raises StorageError if the file is damaged, is another program's, or was written by a newer version.
    """

    def __init__(self, *, path: Path, busy_timeout_s: float = 10.0) -> None:
        self.path = path
        self._connection = open_file(path, STATE, busy_timeout_s)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-state")
        self._waiting = 0
        self._closing: asyncio.Task[None] | None = None

    async def get(self, key: str) -> Versioned | None:
        check_key(key)

        def query() -> Versioned | None:
            row = self._connection.execute("SELECT value, version FROM state WHERE key = ?", (key,)).fetchone()
            return None if row is None else Versioned(strict_json.loads(row[0]), row[1])

        return await self._ask(query)

    async def put(self, key: str, value: JsonValue, *, expected: int | None = None) -> int:
        check_key(key)
        encoded = encode_value(key, value)

        def store() -> int:
            with transaction(self._connection):
                if expected is not None:
                    row = self._connection.execute("SELECT version FROM state WHERE key = ?", (key,)).fetchone()
                    check_version(key, row[0] if row else 0, expected)
                [(version,)] = self._connection.execute(NEXT_VERSION).fetchall()
                self._connection.execute(PUT, (key, encoded, version))
            return int(version)

        return await self._ask(store)

    async def delete(self, key: str) -> None:
        check_key(key)

        def remove() -> None:
            self._connection.execute("DELETE FROM state WHERE key = ?", (key,))

        await self._ask(remove)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._in_thread(self._connection.close)  # behind what waits
        self._thread.shutdown(wait=False)

    async def _ask(self, call: Callable[[], T]) -> T:
        if self._closing is not None:
            raise StorageError(f"{self.path}: the state store is closed")
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls already wait for {self.path}", RETRY_AFTER_S)
        self._waiting += 1
        try:
            return await self._in_thread(call)
        finally:
            self._waiting -= 1

    async def _in_thread(self, call: Callable[[], T]) -> T:
        with boundary(self.path, STATE.what):
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
