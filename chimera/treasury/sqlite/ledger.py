"""The ledger in one SQLite file. What a row may be is decided in the file's triggers (`rules.py`), not here.

Every ledger has a connection and a thread. Those of one process take turns to write; writes that come while another is
under way share the next transaction, and so its wait for the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, LedgerError, LedgerUnavailable, NotThere, Overloaded, StorageError
from chimera.storage.sqlite_file import boundary, transaction
from chimera.treasury.ledger import MAX_BATCH, Head, LedgerRole, Row, Stop
from chimera.treasury.rows import AnyRow, Switch, columns, parse
from chimera.treasury.sqlite import queries
from chimera.treasury.sqlite.guard import Verify, connect, insert
from chimera.treasury.sqlite.owner import disown, own
from chimera.treasury.types import (
    Account,
    Approval,
    Balance,
    Cap,
    CapUse,
    CfoDecision,
    Outcome,
    PaymentRequest,
    RefusalReason,
    Refused,
    Rules,
    Transfer,
    Window,
    Written,
)

MAX_WAITING = 10_000
"""Calls that wait for the thread."""
MAX_WAITING_ROWS = 50 * MAX_BATCH
MAX_COMMIT_ROWS = 2 * MAX_BATCH
"""Rows in one transaction, so that other roles get their turn."""
RETRY_AFTER_S = 0.1

TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

T = TypeVar("T")
Told = list[tuple[str, str, dict[str, str | int]]]
"""Rows to be written: what the outcome calls it, its table, its columns."""


class SqliteLedger:
    """The ledger in the file at `path` (WAL, synchronous=FULL), as `role`; it is made if it is not there.

    `verify` says whether a signature is good; the triggers ask it for every word that is written, and again for those
    that a transfer relies on. All ledgers of a file are in one process. Raises LedgerUnavailable if another has it, and
    LedgerError if the file is no ledger, is damaged, or somebody changed its tables.
    """

    def __init__(self, *, path: Path, role: LedgerRole, verify: Verify, clock: Clock | None = None) -> None:
        self.path = path
        self.role = role
        self.commits = 0
        """Transactions so far: rows for each of them are what waiting together gains."""
        self._owner = own(path)
        try:
            with _errors(path):
                self._connection = connect(path, role, verify, clock or SystemClock())
        except BaseException:
            disown(self._owner)
            raise
        self._connection.row_factory = sqlite3.Row
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-ledger")
        self._writes: deque[tuple[Told, Future[list[Outcome]]]] = deque()
        self._waiting = self._waiting_rows = 0
        self._closing: asyncio.Task[None] | None = None

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        if len(rows) > MAX_BATCH:
            raise InputError(f"{len(rows)} rows are too many at once: write at most {MAX_BATCH}")
        return await self._write([(_name(row), *columns(row)) for row in rows])

    async def account(self, account_id: str) -> Account | None:
        return await self._find("account", Account, account_id)

    async def request(self, request_id: str) -> PaymentRequest | None:
        return await self._find("request", PaymentRequest, request_id)

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]:
        said: list[CfoDecision | Approval] = []
        for row in await self._of_request(request_id, "decision", "approval"):
            assert isinstance(row, CfoDecision | Approval)
            said.append(row)
        return said

    async def transfers(self, request_id: str) -> list[Transfer]:
        return [row for row in await self._of_request(request_id, "transfer") if isinstance(row, Transfer)]

    async def balance(self, account_id: str) -> Balance:
        found = await self._read(queries.BALANCE, account_id)
        if not found:
            raise NotThere(f"there is no account {account_id}")
        return Balance(**found[0])

    async def waiting(self, after: str = "", limit: int = 100) -> list[PaymentRequest]:
        _check_limit(limit)
        return [
            self._parse("request", PaymentRequest, each) for each in await self._read(queries.WAITING, after, limit)
        ]

    async def caps(self) -> list[CapUse]:
        found = await self._read(queries.CAPS)
        return [CapUse(used=each.pop("used"), cap=Cap(**{**each, "window": Window(each["window"])})) for each in found]

    async def set_cap(self, cap: Cap) -> Outcome:
        [outcome] = await self._write([(f"{cap.account}/{cap.currency}/{cap.window}", *columns(cap))])
        return outcome

    async def set_rules(self, rules: Rules) -> Outcome:
        """From now on these hold for their currency. Owner only."""
        [outcome] = await self._write([(rules.currency, *columns(rules))])
        return outcome

    async def stop(self, why: str, by: str) -> None:
        await self._switch(Switch(action="stop", why=why, by=by))

    async def resume(self, by: str) -> None:
        await self._switch(Switch(action="resume", why="", by=by))

    async def stopped(self) -> Stop | None:
        found = await self._read(queries.STOPPED)
        return Stop(**found[0]) if found else None

    async def head(self) -> Head:
        return Head(**(await self._read(queries.HEAD))[0])

    async def rows(self, after: int = 0, limit: int = MAX_BATCH) -> list[tuple[int, str, dict[str, str | int], str]]:
        _check_limit(limit)

        def of(table: str, sql: str) -> Iterator[tuple[int, str, dict[str, str | int], str]]:
            for each in map(dict, self._connection.execute(sql, (min(after, 2**62), limit))):
                yield each.pop("seq"), table, each, each.pop("hash")

        def query() -> list[tuple[int, str, dict[str, str | int], str]]:
            with _snapshot(self._connection):
                return list(islice(merge(*(of(*each) for each in queries.ROWS.items())), limit))

        return await self._ask(query)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)  # behind what waits
        self._thread.shutdown(wait=False)
        disown(self._owner)

    async def _switch(self, switch: Switch) -> None:
        [outcome] = await self._write([(switch.action, *columns(switch))])
        if isinstance(outcome, Refused):
            raise LedgerError(f"{self.path}: {self.role} may not {switch.action}: {outcome.detail}")

    async def _find(self, table: str, kind: type[T], name: str) -> T | None:
        found = await self._read(queries.FIND[table], name)
        return self._parse(table, kind, found[0]) if found else None

    async def _of_request(self, request_id: str, *tables: str) -> list[AnyRow]:
        found = []
        for table in tables:
            found += [(each, table) for each in await self._read(queries.OF_REQUEST[table], request_id)]
        found.sort(key=lambda pair: pair[0]["seq"])
        return [self._parse(table, object, each) for each, table in found]  # type: ignore[misc]

    def _parse(self, table: str, kind: type[T], told: dict[str, Any]) -> T:
        try:
            row = parse(table, told)
        except ValueError as error:
            raise LedgerError(f"{self.path} holds what nobody can have written; audit it: {error}") from None
        assert isinstance(row, kind)
        return row

    async def _read(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        return await self._ask(lambda: [dict(row) for row in self._connection.execute(sql, values)])

    async def _write(self, told: Told) -> list[Outcome]:
        if self._waiting_rows + len(told) > MAX_WAITING_ROWS:
            raise Overloaded(f"{self._waiting_rows} rows already wait for {self.path}", RETRY_AFTER_S)
        written: Future[list[Outcome]] = Future()
        self._writes.append((told, written))
        self._waiting_rows += len(told)
        try:
            await self._ask(self._drain)
            return written.result()
        finally:
            self._waiting_rows -= len(told)
            written.cancel()

    def _drain(self) -> None:
        """Write all that waits, the caller's among it unless an earlier call has."""
        while self._writes:
            batch: list[tuple[Told, Future[list[Outcome]]]] = []
            rows = 0
            while self._writes and rows + len(self._writes[0][0]) <= MAX_COMMIT_ROWS:
                told, written = self._writes.popleft()
                if written.set_running_or_notify_cancel():
                    batch.append((told, written))
                    rows += len(told)
            try:
                outcomes = self._commit([told for told, _ in batch])
            except Exception as error:
                for _, written in batch:
                    written.set_exception(error)
            else:
                for (_, written), each in zip(batch, outcomes, strict=True):
                    written.set_result(each)

    def _commit(self, batch: list[Told]) -> list[list[Outcome]]:
        if not any(batch):
            return [[] for _ in batch]
        with _errors(self.path), self._owner.writing, transaction(self._connection):
            self.commits += 1
            return [[self._add(*row) for row in told] for told in batch]

    def _add(self, name: str, table: str, told: dict[str, str | int]) -> Outcome:
        try:
            insert(self._connection, table, told)
        except sqlite3.DatabaseError as error:
            reason, detail = _refusal(error, self.role, table)
            same = self._connection.execute(queries.SAME[table], tuple(told.values())).fetchone()
            if reason is RefusalReason.CONFLICT and same is not None:
                return Written(id=name, seq=same["seq"], hash=same["hash"], again=True)
            return Refused(id=name, reason=reason, detail=detail)
        last = self._connection.execute(queries.HEAD).fetchone()
        return Written(id=name, seq=last["seq"], hash=last["hash"])

    async def _ask(self, call: Callable[[], T]) -> T:
        if self._closing is not None:
            raise LedgerError(f"{self.path}: the ledger is closed")
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls already wait for {self.path}", RETRY_AFTER_S)
        self._waiting += 1
        try:
            with _errors(self.path):
                return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._waiting -= 1


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read within is of the same moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into the ledger's, which say what to do."""
    try:
        with boundary(path, "ledger"):
            yield
    except StorageError as error:
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        raise (LedgerUnavailable if code in TRANSIENT else LedgerError)(str(error)) from error.__cause__


def _refusal(error: sqlite3.DatabaseError, role: LedgerRole, table: str) -> tuple[RefusalReason, str]:
    """What a trigger said, or the authorizer. Raises what is no refusal but a fault."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_AUTH:
        return RefusalReason.FORBIDDEN, f"{role} does not write rows of {table}"
    reason, _, detail = str(error).partition(": ")
    if code != sqlite3.SQLITE_CONSTRAINT_TRIGGER or reason not in list(RefusalReason):
        raise error
    return RefusalReason(reason), detail


def _name(row: Row) -> str:
    """What an outcome calls it: a word by its request."""
    return row.request_id if isinstance(row, CfoDecision | Approval) else row.id


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_BATCH:
        raise InputError(f"limit must be from 1 to {MAX_BATCH}, not {limit}")
