"""Ledgers for tests: each with connections of every role, a clock that stands still until it is moved, and raw SQL.

`Bench` is what the contract suite asks of a database. That of SQLite is in `tests/ledgers_sqlite.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol
from weakref import WeakSet

from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.types import Signed
from tests.servers import PostgresServer

START_US = 1_790_000_000_000_000
"""What every bench's clock says at first: 2026-09-21, a Monday, 14:13:20 UTC."""

Verify = Callable[[Signed], bool]


def sign(payload: bytes) -> str:
    """Stands for Ed25519: as long, and good for these bytes alone."""
    return hashlib.sha512(b"key" + payload).hexdigest()


def verify(signed: Signed) -> bool:
    return signed.signature == sign(signed.payload())


class Raw(Protocol):
    """A connection without any of our code in between."""

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; raises what the driver raises where it is refused."""
        ...


class Bench(Protocol):
    """An empty ledger. `at` is what its clock says, in microseconds."""

    at: int

    async def open(self, role: LedgerRole, verify: Verify = verify) -> Ledger: ...

    def advance(self, us: int) -> None:
        """Time goes on, for everybody who is connected."""
        ...

    def raw(self, role: LedgerRole) -> Raw: ...

    async def close(self) -> None: ...


numbers = count(1)
made: WeakSet[PostgresServer] = WeakSet()
TEMPLATE = "treasury_template"


class PostgresRaw:
    """One connection in autocommit mode, as somebody with psql would have it."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        found = self.connection.execute(sql.encode())
        return found.fetchall() if found.description else []


class PostgresBench:
    """A database of its own on a server that tests share, and a login for each role but the owner's."""

    def __init__(self, server: PostgresServer, *, stands: bool = True) -> None:
        from chimera.treasury.postgres import PostgresLedger

        self.at = START_US
        self._server = server
        self._name = f"ledger{next(numbers)}"
        self._ledgers: list[PostgresLedger] = []
        self._raws: dict[LedgerRole, PostgresRaw] = {}
        self._stands = stands

    def url(self, role: LedgerRole) -> str:
        if role is LedgerRole.OWNER:
            return self._server.url().partition("?")[0].removesuffix("postgres") + self._name
        return f"postgresql://test_{role}:secret@127.0.0.1:{self._server.port}/{self._name}"

    async def begin(self) -> PostgresBench:
        """A copy of a database in which the owner has made the tables: that, and the logins, a server has once."""
        if self._server not in made:
            made.add(self._server)
            copied, self._name = self._name, TEMPLATE
            self._execute("postgres", f"CREATE DATABASE {TEMPLATE}")
            owner = await self.open(LedgerRole.OWNER)
            await owner.head()
            await owner.close()
            for role in (LedgerRole.APP, LedgerRole.CFO, LedgerRole.APPROVER):
                login = f"CREATE ROLE test_{role} LOGIN PASSWORD 'secret' IN ROLE chimera_treasury_{role}"
                self._execute("postgres", login)
            self._name = copied
            self._ledgers.clear()
        self._execute("postgres", f"CREATE DATABASE {self._name} TEMPLATE {TEMPLATE}")
        if self._stands:
            self.advance(0)
        return self

    async def open(self, role: LedgerRole, verify: Verify = verify) -> Ledger:
        from chimera.treasury.postgres import PostgresLedger

        ledger = PostgresLedger(url=self.url(role), role=role, verify=verify)
        self._ledgers.append(ledger)
        return ledger

    def advance(self, us: int) -> None:
        self.at += us
        self.raw(LedgerRole.OWNER).execute(f"UPDATE chimera_treasury.clock SET stands_at = {self.at}")

    def raw(self, role: LedgerRole) -> PostgresRaw:
        if role not in self._raws or self._raws[role].connection.closed:
            self._raws[role] = PostgresRaw(self.url(role))
        return self._raws[role]

    async def close(self) -> None:
        for ledger in self._ledgers:
            await ledger.close()
        for raw in self._raws.values():
            raw.connection.close()
        self._execute("postgres", f"DROP DATABASE {self._name} WITH (FORCE)")

    def _execute(self, database: str, sql: str) -> None:
        raw = PostgresRaw(self._server.url().partition("?")[0].removesuffix("postgres") + database)
        try:
            raw.execute(sql)
        finally:
            raw.connection.close()
