"""Sessions: families of refresh tokens, of which each is good once.

A refresh token that comes a second time was copied: by whom cannot be told, so the whole family ends (RFC 9700,
section 4.14.2). A family ends at a time fixed when it begins, however often it is refreshed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from chimera.core.clock import Clock
from chimera.security.store import SecurityStore

MAX_FAMILIES = 100
"""Of one user, at once. One more ends the oldest."""

MAX_TURNS = 10_000
"""Refresh tokens of one family: at one every quarter of an hour, for more than 90 days. One more ends it."""

Turn = Literal["fresh", "reused", "ended"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is over, and until when (wall seconds) a token of it may be about."""

    sid: str
    ends_at: float


class Sessions:
    """The families in a store."""

    def __init__(self, store: SecurityStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def start(self, sid: str, user: str, jti: str, ends_at: float) -> tuple[Ended, ...]:
        """Begin a family with its first refresh token. Those of the user that had to make room for it are returned."""
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[Ended, ...]:
            connection.execute("DELETE FROM families WHERE ends_at <= ?", (now,))
            over = connection.execute(
                "SELECT sid, ends_at FROM families WHERE user = ? AND NOT revoked"
                " ORDER BY started_at DESC, sid LIMIT -1 OFFSET ?",
                (user, MAX_FAMILIES - 1),
            ).fetchall()
            connection.executemany("UPDATE families SET revoked = 1 WHERE sid = ?", [(old,) for old, _ in over])
            connection.execute("INSERT INTO families VALUES (?, ?, ?, ?, 0)", (sid, user, now, ends_at))
            connection.execute("INSERT INTO refreshes VALUES (?, ?, 0)", (jti, sid))
            return tuple(Ended(*row) for row in over)

        return await self._store.write(work)

    async def turn(self, jti: str, new_jti: str) -> tuple[Turn, Ended | None]:
        """Use up a refresh token for the next one, in one step: of two at once, one is fresh and the other reused.

        Unless it is fresh its family is over, and is returned if it is known.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[Turn, Ended | None]:
            row = connection.execute(
                "SELECT f.sid, f.ends_at, f.revoked, r.used FROM refreshes r JOIN families f USING (sid)"
                " WHERE r.jti = ?",
                (jti,),
            ).fetchone()
            if row is None:
                return "ended", None
            sid, ends_at, revoked, used = row
            family = Ended(sid, ends_at)
            if used:
                connection.execute("UPDATE families SET revoked = 1 WHERE sid = ?", (sid,))
                return "reused", family
            (turns,) = connection.execute("SELECT count(*) FROM refreshes WHERE sid = ?", (sid,)).fetchone()
            if revoked or ends_at <= now or turns >= MAX_TURNS:
                return "ended", family
            connection.execute("UPDATE refreshes SET used = 1 WHERE jti = ?", (jti,))
            connection.execute("INSERT INTO refreshes VALUES (?, ?, 0)", (new_jti, sid))
            return "fresh", family

        return await self._store.write(work)

    async def end(self, sid: str) -> None:
        await self._store.write(lambda c: c.execute("UPDATE families SET revoked = 1 WHERE sid = ?", (sid,)))

    async def end_all(self, user: str) -> tuple[Ended, ...]:
        """End every session of a user. Those that were not over are returned."""

        def work(connection: sqlite3.Connection) -> tuple[Ended, ...]:
            rows = connection.execute(
                "UPDATE families SET revoked = 1 WHERE user = ? RETURNING sid, ends_at", (user,)
            ).fetchall()
            return tuple(Ended(*row) for row in rows)

        return await self._store.write(work)
