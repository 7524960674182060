"""API keys: `chim_<id>_<secret><check>`, for programs. Shown once; kept as a hash.

The id (80 bits) is public and finds the row; the secret (256 random bits in base64url) is compared by its SHA-256,
which is enough for what is random. The check (CRC-32) tells a typing error, and a scanner for leaked secrets a key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
import zlib
from typing import Any

from pydantic import Field

from chimera.core.clock import Clock
from chimera.core.errors import InputError, Unauthenticated
from chimera.core.types import Frozen
from chimera.security.roles import Permission, Role
from chimera.security.store import SecurityStore

MAX_KEYS = 100
"""Of one user that are in use."""
MAX_ENDED = 1_000
"""Of one user that are over: the older ones are forgotten, and refused as keys that there are not."""
MAX_RATE = 100_000
MAX_LIFETIME_S = 5 * 366 * 86_400.0
MAX_LABEL = 100
PREFIX = "chim_"

_FORM = re.compile(r"chim_([a-z2-7]{16})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})", re.ASCII)
_COLUMNS = "id, user, role, scopes, rate_limit, label, made_by, made_at, expires_at, revoked_at"
_NO_DIGEST = hashlib.sha256(b"no key has this digest").digest()


class APIKey(Frozen):
    """All of a key but its secret. `rate_limit` is requests a second; times are wall seconds since the epoch.

    `scopes` narrow the role, None is all of it. `made_by` is the key that it was made with, whose end is its own.
    """

    id: str
    user: str
    role: Role
    scopes: frozenset[Permission] | None
    rate_limit: int = Field(ge=1, le=MAX_RATE)
    label: str = ""
    made_by: str | None = None
    made_at: float
    expires_at: float | None = None
    revoked_at: float | None = None


def looks_like_key(text: object) -> bool:
    """Whether it is a key by its beginning, and not a token."""
    return isinstance(text, str) and text.startswith(PREFIX)


class ApiKeys:
    """The keys in a store."""

    def __init__(self, store: SecurityStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(
        self,
        user: str,
        role: Role,
        *,
        rate_limit: int = 50,
        scopes: frozenset[Permission] | None = None,
        lifetime_s: float | None = None,
        label: str = "",
        made_by: str | None = None,
    ) -> tuple[str, APIKey]:
        """A new key: its text, which is never to be had again, and what is kept of it. Raises InputError."""
        if type(rate_limit) is not int or not 1 <= rate_limit <= MAX_RATE:
            raise InputError(f"a key's rate_limit is 1 to {MAX_RATE} requests a second")
        if lifetime_s is not None and not 0.0 < lifetime_s <= MAX_LIFETIME_S:
            raise InputError(f"a key lasts more than 0 and at most {MAX_LIFETIME_S:.0f} s, or has no end (None)")
        if len(label) > MAX_LABEL or not label.isprintable():
            raise InputError(f"a key's label has at most {MAX_LABEL} printable characters")
        now = self._clock.now()
        id = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        text = PREFIX + id + "_" + secrets.token_urlsafe(32)
        text += _check(text)
        key = APIKey(
            id=id,
            user=user,
            role=role,
            scopes=scopes,
            rate_limit=rate_limit,
            label=label,
            made_by=made_by,
            made_at=now,
            expires_at=None if lifetime_s is None else now + lifetime_s,
        )

        def work(connection: sqlite3.Connection) -> None:
            (live,) = connection.execute(
                "SELECT count(*) FROM keys WHERE user = ? AND revoked_at IS NULL"
                " AND (expires_at IS NULL OR expires_at > ?)",
                (user, now),
            ).fetchone()
            if live >= MAX_KEYS:
                raise InputError(f"a user has at most {MAX_KEYS} keys: revoke one first")
            connection.execute(
                "DELETE FROM keys WHERE id IN (SELECT id FROM keys WHERE user = ?"
                " AND (revoked_at IS NOT NULL OR expires_at <= ?) ORDER BY made_at DESC, id LIMIT -1 OFFSET ?)",
                (user, now, MAX_ENDED),
            )
            maker = connection.execute("SELECT revoked_at FROM keys WHERE id = ?", (made_by,)).fetchone()
            if made_by is not None and (maker is None or maker[0] is not None):
                raise Unauthenticated("the API key is refused: it was revoked; make another")
            listed = None if scopes is None else " ".join(sorted(scopes))
            connection.execute(
                f"INSERT INTO keys ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
                (id, user, role.value, listed, rate_limit, label, made_by, now, key.expires_at, _digest(text)),
            )

        await self._store.write(work)
        return text, key

    def verify(self, text: object) -> APIKey:
        """The key of this text. Raises Unauthenticated, the same for a key there is not and for a wrong secret."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None or not isinstance(text, str) or _check(text[:-6]) != match[3]:
            raise Unauthenticated("the API key is refused: it is not a whole key; copy it again")
        rows = self._store.rows(f"SELECT digest, {_COLUMNS} FROM keys WHERE id = ?", (match[1],))
        right = hmac.compare_digest(rows[0][0] if rows else _NO_DIGEST, _digest(text))
        if not rows or not right:
            raise Unauthenticated("the API key is refused: there is no such key; make another")
        key = _key(rows[0][1:])
        if key.revoked_at is not None:
            raise Unauthenticated("the API key is refused: it was revoked; make another")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise Unauthenticated("the API key is refused: it has expired; make another")
        return key

    def find(self, id: str) -> APIKey | None:
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (id,))
        return _key(rows[0]) if rows else None

    def list(self, *, user: str = "", tenant: str = "", after: str = "", limit: int = 100) -> tuple[APIKey, ...]:
        """At most `limit` (1 to 1,000) keys by id, after the id `after`: one user's, one tenant's or all."""
        if not 1 <= limit <= 1_000:
            raise InputError(f"1 to 1000 keys can be listed at once, not {limit}")
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM keys WHERE id > ? AND (? = '' OR user = ?)"
            " AND (? = '' OR user IN (SELECT name FROM users WHERE tenant = ?)) ORDER BY id LIMIT ?",
            (after, user, user, tenant, tenant, limit),
        )
        return tuple(map(_key, rows))

    async def revoke(self, id: str) -> tuple[str, ...]:
        """Revoke a key and, down to the last, the keys that were made with it. Their ids; those revoked before too."""
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[str, ...]:
            rows = connection.execute(
                "WITH RECURSIVE made (id) AS (SELECT id FROM keys WHERE id = ?"
                " UNION SELECT k.id FROM keys k JOIN made ON k.made_by = made.id)"
                " UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id IN (SELECT id FROM made) RETURNING id",
                (id, now),
            ).fetchall()
            return tuple(row[0] for row in rows)

        return await self._store.write(work)


def _check(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(text.encode()).to_bytes(4)).rstrip(b"=").decode()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _key(row: tuple[Any, ...]) -> APIKey:
    id, user, role, scopes, rate_limit, label, made_by, made_at, expires_at, revoked_at = row
    return APIKey(
        id=id,
        user=user,
        role=Role(role),
        scopes=None if scopes is None else frozenset(map(Permission, scopes.split())),
        rate_limit=rate_limit,
        label=label,
        made_by=made_by,
        made_at=made_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
