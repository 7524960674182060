"""A private SQLite file: for its owner alone, in WAL mode, of one known layout; its errors say what to do."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from chimera.core.errors import StorageError
from chimera.security.strangers import is_strangers

APPLICATION_ID = 0x43485345  # "CHSE"
VERSION = 1

TABLES = (
    """CREATE TABLE users (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        tenant TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        one_time_until REAL,
        disabled INTEGER NOT NULL DEFAULT 0,
        made_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE attempts (
        name TEXT PRIMARY KEY,
        failures INTEGER NOT NULL,
        locked_until REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        user TEXT NOT NULL REFERENCES users (name),
        role TEXT NOT NULL,
        scopes TEXT,
        rate_limit INTEGER NOT NULL,
        label TEXT NOT NULL,
        made_by TEXT,
        made_at REAL NOT NULL,
        expires_at REAL,
        revoked_at REAL
    ) WITHOUT ROWID""",
    "CREATE INDEX keys_by_user ON keys (user, made_at)",
    "CREATE INDEX keys_by_maker ON keys (made_by)",
    """CREATE TABLE families (
        sid TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        started_at REAL NOT NULL,
        ends_at REAL NOT NULL,
        revoked INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    "CREATE INDEX families_by_user ON families (user, started_at)",
    "CREATE INDEX families_by_end ON families (ends_at)",
    """CREATE TABLE refreshes (
        jti TEXT PRIMARY KEY,
        sid TEXT NOT NULL REFERENCES families (sid) ON DELETE CASCADE,
        used INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    "CREATE INDEX refreshes_by_family ON refreshes (sid)",
    "CREATE TABLE revoked (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX revoked_by_end ON revoked (until)",
)


class boundary:
    """Turns SQLite's errors into StorageErrors that name the file and say what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StorageError(f"{self._path}: {_advice(error)}") from error


def open_file(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to the file at `path`, which is made if need be. What was committed outlives a power cut.

    Raises StorageError if it is damaged, another program's, of a newer version, or open to other users.
    """
    with boundary(path):
        _create(path)
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            _refuse_others(connection, path)
            _switch_to_wal(connection, path, busy_timeout_s)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            _make(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _create(path: Path) -> None:
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    status = path.stat()
    if is_strangers(status):
        raise StorageError(f"{path} is another user's: move it away, and restore your own")
    if status.st_mode & 0o077:
        raise StorageError(f"{path} can be read by other users: chmod 600 {path.name}, and change what it held")


def _refuse_others(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")  # one view of a file that another process may be making just now
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    connection.execute("COMMIT")
    if not tables and not application and not version:
        return
    if application != APPLICATION_ID:
        raise StorageError(f"{path} is a SQLite file of another program: name another file for the security store")
    if version > VERSION:
        raise StorageError(f"{path} was written by a newer Chimera (schema {version}): upgrade Chimera")


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # two processes may open a new file at once
            for statement in TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _switch_to_wal(connection: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    """Turn WAL on. SQLite answers "locked" here without waiting, so the waiting is done here."""
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
            raise StorageError(f"{path}: the file system has no write-ahead log (mode {mode}): use a local disk")
        return


def _advice(error: sqlite3.Error | OSError) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"the security store is damaged ({error}): move it and its -wal and -shm away, and restore a copy"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process holds the security store ({error}): stop it, or use another file"
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full ({error}): free some space"
    return str(error)
