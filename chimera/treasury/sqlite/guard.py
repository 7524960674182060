"""Connections to the ledger's file that cannot do more than their role may, whatever SQL they are given.

SQLite has no roles: a connection is asked, for each statement that it compiles, whether it may (`set_authorizer`). What
triggers need and SQLite does not have (SHA-256, the clock, how a value is spelled) are functions of the connection, so
without this module nobody adds a row: the triggers fail.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from chimera.core.clock import Clock
from chimera.core.errors import LedgerError
from chimera.storage.sqlite_file import Layout, open_file
from chimera.treasury.chain import COLUMNS
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.rows import Columns, parse, word
from chimera.treasury.sqlite.schema import TRIGGERS, statements
from chimera.treasury.types import Signed

Verify = Callable[[Signed], bool]

INSERTS: Mapping[LedgerRole, frozenset[str]] = {
    LedgerRole.OWNER: frozenset({"account", "cap", "rule", "stop"}),
    LedgerRole.APP: frozenset({"account", "request", "transfer"}),
    LedgerRole.CFO: frozenset({"decision", "stop"}),
    LedgerRole.APPROVER: frozenset({"approval", "stop"}),
}
"""What each role adds. Triggers know which accounts, and who stops and who starts again."""

HARMLESS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_FUNCTION,  # extensions are not loaded: that is off
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
    }
)
WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})

BUSY_TIMEOUT_S = 30.0


def connect(path: Path, role: LedgerRole, verify: Verify, clock: Clock) -> sqlite3.Connection:
    """A connection of that role to the ledger at `path`, which is made if it is not there.

    Raises StorageError if it is no ledger, and LedgerError if somebody changed its tables or triggers.
    """
    connection = open_file(path, LEDGER, BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")  # nothing of the file runs before it is known to be ours
        _check(connection, path)
        for setting in ("trusted_schema", "recursive_triggers", "foreign_keys", "cell_size_check"):
            connection.execute(f"PRAGMA {setting} = ON")
        connection.execute("PRAGMA ignore_check_constraints = OFF")
        add_functions(connection, role, verify, clock)
        connection.set_authorizer(partial(may, role))
    except BaseException:
        connection.close()
        raise
    return connection


def may(role: LedgerRole, action: int, first: str | None, _: str | None, __: str | None, by: str | None) -> int:
    """Whether a statement may do this: read, begin and end a transaction, call a function, add what is its role's.

    `by` is the trigger that wants it. Temporary triggers cannot be made, so it is one of the ledger's own.
    """
    allowed = (
        action in HARMLESS
        or (action in WRITES and by in TRIGGERS)
        or (action == sqlite3.SQLITE_INSERT and by is None and first in INSERTS[role])
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def add_functions(connection: sqlite3.Connection, role: LedgerRole, verify: Verify, clock: Clock) -> None:
    """What the triggers call."""

    def now_us() -> int:
        return round(clock.now() * 1_000_000)

    def signed(table: str, payload: str, signature: str) -> bool:
        return verify(word(table, payload, signature))

    connection.create_function("sha256", 1, _sha256, deterministic=True)
    connection.create_function("well_formed", -1, _well_formed, deterministic=True)
    connection.create_function("now_us", 0, now_us)
    connection.create_function("signed", 3, signed)
    connection.create_function("role", 0, lambda: str(role))


def insert(connection: sqlite3.Connection, table: str, told: Columns) -> None:
    """Add a row. Raises sqlite3.IntegrityError, with the reason as its first word, if it is refused."""
    connection.execute(_statement(table), [told[name] for name in COLUMNS[table]])


@cache
def _statement(table: str) -> str:
    names = COLUMNS[table]
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _well_formed(table: str, *values: object) -> bool:
    """Whether a row has these columns, each of its own type: no number that is text, no text that is bytes."""
    if not all(type(value) in (str, int) for value in values):
        return False
    told: dict[str, str | int] = dict(zip(COLUMNS[table], values, strict=True))  # type: ignore[arg-type]
    try:
        parse(table, told)
    except ValueError:
        return False
    return True


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in statements():
        connection.execute(statement)


LEDGER = Layout(what="ledger", application_id=0x43484C47, upgrades=(_to_1,))  # "CHLG"


def _schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str | None]:
    found = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'")
    return {(kind, name): sql for kind, name, sql in found}


@cache
def _wanted() -> Mapping[tuple[str, str], str | None]:
    connection = sqlite3.connect(":memory:")
    try:
        for statement in statements():
            connection.execute(statement)
        return _schema(connection)
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """A trigger that is gone would let everything through, and one that is new could write anything."""
    changed = sorted({name for (_, name), _ in _schema(connection).items() ^ _wanted().items()})
    if changed:
        raise LedgerError(
            f"{path}: somebody has changed the ledger's tables or triggers ({', '.join(changed)[:200]}):"
            " keep the file as evidence, and go on with a copy from before"
        )
