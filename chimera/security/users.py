"""Users, and how often somebody failed to be one of them."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.security.caveats import check_name
from chimera.security.roles import Role
from chimera.security.store import SecurityStore

MAX_USERS = 100_000
FREE_FAILURES = 5
"""Failures in a row before the first pause."""
MAX_PAUSE_S = 900.0

RESERVED = frozenset({"audit", "local", "unknown"})
"""Who stands for nobody with a password in the audit log."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)
_COLUMNS = "name, role, tenant, password_hash, one_time_until, disabled, made_at"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in. `one_time_until` is set while the password is one that must be changed at once."""

    name: str
    role: Role
    tenant: str
    password_hash: str = field(repr=False)
    one_time_until: float | None
    disabled: bool
    made_at: float


def is_name(name: object) -> bool:
    """Whether a user can have this name: small letters, digits and `._@-`, at most 64."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def pause_s(failures: int) -> float:
    """How long nobody may log in after so many failures in a row, in seconds: none, then 1, 2, 4 ... 900."""
    return 0.0 if failures < FREE_FAILURES else float(min(MAX_PAUSE_S, 2.0 ** min(failures - FREE_FAILURES, 32)))


class Users:
    """The users in a store. A name is given once: whoever had it is disabled, never deleted."""

    def __init__(self, store: SecurityStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def find(self, name: str) -> User | None:
        if not is_name(name):
            return None
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM users WHERE name = ?", (name,))
        return _user(rows[0]) if rows else None

    def list(self, *, tenant: str = "", after: str = "", limit: int = 100) -> tuple[User, ...]:
        """At most `limit` (1 to 1,000) users by name, those of `tenant` only where one is given."""
        if not 1 <= limit <= 1_000:
            raise InputError(f"1 to 1000 users can be listed at once, not {limit}")
        rows = self._store.rows(
            f"SELECT {_COLUMNS} FROM users WHERE name > ? AND (? = '' OR tenant = ?) ORDER BY name LIMIT ?",
            (after, tenant, tenant, limit),
        )
        return tuple(map(_user, rows))

    async def create(
        self,
        name: str,
        role: Role,
        password_hash: str,
        *,
        tenant: str = "",
        one_time_until: float | None = None,
        only_first: bool = False,
    ) -> bool:
        """Add a user. With `only_first`, only while there is none: False if there is.

        Raises InputError for a name that is not one, or was given before.
        """
        if not is_name(name):
            raise InputError("a user's name has 1 to 64 small letters, digits and ._@-, the first a letter or digit")
        if name in RESERVED:
            raise InputError(f"{name} is Chimera's own name in the audit log: choose another name")
        if tenant:
            check_name(tenant, "tenant")  # what tokens and capabilities can say
        row = (name, role.value, tenant, password_hash, one_time_until, self._clock.now())

        def work(connection: sqlite3.Connection) -> bool:
            count = connection.execute("SELECT count(*) FROM users").fetchone()[0]
            if only_first and count:
                return False
            if count >= MAX_USERS:
                raise InputError(f"there are {MAX_USERS} users already, which is the most")
            if connection.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
                raise InputError(f"there is, or was, a user {name}: choose another name")
            connection.execute(
                "INSERT INTO users (name, role, tenant, password_hash, one_time_until, made_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            return True

        return await self._store.write(work)

    async def set_password(
        self, name: str, password_hash: str, *, old_hash: str | None = None, one_time_until: float | None = None
    ) -> bool:
        """Change the password; with `old_hash` only if that is still the one, else False."""

        def work(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(
                "UPDATE users SET password_hash = ?, one_time_until = ?"
                " WHERE name = ? AND (? IS NULL OR password_hash = ?)",
                (password_hash, one_time_until, name, old_hash, old_hash),
            ).rowcount
            connection.execute("DELETE FROM attempts WHERE name = ? AND ?", (name, changed))
            return bool(changed)

        return await self._store.write(work)

    async def set_role(self, name: str, role: Role) -> None:
        await self._store.write(lambda c: c.execute("UPDATE users SET role = ? WHERE name = ?", (role.value, name)))

    async def set_disabled(self, name: str, disabled: bool) -> None:
        await self._store.write(lambda c: c.execute("UPDATE users SET disabled = ? WHERE name = ?", (disabled, name)))

    async def begin_attempt(self, name: str) -> bool:
        """Count an attempt to log in as `name` as failed until `succeeded` says otherwise; False while locked.

        Counted before the password is looked at, so that many at once get no more tries than one after another.
        Attempts while locked are not counted, so that no lock lasts longer for them. Whoever goes on trying after each
        lock keeps a user from logging in, not from what is logged in already: sessions and keys go on, and
        `reset_password` ends the lock. Unknown users share the row "", so that they cost the same and take no room.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute("SELECT failures, locked_until FROM attempts WHERE name = ?", (name,)).fetchone()
            failures, locked_until = row or (0, 0.0)
            locked_until = min(locked_until, now + pause_s(failures))  # a clock that was ahead does not lock for years
            admitted = locked_until <= now
            if admitted:
                failures += 1
                locked_until = now + pause_s(failures) if failures >= FREE_FAILURES else 0.0
            connection.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", (name, failures, locked_until))
            return bool(admitted)

        return await self._store.write(work)

    async def succeeded(self, name: str) -> None:
        await self._store.write(lambda c: c.execute("DELETE FROM attempts WHERE name = ?", (name,)))


def _user(row: tuple[Any, ...]) -> User:
    name, role, tenant, password_hash, one_time_until, disabled, made_at = row
    return User(name, Role(role), tenant, password_hash, one_time_until, bool(disabled), made_at)
