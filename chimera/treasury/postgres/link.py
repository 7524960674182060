"""A connection to the ledger's database, as one of its roles: made at first use, and anew after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chimera.core.errors import LedgerError, MissingExtra
from chimera.storage.server import Disconnected
from chimera.treasury.ledger import LedgerRole

try:
    import psycopg
except ImportError:
    raise MissingExtra("psycopg", "postgres") from None

from chimera.treasury.postgres import tables

CONNECT_S = 5
SETTINGS = """
SET search_path = pg_catalog, pg_temp;
SET synchronous_commit = on;
SET statement_timeout = '60s';
SET idle_in_transaction_session_timeout = '60s';
SET default_transaction_isolation = 'read committed'
"""
"""No schema is searched in which others may make functions: one that fits better would be called with our rights."""
GOING_AWAY = ("08", "57P")  # SQLSTATE: connection exceptions; the server shuts down, crashed or starts
RIVALRY = ("40",)  # the same of transactions that got in each other's way


class Link:
    """One connection, in autocommit mode, for one user at a time: others wait."""

    def __init__(self, *, url: str, where: str, role: LedgerRole) -> None:
        self._url, self._where, self._role = url, where, role
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Any] | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Raises LedgerError, and Disconnected where it may be tried again."""
        async with self._turn:
            try:
                if self._connection is None:
                    self._connection = await self._connect()
                yield self._connection
            except psycopg.Error as error:
                code = error.sqlstate or ""
                if code and not code.startswith((*GOING_AWAY, *RIVALRY)):
                    raise LedgerError(f"{self._where}: {error}") from error
                await self._close()
                raise Disconnected(str(error)) from error
            except LedgerError:
                raise
            except BaseException:
                await self._close()  # cancelled in the middle of an answer, perhaps
                raise

    async def close(self) -> None:
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_S,
            keepalives_idle=10,
            tcp_user_timeout=30_000,
            fallback_application_name="chimera-ledger",
        )
        try:
            await connection.execute(SETTINGS)
            if self._role is LedgerRole.OWNER:
                await tables.make(connection, self._where)
                await connection.execute("SET ROLE chimera_treasury_owner")
            else:
                await connection.execute(f"SET ROLE chimera_treasury_{self._role.value}".encode())
                await tables.check(connection, self._where)
        except BaseException:
            await connection.close()
            raise
        return connection
