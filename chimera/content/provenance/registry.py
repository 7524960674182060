"""What this house made, by its hashes: an answer to "is this yours?" when the credentials are gone.

Platforms encode pictures anew and strip their credentials. So each picture is kept here by the SHA-256 of its bytes and
by a perceptual hash, and each text by the SHA-256 of its normal form. Durable: SQLite, synchronous=FULL. No picture
and no text is kept, only hashes.
"""

from __future__ import annotations

import sqlite3
import threading
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from chimera.content.media.picture import opened
from chimera.content.provenance.likeness import RADIUS, distance, is_plain, likeness
from chimera.core.clock import Clock
from chimera.core.errors import InputError, StorageError
from chimera.core.types import Frozen
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

MAX_ENTRIES: Final = 1_000_000
MAX_FOUND: Final = 20
MAX_TEXT_CHARS: Final = 100_000
BUSY_TIMEOUT_S: Final = 10.0

Kind = Literal["text", "picture"]
How = Literal["same", "alike"]


class Made(Frozen):
    """One thing that was made here. `how`: the very same bytes or words, or a picture alike in all but `bits` bits."""

    item_id: str
    account: str
    kind: Kind
    at_s: float
    how: How
    bits: int = Field(default=0, ge=0)


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE made (digest BLOB NOT NULL, item TEXT NOT NULL, account TEXT NOT NULL, kind TEXT NOT NULL,"
        " at_s REAL NOT NULL, likeness BLOB, PRIMARY KEY (digest, item, account)) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX pictures ON made (likeness) WHERE likeness IS NOT NULL")


_LAYOUT: Final = Layout(what="registry of made content", application_id=0x43484D52, upgrades=(_first,))


class Registry:
    """The registry in a file. Threads and processes may share it; entries are made once and never changed.

    A look-up by likeness compares with every picture, about a microsecond each. Raises StorageError for a file that
    is damaged or another program's.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = open_file(path, _LAYOUT, BUSY_TIMEOUT_S)
        self._connection.create_function("bits", 2, distance, deterministic=True)

    def record(
        self, item_id: str, account: str, *, texts: tuple[str, ...] = (), pictures: tuple[bytes, ...] = ()
    ) -> int:
        """Keep the hashes of an item's texts and pictures, all or none; how many are new. Again: nothing happens.

        Raises InputError for names that are empty or too long and for pictures that cannot be read, StorageError when
        MAX_ENTRIES are kept.
        """
        if not all(1 <= len(name) <= 200 for name in (item_id, account)):
            raise InputError("what is recorded needs the item's id and its account, of 1 to 200 characters each")
        rows: list[tuple[bytes, Kind, bytes | None]] = [(_text_digest(text), "text", None) for text in texts]
        for data in pictures:
            image = opened(data)
            rows.append((sha256(data).digest(), "picture", None if is_plain(image) else likeness(image)))
        now_s = self._clock.now()
        with self._lock, boundary(self._path, _LAYOUT.what), transaction(self._connection):
            kept: int = self._connection.execute("SELECT count(*) FROM made").fetchone()[0]
            if kept + len(rows) > MAX_ENTRIES:
                raise StorageError(f"{self._path} holds {kept} entries, of at most {MAX_ENTRIES}: start another file")
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO made (digest, item, account, kind, at_s, likeness) VALUES (?, ?, ?, ?, ?, ?)",
                [(digest, item_id, account, kind, now_s, like) for digest, kind, like in rows],
            )
            return self._connection.total_changes - before

    def find(self, data: bytes, *, radius: int = RADIUS) -> tuple[Made, ...]:
        """What was made here and is this picture, or alike within `radius` bits; the nearest, then the oldest first.

        Knows copies that were encoded anew or made smaller; not ones that were cropped, turned or drawn upon. Raises
        InputError for what is no picture.
        """
        if not 0 <= radius <= 64:
            raise InputError(f"a radius of {radius} bits: 0 to 64 of 256 mean anything")
        if same := self._same(sha256(data).digest(), "picture"):
            return same
        image = opened(data)
        if is_plain(image):
            return ()
        query = (
            "SELECT item, account, kind, at_s, 'alike', bits(likeness, ?1) AS far FROM made"
            " WHERE likeness IS NOT NULL AND far <= ?2 ORDER BY far, at_s, item LIMIT ?3"
        )
        return self._read(query, (likeness(image), radius, MAX_FOUND))

    def find_text(self, text: str) -> tuple[Made, ...]:
        """What was made here in these words, whatever their case, white space and Unicode form; the oldest first."""
        return self._same(_text_digest(text), "text")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _same(self, digest: bytes, kind: Kind) -> tuple[Made, ...]:
        query = (
            "SELECT item, account, kind, at_s, 'same', 0 FROM made"
            " WHERE digest = ? AND kind = ? ORDER BY at_s, item LIMIT ?"
        )
        return self._read(query, (digest, kind, MAX_FOUND))

    def _read(self, query: str, values: tuple[object, ...]) -> tuple[Made, ...]:
        with self._lock, boundary(self._path, _LAYOUT.what):
            rows = self._connection.execute(query, values).fetchall()
        names = ("item_id", "account", "kind", "at_s", "how", "bits")
        return tuple(Made(**dict(zip(names, row, strict=True))) for row in rows)


def _text_digest(text: str) -> bytes:
    if not text.strip() or len(text) > MAX_TEXT_CHARS:
        raise InputError(f"a text of {len(text)} characters: 1 to {MAX_TEXT_CHARS} are recorded")
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return sha256(normal.encode("utf-8", "replace")).digest()
