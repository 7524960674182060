"""What became of each mention, in a SQLite file: none is answered twice, and who said stop is not written to again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from chimera.content.engage.mention import Mention, Reading
from chimera.content.engage.policy import HOUR_S, Decision, Past
from chimera.core.clock import Clock
from chimera.core.types import Frozen
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

BUSY_TIMEOUT_S = 10.0

_TABLES = (
    "CREATE TABLE mentions (id TEXT NOT NULL, account TEXT NOT NULL, author TEXT NOT NULL, conversation TEXT NOT NULL,"
    " at_s REAL NOT NULL, want TEXT NOT NULL, did TEXT NOT NULL, rule TEXT NOT NULL, tell INTEGER NOT NULL,"
    " text TEXT NOT NULL DEFAULT '', key TEXT NOT NULL DEFAULT '',"
    " done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (account, id)) STRICT",
    "CREATE INDEX mentions_by_author ON mentions (account, author, at_s)",
    "CREATE INDEX mentions_by_conversation ON mentions (account, conversation)",
    "CREATE TABLE stopped (account TEXT NOT NULL, author TEXT NOT NULL, PRIMARY KEY (account, author)) STRICT",
)
_SPOKE = "(did IN ('answer', 'thank') OR tell = 1)"


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


LAYOUT = Layout(what="record of mentions", application_id=0x4348454E, upgrades=(_to_1,))  # "CHEN"


class Handled(Frozen):
    """A mention in the record: `text` is to be said, `key` is the post that says it, `done` says that all is done."""

    id: str
    account: str
    want: str
    decision: Decision
    text: str = ""
    key: str = ""
    done: bool = False
    at_s: float = Field(ge=0.0)


class Mentions:
    """The record in the file at `path`; threads and processes may share it."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.RLock()
        self._db = open_file(path, LAYOUT, BUSY_TIMEOUT_S)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def past(self, mention: Mention) -> Past:
        """What has been between its author and its account."""
        since_s = self._clock.now() - HOUR_S
        with self._boundary():

            def count(where: str, *values: object) -> int:
                query = f"SELECT count(*) FROM mentions WHERE account = ? AND {where}"
                return int(self._db.execute(query, (mention.account, *values)).fetchone()[0])

            talk = mention.conversation
            stopped = "SELECT 1 FROM stopped WHERE account = ? AND author = ?"
            return Past(
                person_hour=count(f"author = ? AND at_s > ? AND {_SPOKE}", mention.author, since_s),
                account_hour=count(f"at_s > ? AND {_SPOKE}", since_s),
                conversation=count(f"conversation = ? AND {_SPOKE}", talk) if talk else 0,
                stopped=self._db.execute(stopped, (mention.account, mention.author)).fetchone() is not None,
                with_person=bool(talk) and count("conversation = ? AND did = 'hand_over'", talk) > 0,
            )

    def begin(self, mention: Mention, reading: Reading, decision: Decision) -> Handled:
        """Write down what will be done, before it is; what was decided before, if it is there already."""
        with self._boundary(), transaction(self._db):
            if (known := self._find(mention.account, mention.id)) is not None:
                return known
            self._db.execute(
                "INSERT INTO mentions (id, account, author, conversation, at_s, want, did, rule, tell)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    mention.id,
                    mention.account,
                    mention.author,
                    mention.conversation,
                    self._clock.now(),
                    reading.want.value,
                    decision.do,
                    decision.rule,
                    int(decision.tell),
                ),
            )
            if decision.do == "stop":
                self._db.execute("INSERT OR IGNORE INTO stopped VALUES (?, ?)", (mention.account, mention.author))
            found = self._find(mention.account, mention.id)
            assert found is not None
            return found

    def known(self, mention: Mention) -> Handled | None:
        """What was decided on it, if anything was."""
        with self._boundary():
            return self._find(mention.account, mention.id)

    def instead(self, mention: Mention, decision: Decision) -> None:
        """What could not be done is done another way: an answer that nothing supports becomes a person's."""
        query = "UPDATE mentions SET did = ?, rule = ?, tell = ? WHERE account = ? AND id = ? AND done = 0"
        with self._boundary(), transaction(self._db):
            self._db.execute(query, (decision.do, decision.rule, int(decision.tell), mention.account, mention.id))

    def made(self, mention: Mention, text: str) -> None:
        """This is what will be said, also by whoever goes on after a crash."""
        query = "UPDATE mentions SET text = ? WHERE account = ? AND id = ? AND done = 0"
        with self._boundary(), transaction(self._db):
            self._db.execute(query, (text, mention.account, mention.id))

    def done(self, mention: Mention, key: str = "") -> None:
        """All of it is carried out; `key` is the post with the answer."""
        query = "UPDATE mentions SET done = 1, key = ? WHERE account = ? AND id = ?"
        with self._boundary(), transaction(self._db):
            self._db.execute(query, (key, mention.account, mention.id))

    def all(self, *, since_s: float = 0.0, limit: int = 100_000) -> tuple[Handled, ...]:
        """The last `limit` since then, the latest first."""
        query = "SELECT * FROM mentions WHERE at_s >= ? ORDER BY at_s DESC, id LIMIT ?"
        with self._boundary():
            return tuple(_handled(row) for row in self._db.execute(query, (since_s, limit)))

    def _find(self, account: str, mention: str) -> Handled | None:
        row = self._db.execute("SELECT * FROM mentions WHERE account = ? AND id = ?", (account, mention)).fetchone()
        return None if row is None else _handled(row)

    @contextmanager
    def _boundary(self) -> Iterator[None]:
        with self._lock, boundary(self._path, LAYOUT.what):
            self._db.row_factory = sqlite3.Row
            yield


def _handled(row: sqlite3.Row) -> Handled:
    return Handled(
        id=row["id"],
        account=row["account"],
        want=row["want"],
        decision=Decision(do=row["did"], rule=row["rule"], tell=bool(row["tell"])),
        text=row["text"],
        key=row["key"],
        done=bool(row["done"]),
        at_s=row["at_s"],
    )
