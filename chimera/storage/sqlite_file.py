"""A SQLite file that keeps what it is given: private, in WAL mode, of a known version; its errors say what to do."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chimera.core.errors import StorageError


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds. `application_id` tells it from another program's; `what` names it to people.

    `upgrades[k]` takes a file of version k to version k + 1, within one transaction for all; the first makes a new one.
    """

    what: str
    application_id: int
    upgrades: Sequence[Callable[[sqlite3.Connection], None]]

    @property
    def version(self) -> int:
        return len(self.upgrades)


def open_file(path: Path, layout: Layout, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection (WAL, synchronous=FULL) to the file at `path`, made or upgraded if need be. Any thread may use it.

    Parent folders are made for the owner alone, and so is the file. Raises StorageError if it is damaged, is another
    program's, or was written by a newer version.
    """
    with boundary(path, layout.what):
        _create(path)
        connection = sqlite3.connect(
            path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            _prepare(connection, path, layout, busy_timeout_s)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: all that is done within, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


class boundary:
    """Turns SQLite's errors into StorageErrors that name the file and say what to do."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StorageError(f"{self._path}: {_advice(error, self._path, self._what)}") from error


def _advice(error: sqlite3.Error | OSError, path: Path, what: str) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return (
            f"the {what} is damaged ({error}): move it away together with {path.name}-wal and {path.name}-shm, then"
            " restore a copy or start with a new one; `sqlite3 FILE .recover` saves what can still be read"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process holds the {what} ({error}): stop it, or use another file"
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full ({error}): free some space"
    return str(error)


def _create(path: Path) -> None:
    """Make the file and its parent folders for the owner alone; what exists is left as it is."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
    # An existing file is not opened here: closing it would drop the locks that this process holds on it.
    if not path.exists():
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare(connection: sqlite3.Connection, path: Path, layout: Layout, busy_timeout_s: float) -> None:
    connection.execute("BEGIN")  # one view of the file, which another process may be making just now
    _version(connection, path, layout)  # before anything is written: another program's file stays as it is
    connection.execute("COMMIT")
    _switch_to_wal(connection, path, busy_timeout_s)
    connection.execute("PRAGMA synchronous = FULL")
    with transaction(connection):
        version = _version(connection, path, layout)  # again, under the lock: two processes may open it at once
        for upgrade in layout.upgrades[version:]:
            upgrade(connection)
        if version < layout.version:
            connection.execute(f"PRAGMA application_id = {layout.application_id}")
            connection.execute(f"PRAGMA user_version = {layout.version}")


def _version(connection: sqlite3.Connection, path: Path, layout: Layout) -> int:
    """The version of the file; 0 if it holds nothing yet. Raises StorageError if it is no file of this layout."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version == 0 and application == 0 and tables == 0:
        return 0
    if application != layout.application_id or version < 1:
        raise StorageError(f"{path} is a SQLite file of another program: name another file for the {layout.what}")
    if version > layout.version:
        raise StorageError(
            f"{path} was written by a newer Chimera (schema {version}; this one knows {layout.version}):"
            f" upgrade Chimera or name another file for the {layout.what}"
        )
    return version


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
