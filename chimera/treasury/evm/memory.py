"""What a key has signed, in a file of its own: durable before the signature is handed out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction
from chimera.treasury.evm.types import SafeTx, SignedTx

BUSY_TIMEOUT_S = 5.0


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE signed (request_id TEXT PRIMARY KEY, tx TEXT NOT NULL, since INTEGER NOT NULL,"
        " closed INTEGER NOT NULL DEFAULT 0) STRICT"
    )
    connection.execute("CREATE INDEX signed_open ON signed (request_id) WHERE closed = 0")
    connection.execute(
        "CREATE TABLE sealed (request_id TEXT NOT NULL, nonce INTEGER NOT NULL, PRIMARY KEY (request_id, nonce))"
        " STRICT, WITHOUT ROWID"
    )


LAYOUT = Layout(what="memory of a key", application_id=0x43484B59, upgrades=(_first,))


class Memory:
    """In the SQLite file at `path`. It is never moved back: without it a key would sign twice.

    Raises StorageError where it cannot be read or written; then nothing is signed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_file(path, LAYOUT, BUSY_TIMEOUT_S)

    def signed(self, request_id: str) -> SignedTx | None:
        with boundary(self._path, LAYOUT.what):
            found = self._connection.execute(
                "SELECT tx, since FROM signed WHERE request_id = ?", (request_id,)
            ).fetchone()
        return None if found is None else SignedTx(tx=SafeTx.model_validate_json(found[0]), since=found[1])

    def open(self) -> dict[str, SignedTx]:
        """What was signed and has not come to a sound end, by request."""
        with boundary(self._path, LAYOUT.what):
            found = self._connection.execute("SELECT request_id, tx, since FROM signed WHERE closed = 0").fetchall()
        return {key: SignedTx(tx=SafeTx.model_validate_json(tx), since=since) for key, tx, since in found}

    def remember(self, request_id: str, tx: SafeTx, since: int) -> None:
        """Before it is signed. There is one for each request."""
        with boundary(self._path, LAYOUT.what), transaction(self._connection):
            self._connection.execute(
                "INSERT INTO signed (request_id, tx, since) VALUES (?, ?, ?)", (request_id, tx.model_dump_json(), since)
            )

    def close_request(self, request_id: str) -> None:
        """It has come to a sound end: nobody needs to look at it again."""
        with boundary(self._path, LAYOUT.what), transaction(self._connection):
            self._connection.execute("UPDATE signed SET closed = 1 WHERE request_id = ?", (request_id,))

    def nonces(self, request_id: str) -> set[int]:
        """The relayer's nonces that were signed for a payment."""
        with boundary(self._path, LAYOUT.what):
            found = self._connection.execute("SELECT nonce FROM sealed WHERE request_id = ?", (request_id,)).fetchall()
        return {nonce for (nonce,) in found}

    def remember_nonce(self, request_id: str, nonce: int) -> None:
        with boundary(self._path, LAYOUT.what), transaction(self._connection):
            self._connection.execute("INSERT OR IGNORE INTO sealed VALUES (?, ?)", (request_id, nonce))

    def close(self) -> None:
        self._connection.close()
