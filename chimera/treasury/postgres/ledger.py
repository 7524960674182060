"""The ledger in PostgreSQL 14 or later. What a row may be is decided in `schema/`, under a lock on the last row.

A connection has the rights of one role. It checks signatures, which the database cannot: of a word before it is
written, and of what is stored before a transfer relies on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from chimera.core.errors import InputError, LedgerError, LedgerUnavailable, MissingExtra, NotThere, StorageUnavailable
from chimera.storage.server import RIVAL_TRIES, Persistence
from chimera.storage.url import check_server, hide_password, unreadable
from chimera.treasury.ledger import MAX_BATCH, Head, LedgerRole, Row, Stop
from chimera.treasury.postgres import queries
from chimera.treasury.postgres.link import Link
from chimera.treasury.rows import AnyRow, Switch, columns, parse
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
    Signed,
    Transfer,
    TransferKind,
    Window,
    Written,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.rows import dict_row
    from psycopg.types.json import Jsonb
except ImportError:
    raise MissingExtra("psycopg", "postgres") from None

T = TypeVar("T")

BEGINS = (TransferKind.PENDING, TransferKind.POSTED)
"""Transfers that rely on what was said."""


class Told(NamedTuple):
    """A row as the database is told it: `cells` are its table's columns."""

    table: str
    cells: dict[str, str | int]


class Said(NamedTuple):
    """A stored word: its row, and what it says; None if nobody can have signed it."""

    seq: int
    table: str
    request_id: str
    word: CfoDecision | Approval | None


class PostgresLedger:
    """The ledger in the database at `url`, `postgresql://[USER:PASSWORD@]HOST[:PORT]/DB`, as `role`.

    The login has to be in the group `chimera_treasury_ROLE`; the owner's makes the tables and these groups. `verify`
    says whether a word's signature is good. Raises InputError for a URL that cannot be read.
    """

    def __init__(self, *, url: str, role: LedgerRole, verify: Callable[[Signed], bool]) -> None:
        check_server(url, "PostgreSQL database")
        try:
            conninfo_to_dict(url)
        except psycopg.Error:
            raise unreadable(url, "PostgreSQL database") from None
        self.role = role
        self.where = hide_password(url)
        self._verify = verify
        self._writing = Link(url=url, where=self.where, role=role)
        self._reading = Link(url=url, where=self.where, role=role)
        self._persistence = Persistence(self.where)

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        if len(rows) > MAX_BATCH:
            raise InputError(f"{len(rows)} rows are too many at once: write at most {MAX_BATCH}")
        return await self._ask(lambda: self._write(rows))

    async def account(self, account_id: str) -> Account | None:
        found = await self._read(queries.ACCOUNT, account_id)
        return Account(**found[0]) if found else None

    async def request(self, request_id: str) -> PaymentRequest | None:
        found = await self._read(queries.REQUEST, request_id)
        return PaymentRequest(**found[0]) if found else None

    async def decisions(self, request_id: str) -> list[CfoDecision | Approval]:
        said = await self._ask(lambda: _words(self._reading, [request_id]))
        for each in said:
            if each.word is None:
                raise LedgerError(f"{self.where}: row {each.seq}, about {request_id}, is not what anybody signed")
        return [each.word for each in said if each.word is not None]

    async def transfers(self, request_id: str) -> list[Transfer]:
        return [
            Transfer(**{**each, "kind": TransferKind(each["kind"])})
            for each in await self._read(queries.TRANSFERS, request_id, request_id)
        ]

    async def balance(self, account_id: str) -> Balance:
        found = await self._read(queries.BALANCE, account_id)
        if not found:
            raise NotThere(f"there is no account {account_id}")
        return Balance(**found[0])

    async def waiting(self, after: str = "", limit: int = 100) -> list[PaymentRequest]:
        _check_limit(limit)
        return [PaymentRequest(**each) for each in await self._read(queries.WAITING, after, limit)]

    async def caps(self) -> list[CapUse]:
        return [
            CapUse(
                cap=Cap(
                    account=each["account"],
                    currency=each["currency"],
                    window=Window(each["period"]),
                    limit=each["most"],
                ),
                used=each["used"],
            )
            for each in await self._read(queries.CAPS)
        ]

    async def set_cap(self, cap: Cap) -> Outcome:
        return await self._insert(f"{cap.account}/{cap.currency}/{cap.window}", cap)

    async def set_rules(self, rules: Rules) -> Outcome:
        """From now on these hold for their currency. Owner only."""
        return await self._insert(rules.currency, rules)

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
        found = await self._read(queries.ROWS, *(after, limit) * queries.TABLES, limit)
        return [(each["seq"], each["kind"], each["cells"], each["hash"]) for each in found]

    async def close(self) -> None:
        await self._writing.close()
        await self._reading.close()

    async def _write(self, rows: Sequence[Row]) -> list[Outcome]:
        for _ in range(RIVAL_TRIES):
            if (outcomes := await self._try_write(rows)) is not None:
                return outcomes
        raise LedgerError(f"{self.where}: more is said of these requests than can be checked before they are paid")

    async def _try_write(self, rows: Sequence[Row]) -> list[Outcome] | None:
        relying = {row.request_id for row in rows if isinstance(row, Transfer) and row.kind in BEGINS}
        checked = await self._check_words(relying) if relying else {}
        told: list[Told] = []
        bad: dict[int, str] = {}
        for i, row in enumerate(rows):
            table, cells = columns(row)
            told.append(Told(table, cells))
            if isinstance(row, Signed) and row.signature and not self._verify(row):
                bad[i] = "the signature is not good"
            elif isinstance(row, Transfer) and row.kind in BEGINS:
                cells["said"], good = checked.get(row.request_id, (0, True))
                if not good:
                    bad[i] = "what is stored about this request has a signature that is not good"
        found = await self._send([each for i, each in enumerate(told) if i not in bad])
        if found is None:
            return None
        answers = iter(found)
        return [
            Refused(id=_name(row), reason=RefusalReason.UNSIGNED, detail=bad[i])
            if i in bad
            else _outcome(_name(row), next(answers))
            for i, row in enumerate(rows)
        ]

    async def _check_words(self, request_ids: Collection[str]) -> dict[str, tuple[int, bool]]:
        """Of each request the last word's number, and whether all signatures are good on which a transfer relies."""
        last: dict[str, int] = {}
        decided: dict[str, bool] = {}
        forged: set[str] = set()
        for each in await _words(self._writing, request_ids):
            last[each.request_id] = each.seq
            unsigned = isinstance(each.word, Approval) and not each.word.signature
            good = each.word is not None and (unsigned or self._verify(each.word))
            if each.table == "decision":
                decided[each.request_id] = good  # the last one counts
            elif not good:
                forged.add(each.request_id)
        return {key: (seq, decided.get(key, True) and key not in forged) for key, seq in last.items()}

    async def _send(self, told: Sequence[Told]) -> list[dict[str, Any]] | None:
        """None, and nothing is written, where a word came in between, which has to be checked first."""
        if not told:
            return []
        runs = [
            {"table": table, "rows": [each.cells for each in run]}
            for table, run in groupby(told, lambda each: each.table)
        ]
        async with self._writing.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            try:
                await cursor.execute(queries.WRITE, [Jsonb(runs)])
            except psycopg.Error as error:
                if error.sqlstate == queries.MORE_WAS_SAID:
                    return None
                raise
            return await cursor.fetchall()

    async def _insert(self, name: str, row: AnyRow) -> Outcome:
        table, cells = columns(row)

        async def insert() -> Outcome:
            async with self._writing.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                try:
                    await cursor.execute(queries.INSERT[table].encode(), cells)
                except psycopg.errors.InsufficientPrivilege as error:
                    return Refused(id=name, reason=RefusalReason.FORBIDDEN, detail=str(error))
                return _outcome(name, (await cursor.fetchall())[0])

        return await self._ask(insert)

    async def _switch(self, switch: Switch) -> None:
        outcome = await self._insert(switch.action, switch)
        if isinstance(outcome, Refused):
            raise LedgerError(f"{self.where}: {self.role} may not {switch.action}: {outcome.detail}")

    async def _read(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return await self._ask(lambda: _fetch(self._reading, query, *values))

    async def _ask(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tried again while the server is away: what was stored already comes back as `again`."""
        try:
            return await self._persistence.ask(lambda _again: attempt())
        except StorageUnavailable as error:
            raise LedgerUnavailable(str(error)) from None


async def _fetch(link: Link, query: str, *values: Any) -> list[dict[str, Any]]:
    async with link.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), values)
        return await cursor.fetchall()


async def _words(link: Link, request_ids: Collection[str]) -> list[Said]:
    """What was said of these requests, the first first."""
    ids, said = list(request_ids), list[Said]()
    for each in await _fetch(link, queries.WORDS, ids, ids):
        try:
            word = parse(each["kind"], each)
        except ValueError:
            word = None
        assert word is None or isinstance(word, CfoDecision | Approval)
        said.append(Said(each["seq"], each["kind"], each["request_id"], word))
    return said


def _name(row: Row) -> str:
    """What an outcome calls it: a word by its request."""
    return row.request_id if isinstance(row, CfoDecision | Approval) else row.id


def _outcome(name: str, answer: dict[str, Any]) -> Outcome:
    if answer["reason"] and not answer["again"]:
        return Refused(id=name, reason=RefusalReason(answer["reason"]), detail=answer["detail"])
    return Written(id=name, seq=answer["row_seq"], hash=answer["row_hash"], again=answer["again"])


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_BATCH:
        raise InputError(f"limit must be from 1 to {MAX_BATCH}, not {limit}")
