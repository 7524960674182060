"""The bench of the ledger in SQLite (see `tests/ledgers.py`): one file, a connection for each role, a clock to move."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from chimera.treasury.audit import LedgerReport, examine
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.sqlite import SqliteLedger
from chimera.treasury.sqlite.guard import connect
from tests.ledgers import START_US, Verify, verify


class Moved:
    """A clock in whole microseconds, so that a test knows the moment to the last digit."""

    def __init__(self, at: int = START_US) -> None:
        self.at = at

    def now(self) -> float:
        return self.at / 1_000_000

    def monotonic(self) -> float:
        return self.now()


class SqliteRaw:
    """A connection of a role, as the application has it, and nothing of the adapter in between."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()


class SqliteBench:
    """A ledger in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Moved()
        self._ledgers: list[SqliteLedger] = []
        self._raws: dict[LedgerRole, SqliteRaw] = {}

    @property
    def at(self) -> int:
        return self.clock.at

    @at.setter
    def at(self, at: int) -> None:
        self.clock.at = at

    async def open(self, role: LedgerRole, verify: Verify = verify) -> SqliteLedger:
        ledger = SqliteLedger(path=self.path, role=role, verify=verify, clock=self.clock)
        self._ledgers.append(ledger)
        return ledger

    def advance(self, us: int) -> None:
        self.clock.at += us

    def raw(self, role: LedgerRole) -> SqliteRaw:
        if role not in self._raws:
            self._raws[role] = SqliteRaw(connect(self.path, role, verify, self.clock))
        return self._raws[role]

    async def close(self) -> None:
        for raw in self._raws.values():
            raw.connection.close()
        for ledger in self._ledgers:
            await ledger.close()


async def audited(ledger: SqliteLedger, at: int) -> LedgerReport:
    """An audit of all of it, with the signatures."""
    rows, page = [], await ledger.rows()
    while page:
        rows += page
        page = await ledger.rows(after=rows[-1][0])
    accounts = [str(told["id"]) for _, table, told, _ in rows if table == "account"]
    return examine(
        rows,
        [await ledger.balance(account) for account in accounts],
        await ledger.caps(),
        at=at,
        head=await ledger.head(),
        verify=verify,
    )
