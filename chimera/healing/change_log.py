"""What was changed in a tree, and how to undo it: written before anything is changed, in a SQLite file.

SQLite's own journal makes each note whole or absent whenever the process dies; a note holds the bytes that were there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from chimera.core.errors import HealingError
from chimera.healing.tree import Seen, sha256
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

MAX_SETTLED = 256
MAX_SETTLED_BYTES = 256_000_000
BUSY_TIMEOUT_S = 10.0

TABLES = (
    """CREATE TABLE changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        root TEXT NOT NULL,
        state TEXT NOT NULL,
        folders TEXT NOT NULL,
        bytes INTEGER NOT NULL
    )""",
    """CREATE TABLE files (
        change INTEGER NOT NULL REFERENCES changes (id),
        path TEXT NOT NULL,
        old BLOB,
        old_sha256 TEXT NOT NULL,
        new_sha256 TEXT NOT NULL,
        mode INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        PRIMARY KEY (change, path)
    )""",
)


class State(StrEnum):
    """Where a change stands. A tree with a change that is not settled may be mixed."""

    INTENDED = "intended"
    APPLIED = "applied"
    UNDOING = "undoing"
    UNDONE = "undone"


_SETTLED = (State.APPLIED, State.UNDONE)


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a change: what it was, and the SHA-256 of what it becomes ("" for no file)."""

    path: str
    old: Seen
    new_sha256: str


@dataclass(frozen=True, slots=True)
class Change:
    """Files that change as one. `folders` are made for them, outermost first."""

    id: int
    state: State
    files: tuple[FileChange, ...]
    folders: tuple[str, ...]


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in TABLES:
        connection.execute(statement)


LAYOUT = Layout(what="log of changes", application_id=0x43484348, upgrades=(_to_1,))  # "CHCH"


class ChangeLog:
    """The log in the file at `path`. Trees are told apart by their root, and each must have all its changes in one log.

    Raises StorageError if the file cannot be used. The latest 256 settled changes, of 256 MB together, are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_file(path, LAYOUT, BUSY_TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    def begin(self, root: str, files: Sequence[FileChange], folders: Sequence[str]) -> Change:
        """Note, durably, what is about to be changed."""
        size = sum(len(file.old.data or b"") for file in files)
        with boundary(self.path, LAYOUT.what), transaction(self._connection):
            number: int = self._connection.execute(
                "INSERT INTO changes (root, state, folders, bytes) VALUES (?, ?, ?, ?) RETURNING id",
                (root, State.INTENDED, json.dumps(folders), size),
            ).fetchone()[0]
            self._connection.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [_row(number, file) for file in files]
            )
        return Change(number, State.INTENDED, tuple(files), tuple(folders))

    def settle(self, number: int, state: State) -> None:
        """Note, durably, where the change stands; forget the oldest of those that are settled if they are too many."""
        with boundary(self.path, LAYOUT.what), transaction(self._connection):
            self._connection.execute("UPDATE changes SET state = ? WHERE id = ?", (state, number))
            oldest_kept = self._connection.execute(
                """SELECT min(id) FROM (
                    SELECT id, row_number() OVER latest AS n, sum(bytes) OVER latest AS total
                    FROM changes WHERE state IN (?, ?) WINDOW latest AS (ORDER BY id DESC)
                ) WHERE n = 1 OR n <= ? AND total <= ?""",
                (*_SETTLED, MAX_SETTLED, MAX_SETTLED_BYTES),
            ).fetchone()[0]
            old = "SELECT id FROM changes WHERE state IN (?, ?) AND id < ?"
            self._connection.execute(f"DELETE FROM files WHERE change IN ({old})", (*_SETTLED, oldest_kept))
            self._connection.execute(f"DELETE FROM changes WHERE id IN ({old})", (*_SETTLED, oldest_kept))

    def unsettled(self, root: str) -> list[Change]:
        """The changes of the tree that were left half done, the latest first."""
        return self._read("root = ? AND state NOT IN (?, ?)", (root, *_SETTLED))

    def find(self, root: str, number: int) -> Change | None:
        """The change of that number, if it is of this tree and still kept."""
        return next(iter(self._read("root = ? AND id = ?", (root, number))), None)

    def _read(self, which: str, values: Sequence[object]) -> list[Change]:
        with boundary(self.path, LAYOUT.what):
            rows = self._connection.execute(
                f"SELECT id, state, folders FROM changes WHERE {which} ORDER BY id DESC", values
            ).fetchall()
            return [
                Change(number, State(state), tuple(self._files(number)), tuple(json.loads(folders)))
                for number, state, folders in rows
            ]

    def _files(self, number: int) -> list[FileChange]:
        files = []
        with closing(self._connection.execute("SELECT * FROM files WHERE change = ? ORDER BY path", (number,))) as rows:
            for _, path, old, old_sha256, new_sha256, mode, uid, gid, mtime_ns in rows:
                if sha256(old) != old_sha256:
                    raise HealingError(f"{self.path}: the saved bytes of {path} are damaged: restore it by hand")
                files.append(FileChange(path, Seen(old, mode, uid, gid, mtime_ns), new_sha256))
        return files


def _row(number: int, file: FileChange) -> tuple[object, ...]:
    old = file.old
    return number, file.path, old.data, old.sha256, file.new_sha256, old.mode, old.uid, old.gid, old.mtime_ns
