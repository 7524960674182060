"""The tables of the ledger in PostgreSQL: scripts in `schema/`, run in their order under a lock, once.

A version is a tuple of scripts; a later one is added to `VERSIONS` and changes what is there.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg

from chimera.core.errors import LedgerError

VERSIONS = (("roles", "tables", "sums", "rows", "transfers", "write", "rights"),)
LOCK = 0x4348_5452
FIND = "SELECT to_regclass('chimera_treasury.version') IS NOT NULL"


async def version(connection: psycopg.AsyncConnection[Any]) -> int:
    """0 where there are no tables."""
    ((there,),) = await (await connection.execute(FIND)).fetchall()
    if not there:
        return 0
    ((found,),) = await (await connection.execute("SELECT max(version) FROM chimera_treasury.version")).fetchall()
    return int(found)


async def make(connection: psycopg.AsyncConnection[Any], where: str) -> None:
    """Make or change the tables, as somebody who may create roles, and a schema here. Raises LedgerError."""
    if await version(connection) < len(VERSIONS):
        async with connection.transaction():
            await connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [LOCK])
            for number, scripts in enumerate(VERSIONS, 1):
                if number > await version(connection):  # asked under the lock: two may come at once
                    for script in scripts:
                        await connection.execute(_read(script))
                    await connection.execute("INSERT INTO chimera_treasury.version VALUES (%s)", [number])
    await check(connection, where)


async def check(connection: psycopg.AsyncConnection[Any], where: str) -> None:
    """Raises LedgerError unless the tables are those that this Chimera knows."""
    found = await version(connection)
    if found == 0:
        raise LedgerError(f"{where}: there is no ledger in this database: open it once as its owner, who makes it")
    if found != len(VERSIONS):
        raise LedgerError(
            f"{where}: this ledger has version {found}, and this Chimera knows {len(VERSIONS)}: upgrade Chimera,"
            " or open the ledger once as its owner"
        )


def _read(script: str) -> bytes:
    return files("chimera.treasury.postgres").joinpath("schema", f"{script}.sql").read_bytes()
