"""The ledger's tables, how a row becomes an entry, and the lock of the one who sends."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import Self

from chimera.content.publish.types import Entry, Post, PostState
from chimera.core.errors import Overloaded, StorageError
from chimera.storage.sqlite_file import Layout

_TABLES = (
    "CREATE TABLE identities (name TEXT PRIMARY KEY, identity TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE posts (n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, account TEXT NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('draft', 'scheduled', 'sending', 'sent', 'failed', 'taken_down')),"
    " post TEXT NOT NULL, parts INTEGER NOT NULL, refs TEXT NOT NULL, likeness BLOB NOT NULL,"
    " created_s REAL NOT NULL, due_s REAL NOT NULL DEFAULT 0, claimed_s REAL NOT NULL DEFAULT 0,"
    " sent_s REAL NOT NULL DEFAULT 0, not_before_s REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,"
    " reason TEXT NOT NULL DEFAULT '') STRICT",
    "CREATE INDEX posts_by_state ON posts (state, due_s)",
    "CREATE INDEX posts_by_account ON posts (account, state)",
    # A claim is never taken back, also where its post failed: what may have gone out counts.
    "CREATE TABLE claims (key TEXT NOT NULL, identity TEXT NOT NULL, at_s REAL NOT NULL, parts INTEGER NOT NULL)"
    " STRICT",
    "CREATE INDEX claims_by_identity ON claims (identity, at_s)",
    "CREATE INDEX claims_by_time ON claims (at_s)",
    "CREATE TABLE approvals (digest TEXT PRIMARY KEY, approver TEXT NOT NULL, rules TEXT NOT NULL) STRICT",
)


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


LAYOUT = Layout(what="ledger of posts", application_id=0x43485053, upgrades=(_to_1,))  # "CHPS"


def entry(row: sqlite3.Row) -> Entry:
    """A row of `posts`."""
    return Entry(
        key=row["key"],
        post=Post.model_validate_json(row["post"]),
        state=PostState(row["state"]),
        due_s=row["due_s"],
        claimed_s=row["claimed_s"],
        sent_s=row["sent_s"],
        not_before_s=row["not_before_s"],
        attempts=row["attempts"],
        reason=row["reason"],
        references=tuple(json.loads(row["refs"])),
    )


class SenderLock:
    """A lock on a file beside the ledger (flock), which ends with the process that holds it, however it ends."""

    def __init__(self, ledger: Path) -> None:
        self._path = ledger.with_name(f"{ledger.name}.sender")
        self._handle = -1

    def __enter__(self) -> Self:
        """Raises Overloaded if another has it, in this process or elsewhere."""
        try:
            self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise Overloaded("another process sends the posts of this ledger: one is enough", 60.0) from None
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
