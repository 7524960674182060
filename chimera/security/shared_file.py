"""A small SQLite file that the processes of a machine share: the owner's alone, in WAL mode, on disk at each commit."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from chimera.core.errors import StorageError
from chimera.security.strangers import is_strangers

BUSY_S = 5.0


class SharedFile:
    """The file at `path`, made with `tables` if need be. Any thread may use it. Raises StorageError.

    `application_id` tells it from another program's; a file with other tables under that id is refused too.
    """

    def __init__(self, path: Path, application_id: int, tables: Sequence[str]) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            status = path.stat()
            if is_strangers(status):
                raise StorageError(f"{path} is another user's: move it away")
            if status.st_mode & 0o077:
                raise StorageError(f"{path} can be opened by others: chmod 600 it")
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._check(application_id, tables)
                self._switch_to_wal()
                self._connection.execute("PRAGMA synchronous = FULL")
                with self.transaction() as file:
                    if self._check(application_id, tables):
                        for statement in tables:
                            file.execute(statement)
                        file.execute(f"PRAGMA application_id = {application_id}")
            except BaseException:
                self._connection.close()
                raise
            self.inode = self.found()

    def found(self) -> tuple[int, int]:
        """Which file is at `path` now. Raises OSError."""
        status = self.path.stat()
        return status.st_dev, status.st_ino

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all that is done within, or nothing. Leaving it by `return` commits."""
        with self._errors(), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: {error}: mend or move away the file, and free its disk") from error

    def _check(self, application_id: int, tables: Sequence[str]) -> bool:
        """Whether the file is empty yet. Raises StorageError if it is another program's."""
        found = self._connection.execute("PRAGMA application_id").fetchone()[0]
        kept = {row[0] for row in self._connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if found == 0 and not kept:
            return True
        if found != application_id or not kept.issuperset(tables):
            raise StorageError(f"{self.path} is another program's file, or another version's: name another")
        return False

    def _switch_to_wal(self) -> None:
        """SQLite answers "locked" here without waiting, so the waiting is done here."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                mode = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise StorageError(f"{self.path}: the file system has no write-ahead log: use a local disk")
            return
