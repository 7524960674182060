"""What a campaign has read and made, in a SQLite file: each step is durable before the next, so a killed run goes on.

A `Piece` is one thing to say on its way: planned (there is a brief), made (there is a post), waiting for a person,
handed to the posts' ledger, or ended as refused or failed. Its id follows from what it is about, so that the same
trend, found again, is the same piece.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from chimera.content.create.brief import Brief
from chimera.content.create.item import Item
from chimera.content.feeds.item import FeedItem
from chimera.content.publish.types import Post
from chimera.core.clock import Clock
from chimera.core.errors import InputError, NotThere
from chimera.core.types import Frozen, Name
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

BUSY_TIMEOUT_S: Final = 10.0
MAX_ITEMS: Final = 20_000
"""Feed items that are kept of a campaign, the newest."""
MAX_PIECES: Final = 100_000


class Stage(StrEnum):
    """Where a piece stands."""

    PLANNED = "planned"
    MADE = "made"
    WAITING = "waiting"
    HANDED = "handed"
    REFUSED = "refused"
    FAILED = "failed"


class Piece(Frozen):
    """One thing to say: an item that a brief asked for, or a reply.

    `rules` are what a person has to agree to besides; `asked` counts how often people were asked before. `person` says
    that one had to decide, `changed` that they edited or refused it. `key` is the post's in the ledger, once it is
    handed there. `reason` says why it is where it is.
    """

    id: Name
    campaign: Name
    account: str
    kind: Literal["item", "reply"] = "item"
    stage: Stage = Stage.PLANNED
    brief: Brief | None = None
    item: Item | None = None
    post: Post | None = None
    confidence: float = 1.0
    rules: tuple[Name, ...] = ()
    asked: Annotated[int, Field(ge=0)] = 0
    person: bool = False
    changed: bool = False
    cost_usd: float = 0.0
    key: str = ""
    reason: str = ""
    made_s: float = 0.0

    @property
    def question(self) -> str:
        """The key under which people are asked about it."""
        return f"content/{self.id}/{self.asked}"

    def to(self, stage: Stage, reason: str = "", **changes: object) -> Piece:
        return self.model_copy(update={"stage": stage, "reason": reason[:1_000], **changes})


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE pieces (id TEXT PRIMARY KEY, campaign TEXT NOT NULL, stage TEXT NOT NULL, made_s REAL NOT NULL,"
        " piece TEXT NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX pieces_by_stage ON pieces (stage, made_s)")
    connection.execute(
        "CREATE TABLE items (campaign TEXT NOT NULL, id TEXT NOT NULL, published_s REAL NOT NULL, item TEXT NOT NULL,"
        " PRIMARY KEY (campaign, id)) STRICT"
    )


LAYOUT: Final = Layout(what="record of campaigns", application_id=0x43484350, upgrades=(_first,))  # "CHCP"


class CampaignRecord:
    """The record in the file at `path`; threads and processes may share it. Raises StorageError."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.RLock()
        self._db = open_file(path, LAYOUT, BUSY_TIMEOUT_S)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def read(self, campaign: str, items: Iterable[FeedItem]) -> int:
        """Keep what was read; how many are new."""
        rows = [(campaign, one.id, one.published_s, one.model_dump_json()) for one in items]
        drop = (
            "DELETE FROM items WHERE campaign = ?1 AND id NOT IN"
            " (SELECT id FROM items WHERE campaign = ?1 ORDER BY published_s DESC, id LIMIT ?2)"
        )
        with self._boundary(), transaction(self._db):
            before = self._db.total_changes
            self._db.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?)", rows)
            new = self._db.total_changes - before
            self._db.execute(drop, (campaign, MAX_ITEMS))
            return new

    def items(self, campaign: str) -> tuple[FeedItem, ...]:
        """What is kept, the oldest first."""
        query = "SELECT item FROM items WHERE campaign = ? ORDER BY published_s, id"
        with self._boundary():
            return tuple(FeedItem.model_validate_json(row[0]) for row in self._db.execute(query, (campaign,)))

    def add(self, piece: Piece) -> Piece:
        """A new piece; as it stands, if it is there already."""
        stamped = piece.model_copy(update={"made_s": self._clock.now()})
        row = (piece.id, piece.campaign, piece.stage.value, stamped.made_s, stamped.model_dump_json())
        with self._boundary(), transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO pieces VALUES (?, ?, ?, ?, ?)", row)
            return self._piece(piece.id)

    def put(self, piece: Piece) -> Piece:
        """The piece as it is now."""
        row = (piece.stage.value, piece.model_dump_json(), piece.id)
        with self._boundary(), transaction(self._db):
            self._db.execute("UPDATE pieces SET stage = ?, piece = ? WHERE id = ?", row)
        return piece

    def piece(self, beginning: str) -> Piece:
        """The one whose id begins so. Raises NotThere, InputError where several do."""
        query = "SELECT piece FROM pieces WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2"
        with self._boundary():
            found = self._db.execute(query, (beginning,)).fetchall()
        if not found or not beginning:
            raise NotThere(f"no piece {beginning!a:.80} is there: `chimera content drafts` has their ids")
        if len(found) > 1:
            raise InputError(f"several pieces begin with {beginning:.80}: give more of the id")
        return Piece.model_validate_json(found[0][0])

    def pieces(self, *stages: Stage, campaign: str = "", limit: int = MAX_PIECES) -> tuple[Piece, ...]:
        """Those in these stages, or all; the newest first."""
        marks = ",".join("?" * len(stages))
        where = f"stage IN ({marks})" if stages else "1"
        query = f"SELECT piece FROM pieces WHERE {where} AND campaign = iif(? = '', campaign, ?)"
        values = (*(stage.value for stage in stages), campaign, campaign, limit)
        with self._boundary():
            rows = self._db.execute(f"{query} ORDER BY made_s DESC, id LIMIT ?", values).fetchall()
        return tuple(Piece.model_validate_json(row[0]) for row in rows)

    def _piece(self, id: str) -> Piece:
        row = self._db.execute("SELECT piece FROM pieces WHERE id = ?", (id,)).fetchone()
        return Piece.model_validate_json(row[0])

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        with self._lock, boundary(self._path, LAYOUT.what):
            yield
