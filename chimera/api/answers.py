"""What requests with an idempotency key were answered: a small SQLite file of the node's, which outlives its processes.

A request is written down before it is begun, and its answer before it is told. One that a process has left without an
answer, as it died, is known by that: whether it was done cannot be. Names are hashes, and what may be told once only is
not in the file. The oldest are forgotten first, of whoever has most.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from chimera.core.errors import StorageError, StorageUnavailable
from chimera.security.shared_file import SharedFile

T = TypeVar("T")

MAX_KEPT = 10_000

MAX_EACH = 1_000
"""Of one caller, who then loses their own oldest and nobody else's. Where all have too many, whoever has most does."""

MAX_BYTES = 50_000_000
"""Of all answers together."""

KEEP_S = 86_400.0

APPLICATION_ID = 0x4348414E  # "CHAN"

TABLES = (
    """CREATE TABLE answers (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        name BLOB NOT NULL UNIQUE,
        caller TEXT NOT NULL,
        digest BLOB NOT NULL,
        until_s REAL NOT NULL,
        worker TEXT NOT NULL,
        status INTEGER,
        headers TEXT,
        body BLOB,
        size INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX answers_by_caller ON answers (caller, n)",
    "CREATE INDEX answers_by_end ON answers (until_s)",
    "CREATE INDEX answers_by_size ON answers (caller, size)",
)


@dataclass(frozen=True, slots=True)
class Known:
    """A request that came before. `status` is None where it has no answer yet; `body` where that was told once only.

    `under_way`: the process that works on it is alive.
    """

    digest: bytes
    under_way: bool
    status: int | None
    headers: Mapping[str, str]
    body: bytes | None


class Answers:
    """Those in the file at `path`, which the processes of a node share. Raises StorageError if it cannot be used.

    Writes go one after another through one thread; what is awaited is on the disk.
    """

    def __init__(self, path: Path) -> None:
        self._file = SharedFile(path, APPLICATION_ID, TABLES)
        self._worker = _worker(os.getpid())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-answers")
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """Kept until it is closed, for a node without a folder."""
        folder = tempfile.TemporaryDirectory(prefix="chimera-answers-")
        made = cls(Path(folder.name) / "answers.db")
        made._folder = folder
        return made

    def close(self) -> None:
        """Wait for what is being written, and let go of the file. Blocks."""
        self._thread.shutdown()
        self._file.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def begin(self, caller: str, name: bytes, digest: bytes, now: float) -> int | Known:
        """What is known of the request of that name; or if it is new, its number: then it is the asker's to answer.

        `now` is in wall seconds. Raises StorageUnavailable: then it was not written down, and must not be done.
        """

        def work(file: sqlite3.Connection) -> int | Known:
            file.execute("DELETE FROM answers WHERE until_s <= ?", (now,))
            row = file.execute(
                "SELECT digest, worker, status, headers, body FROM answers WHERE name = ?", (name,)
            ).fetchone()
            if row is not None:
                found, worker, status, headers, body = row
                return Known(found, _is_alive(worker), status, json.loads(headers or "{}"), body)
            _make_room(file, caller)
            added = file.execute(
                "INSERT INTO answers (name, caller, digest, until_s, worker) VALUES (?, ?, ?, ?, ?)",
                (name, caller, digest, now + KEEP_S, self._worker),
            )
            return int(added.lastrowid or 0)

        try:
            return await self._do(work)
        except StorageError as error:
            raise StorageUnavailable(str(error)) from error

    async def finish(self, number: int, status: int, headers: Mapping[str, str], body: bytes | None) -> None:
        """This is what the request of that number gets from now on. Without `body`, that it was told."""
        told = (status, json.dumps(dict(headers)), body, len(body or b""), number)

        def work(file: sqlite3.Connection) -> None:
            file.execute("UPDATE answers SET status = ?, headers = ?, body = ?, size = ? WHERE n = ?", told)
            while file.execute("SELECT total(size) FROM answers").fetchone()[0] > MAX_BYTES:
                oldest = "(SELECT min(n) FROM answers WHERE size > 0 AND caller = ?)"
                file.execute(f"DELETE FROM answers WHERE n = {oldest}", (_who_has_most(file, "total(size)"),))

        await self._do(work)

    async def forget(self, number: int) -> None:
        """Nothing was done: the same may be asked again."""
        await self._do(lambda file: file.execute("DELETE FROM answers WHERE n = ?", (number,)))

    def leave(self, number: int) -> None:
        """Nobody works on it any more, and whether it was done is not known. Waits for nothing."""
        self._submit(lambda file: file.execute("UPDATE answers SET worker = '' WHERE n = ?", (number,)))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        def whole() -> T:
            with self._file.transaction() as file:
                return work(file)

        return self._thread.submit(whole)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("answers do not leave their process: open the file where it is needed")


def _make_room(file: sqlite3.Connection, caller: str) -> None:
    """For one more. What has its answer goes before what is under way."""
    if file.execute("SELECT count(*) FROM answers WHERE caller = ?", (caller,)).fetchone()[0] < MAX_EACH:
        if file.execute("SELECT count(*) FROM answers").fetchone()[0] < MAX_KEPT:
            return
        caller = _who_has_most(file, "count(*)")
    oldest = "(SELECT n FROM answers WHERE caller = ? ORDER BY status IS NULL, n LIMIT 1)"
    file.execute(f"DELETE FROM answers WHERE n = {oldest}", (caller,))


def _who_has_most(file: sqlite3.Connection, of: str) -> str:
    row = file.execute(f"SELECT caller FROM answers GROUP BY caller ORDER BY {of} DESC LIMIT 1").fetchone()
    return str(row[0])


def _worker(pid: int) -> str:
    """The process, told from another that gets its number later. "" where there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:  # somebody else's
        pass
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:  # no Linux
        return f"{pid}"
    return "" if state == "Z" else f"{pid}:{rest[18]}"  # the time it began at, in ticks since the machine did


def _is_alive(worker: str) -> bool:
    pid = worker.partition(":")[0]
    return pid.isdigit() and _worker(int(pid)) == worker
