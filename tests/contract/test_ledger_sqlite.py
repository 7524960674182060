"""The ledger in SQLite under attack: raw SQL as the application, the file in other hands, many at once, kill -9."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from chimera.core.errors import LedgerError
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.rows import columns
from chimera.treasury.types import NANO, Account, AccountKind, RefusalReason
from tests.ledger_house import NEVER, House, approval, decision, reason, transfer
from tests.ledgers import START_US, sign, verify
from tests.ledgers_sqlite import SqliteBench, audited

INTO = "INTO transfer (id, kind, request_id, amount, expires_at) VALUES"
TRANSFER = f"INSERT {INTO}"
OF_REQUEST = "id, digest, debit, credit, amount, currency, category, requester, mission, reason, expires_at"
REQUEST = f"INSERT INTO request ({OF_REQUEST})"
ACCOUNT = "INSERT INTO account (id, kind, currency, title) VALUES"
COPY = "SELECT 'copy', " + OF_REQUEST.removeprefix("id, ")

# `small` is a request over 1 that the CFO agrees to, `large` over 60 that nobody approved, `huge` is over the caps and
# has both keys, `done` is carried out by the transfer `posted-done`, `mute` the CFO has said nothing of.
BYPASSES = f"""
UPDATE transfer SET amount = 1
UPDATE transfer_row SET amount = 1
UPDATE OR IGNORE transfer_row SET amount = 1
UPDATE OR REPLACE request_row SET amount = 1 WHERE id = 'done'
UPDATE balance SET posted = posted + 1000 WHERE account = 'cash'
UPDATE used SET used = 0
UPDATE used SET most = 1000000000000000000
UPDATE spend SET amount = 0
UPDATE head SET at = 0
UPDATE open_pending SET amount = 1
DELETE FROM transfer
DELETE FROM transfer_row
DELETE FROM stop_row
DELETE FROM spend
DELETE FROM open_pending
DELETE FROM used WHERE kind = 'payee'
REPLACE INTO transfer (id, kind, request_id, amount, expires_at) VALUES ('posted-done', 'posted', 'small', 1, 0)
INSERT OR REPLACE INTO transfer_row SELECT * FROM transfer_row
INSERT OR REPLACE INTO request_row SELECT * FROM request_row WHERE id = 'done'
INSERT OR REPLACE INTO account (id, kind, currency, title) VALUES ('cash', 'outside', 'USD', '')
INSERT OR IGNORE INTO account (id, kind, currency, title) VALUES ('cash', 'outside', 'USD', '')
INSERT OR REPLACE INTO balance VALUES ('cash', 0, 1000000, 0, 0)
INSERT INTO balance VALUES ('mine', 0, 1000000, 0, 0)
{TRANSFER} ('posted-done', 'posted', 'small', 1, 0) ON CONFLICT DO UPDATE SET amount = 0
INSERT INTO transfer_row (seq, id) VALUES (1, 'x') ON CONFLICT (seq) DO UPDATE SET amount = 0
INSERT OR IGNORE {INTO} ('posted-large', 'posted', 'large', {60 * NANO}, 0)
INSERT OR FAIL {INTO} ('p1', 'posted', 'small', 1, 0), ('p2', 'posted', 'large', {60 * NANO}, 0)
INSERT OR FAIL {INTO} ('posted-huge', 'posted', 'huge', {1001 * NANO}, 0)
{TRANSFER} ('posted-large', 'posted', 'large', {60 * NANO}, 0)
{TRANSFER} ('posted-large', 'pending', 'large', {60 * NANO}, 0)
{TRANSFER} ('posted-huge', 'posted', 'huge', {1001 * NANO}, 0)
{TRANSFER} ('posted-mute', 'posted', 'mute', 1, 0)
{TRANSFER} ('posted-small', 'posted', 'small', 2, 0)
{TRANSFER} ('posted-small', 'posted', 'small', 1.5, 0)
{TRANSFER} ('posted-small', 'posted', 'small', 1e0, 0)
{TRANSFER} ('posted-small', 'posted', 'small', '1', 0)
{TRANSFER} ('posted-small', 'posted', 'small', x'31', 0)
{TRANSFER} ('posted-small', 'posted', 'small', NULL, 0)
{TRANSFER} ('posted-small', 'posted', 'small', 9223372036854775808, 0)
{TRANSFER} ('posted-small', 'posted', 'small', -1, 0)
{TRANSFER} (NULL, 'posted', 'small', 1, 0)
{TRANSFER} (x'61', 'posted', 'small', 1, 0)
{TRANSFER} (7, 'posted', 'small', 1, 0)
{TRANSFER} ('two' || char(10) || 'lines', 'posted', 'small', 1, 0)
{TRANSFER} ('posted-small', 'POSTED', 'small', 1, 0)
{TRANSFER} ('posted-small', 'posted', 'small', 1, 9223372036854775807)
{TRANSFER} ('posted-small', 'pending', 'small', 1, 1)
{TRANSFER} ('again', 'posted', 'done', 1, 0)
{TRANSFER} ('post-done', 'post', 'done', 1, 0)
INSERT INTO transfer DEFAULT VALUES
INSERT INTO transfer (seq, at, prev, hash) VALUES (1, 1, '', '')
INSERT INTO transfer_row VALUES (99, 0, '', '', 'posted-large', 'posted', 'large', {60 * NANO}, 0)
{ACCOUNT} ('mine', 'metered', 'USD', '')
{ACCOUNT} ('mine', 'FUND', 'USD', '')
{ACCOUNT} ('mine', 'fund', 'usd', '')
{ACCOUNT} ('mine', 'fund', 'USD', zeroblob(3))
{REQUEST} {COPY} FROM request WHERE id = 'done'
{REQUEST} VALUES ('r', '', 'cash', 'acme', 1, 'USD', 'any', 'me', '', '', {NEVER})
{REQUEST} VALUES ('r', '{"0" * 64}', 'cash', 'acme', 1, 'USD', 'any', 'me', '', '', {NEVER})
INSERT INTO decision SELECT * FROM decision WHERE request_id = 'done'
INSERT INTO decision (request_id, verdict, key_id, payload, signature) VALUES ('large', 'approved', 'cfo', '', '')
INSERT INTO approval SELECT * FROM approval WHERE request_id = 'huge'
INSERT INTO approval_row SELECT * FROM approval_row WHERE request_id = 'huge'
INSERT INTO cap (account, currency, period, most) VALUES ('*', 'USD', 'last_day', 1000000000000000000)
INSERT INTO rule (currency, ask_over, dual_over) VALUES ('USD', 1000000000000000000, 1000000000000000000)
INSERT INTO stop (action, why, by_whom) VALUES ('stop', '', 'me')
INSERT INTO stop (action, why, by_whom) VALUES ('resume', '', 'me')
INSERT INTO head VALUES (2, 0, 0, '')
PRAGMA ignore_check_constraints = ON
PRAGMA recursive_triggers = OFF
PRAGMA foreign_keys = OFF
PRAGMA writable_schema = ON
PRAGMA synchronous = OFF
PRAGMA journal_mode = OFF
PRAGMA locking_mode = EXCLUSIVE
PRAGMA wal_checkpoint(TRUNCATE)
PRAGMA user_version = 7
SELECT * FROM pragma_table_info('head')
UPDATE sqlite_schema SET sql = '' WHERE type = 'trigger'
DELETE FROM sqlite_schema WHERE type = 'trigger'
DROP TRIGGER write_transfer
DROP TRIGGER keep_transfer_update
DROP TABLE cap_row
DROP VIEW transfer
DROP INDEX transfer_id
ALTER TABLE transfer_row RENAME TO other
ALTER TABLE transfer_row ADD COLUMN more TEXT
ALTER TABLE head DROP COLUMN hash
CREATE TABLE more (x)
CREATE VIEW more AS SELECT 1
CREATE INDEX more ON spend (amount)
CREATE TRIGGER more AFTER INSERT ON transfer_row BEGIN UPDATE used SET used = 0; END
CREATE TRIGGER close_pending2 INSTEAD OF INSERT ON transfer BEGIN DELETE FROM used; END
CREATE TEMP TABLE head (seq, at, hash)
CREATE TEMP TABLE used AS SELECT * FROM used
CREATE TEMP VIEW asked AS SELECT 1
CREATE TEMP TRIGGER write_transfer AFTER INSERT ON main.spend BEGIN UPDATE used SET used = 0; END
CREATE TEMP TRIGGER close_pending INSTEAD OF INSERT ON main.account BEGIN UPDATE balance SET posted = 9; END
CREATE VIRTUAL TABLE more USING fts5(x)
ATTACH ':memory:' AS temp2
ATTACH 'other.db' AS main2
DETACH main
VACUUM
VACUUM INTO 'copy.db'
REINDEX
ANALYZE
SELECT load_extension('x')
"""
REFUSED = (
    r"^(conflict|unapproved|unsigned|expired|cap|forbidden): |not authorized|authorization denied|view$|not be modified"
)
BYPASS = [line for line in BYPASSES.split("\n") if line]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    bench = SqliteBench(tmp_path / "ledger.db")
    try:
        yield await prepared(await House(bench).begin())
    finally:
        await bench.close()


async def prepared(house: House) -> House:
    """With the requests that the bypasses are about."""
    await house.asked(id="small", amount=1)
    await house.asked(id="large", amount=60 * NANO)
    await house.asked("ann!", "bob!", id="huge", amount=1_001 * NANO)
    await house.move(await house.asked(id="done", amount=1))
    await house.app.write([house.ask(id="mute", amount=1)])
    return house


async def everything(house: House) -> list[object]:
    """All rows and all that was derived."""
    raw = house.bench.raw(LedgerRole.OWNER)
    derived = ("head", "balance", "open_pending", "spend", "used", "sqlite_schema")
    return [*await house.app.rows(), *(raw.execute(f"SELECT * FROM {table}") for table in derived)]


async def test_the_application_gets_past_no_rule_with_sql_of_its_own(house: House) -> None:
    assert len(BYPASS) >= 40 and len(BYPASS) == len(set(BYPASS))
    before, raw, let = await everything(house), house.bench.raw(LedgerRole.APP), None
    for sql in BYPASS:
        with pytest.raises(sqlite3.DatabaseError, match=REFUSED):
            let = raw.execute(sql), sql
        assert await everything(house) == before, sql
    assert let is None
    assert await house.move(await house.asked(amount=1)) is None, "what is allowed still goes through"
    await house.audit()
    assert (await audited(house.owner, house.bench.at)).findings == ()


async def test_a_conflict_clause_does_not_reset_what_was_counted(house: House) -> None:
    """`OR REPLACE` holds within triggers too: it must not put a fresh row in the place of a sum."""
    for clause in ("REPLACE", "IGNORE"):
        request = await house.asked(amount=24 * NANO, credit="globex", mission="m")
        house.bench.raw(LedgerRole.APP).execute(
            f"INSERT OR {clause} INTO transfer (id, kind, request_id, amount, expires_at)"
            f" VALUES ('{clause}', 'posted', '{request.id}', {request.amount}, 0)"
        )
    assert await house.pay(3 * NANO, credit="globex") is RefusalReason.UNAPPROVED
    assert await house.pay(3 * NANO, mission="m") is RefusalReason.UNAPPROVED
    await house.audit()


async def test_each_role_adds_only_its_rows_in_sql(house: House) -> None:
    tables = {"account", "request", "decision", "approval", "transfer", "cap", "rule", "stop"}
    own = {
        LedgerRole.OWNER: {"account", "cap", "rule", "stop"},
        LedgerRole.APP: {"account", "request", "transfer"},
        LedgerRole.CFO: {"decision", "stop"},
        LedgerRole.APPROVER: {"approval", "stop"},
    }
    for role, may in own.items():
        raw = house.bench.raw(role)
        for table in tables:
            with pytest.raises(sqlite3.DatabaseError) as caught:
                raw.execute(f"INSERT INTO {table} DEFAULT VALUES")
            assert (caught.value.sqlite_errorcode == sqlite3.SQLITE_AUTH) is (table not in may), (role, table)
            for sql in (f"UPDATE {table}_row SET at = 0", f"DELETE FROM {table}_row", f"DROP TABLE {table}_row"):
                with pytest.raises(sqlite3.DatabaseError, match=r"not authorized"):
                    raw.execute(sql)


async def test_forged_words_are_refused_by_the_database(house: House) -> None:
    """Also from whoever holds the connection of the CFO or of an approver, and not the keys."""
    large = await house.app.request("large")
    assert large is not None
    good, signed = decision(large, at=9), approval(large, "ann", signed=True)
    forged = "0" * 128
    cases = [
        (LedgerRole.CFO, good.model_copy(update={"signature": forged}), {}),
        (LedgerRole.CFO, good.model_copy(update={"signature": ""}), {}),
        (LedgerRole.CFO, good, {"verdict": "ask"}),
        (LedgerRole.CFO, good, {"key_id": "other"}),
        (LedgerRole.CFO, good, {"request_id": "mute"}),
        (LedgerRole.CFO, good, {"payload": good.payload().decode() + " "}),
        (LedgerRole.CFO, good, {"payload": signed.payload().decode(), "signature": signed.signature}),
        (LedgerRole.CFO, good, {"payload": "[]", "signature": sign(b"[]")}),
        (LedgerRole.CFO, good, {"payload": "[" * 100_000}),
        (LedgerRole.APPROVER, signed.model_copy(update={"signature": forged}), {}),
        (LedgerRole.APPROVER, signed, {"approver": "bob"}),
        (LedgerRole.APPROVER, signed, {"expires_at": NEVER - 1}),
        (LedgerRole.APPROVER, signed, {"request_id": "huge"}),
        (LedgerRole.APPROVER, approval(large, "worker-1"), {}),
    ]
    before = await everything(house)
    for role, word, change in cases:
        table, told = columns(word)
        values = ", ".join(
            f"'{value}'" if isinstance(value, str) else str(value) for value in {**told, **change}.values()
        )
        with pytest.raises(sqlite3.IntegrityError, match=r"^(unsigned|conflict|forbidden): "):
            house.bench.raw(role).execute(f"INSERT INTO {table} ({', '.join(told)}) VALUES ({values})")
    assert await everything(house) == before


async def test_what_the_writer_says_of_time_and_hashes_is_not_heard(house: House) -> None:
    raw, before = house.bench.raw(LedgerRole.APP), await house.app.head()
    raw.execute(
        "INSERT INTO account (seq, at, prev, hash, id, kind, currency, title)"
        " VALUES (1, 5, 'x', 'y', 'new', 'fund', 'USD', '')"
    )
    assert raw.execute("SELECT seq, at, prev FROM account WHERE id = 'new'") == [
        (before.seq + 1, START_US, before.hash)
    ]
    house.bench.advance(-3_600_000_000)
    await house.app.write([Account(id="newer", kind=AccountKind.FUND)])
    assert raw.execute("SELECT at FROM account WHERE id = 'newer'") == [(START_US,)], "time does not go back"
    await house.audit()


async def test_sums_never_leave_64_bits(house: House) -> None:
    """SQLite would go on in floating point."""
    outcomes = [
        reason(*await house.app.write([transfer(await house.asked(debit="bank", credit="cash", amount=10**18))]))
        for _ in range(6)
    ]
    assert outcomes[:3] == [None] * 3 and outcomes[-1] is not None
    assert (await house.app.balance("bank")).posted == -(3 * 10**18 + 200_000 * NANO)
    await house.audit()


async def test_whoever_has_the_file_but_not_our_functions_adds_nothing(house: House, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as stranger:
        for sql in (
            f"{ACCOUNT} ('mine', 'fund', 'USD', '')",
            f"INSERT INTO account_row VALUES (99, 0, '', '{'0' * 64}', 'mine', 'fund', 'USD', '')",
            "INSERT OR REPLACE INTO request_row SELECT * FROM request_row",
            "UPDATE transfer_row SET amount = 1",
            "DELETE FROM transfer_row",
            "DELETE FROM open_pending",
        ):
            if sql == "DELETE FROM open_pending":
                await house.move(await house.asked(amount=5), "pending")
            with pytest.raises(sqlite3.DatabaseError, match=r"no such function|only ever added"):
                stranger.execute(sql)
    await house.audit()


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TRIGGER write_transfer",
        "DROP TRIGGER keep_transfer_update",
        "CREATE TRIGGER more AFTER INSERT ON spend BEGIN UPDATE used SET used = 0; END",
        "ALTER TABLE head ADD COLUMN more TEXT",
        "CREATE VIEW more AS SELECT 1",
    ],
)
async def test_a_file_whose_triggers_somebody_changed_is_not_opened(tmp_path: Path, sql: str) -> None:
    bench = SqliteBench(tmp_path / "ledger.db")
    await bench.open(LedgerRole.APP)
    await bench.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as stranger:
        stranger.execute(sql)
    with pytest.raises(LedgerError, match="somebody has changed"):
        await bench.open(LedgerRole.APP)


@pytest.mark.parametrize(
    ("trigger", "sql", "finding"),
    [
        ("keep_transfer_update", "UPDATE transfer_row SET amount = 2 WHERE id = 'posted-done'", "not what it was"),
        ("keep_transfer_update", "UPDATE transfer_row SET at = at - 1 WHERE id = 'posted-done'", "not what it was"),
        ("keep_approval_delete", "DELETE FROM approval_row WHERE approver = 'ann'", "is missing"),
        ("keep_request_delete", "DELETE FROM request_row WHERE id = 'mute'", "the rows end with"),
        (None, "UPDATE balance SET posted = posted + 1 WHERE account = 'cash'", "the balance of cash"),
        (None, "UPDATE used SET used = 0 WHERE name = '*'", "of the cap */USD/last_day 0 is used"),
        (None, "UPDATE used SET most = most + 1 WHERE period = 'last_week'", "the cap */USD/last_week is"),
    ],
)
async def test_what_somebody_changed_in_the_file_is_found(
    tmp_path: Path, house: House, trigger: str | None, sql: str, finding: str
) -> None:
    """Somebody who takes a trigger away and puts it back. `house` has the file open; nobody else has to."""
    assert (await audited(house.owner, START_US)).ok
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as stranger:
        text = stranger.execute("SELECT sql FROM sqlite_schema WHERE name = ?", [trigger]).fetchall()
        for statement in (f"DROP TRIGGER {trigger}" if trigger else "SELECT 1", sql, *(row[0] for row in text)):
            stranger.execute(statement)
    owner = await house.bench.open(LedgerRole.OWNER)
    assert any(finding in each.what for each in (await audited(owner, START_US)).findings)


async def test_what_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    for name, content in (("text.db", b"no database at all" * 100), ("other.db", None)):
        if content is None:
            with closing(sqlite3.connect(tmp_path / name)) as other:
                other.execute("CREATE TABLE x (y)")
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(LedgerError, match="ledger"):
            await SqliteBench(tmp_path / name).open(LedgerRole.APP)


async def test_a_ledger_that_is_closed_says_so_and_can_be_opened_again(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path / "deep" / "ledger.db")
    app = await bench.open(LedgerRole.APP)
    await app.write([Account(id="cash", kind=AccountKind.FUND)])
    head = await app.head()
    await bench.close()
    await app.close()
    with pytest.raises(LedgerError, match="closed"):
        await app.head()
    assert await (await bench.open(LedgerRole.CFO, verify)).head() == head
    await bench.close()
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "deep").iterdir()} == {0}


async def test_a_transfer_costs_the_same_however_many_were_before(house: House) -> None:
    """Counted in steps of SQLite's machine, by the hundred."""
    connection, steps = house.bench.raw(LedgerRole.APP).connection, 0

    def step() -> None:
        nonlocal steps
        steps += 1

    async def cost() -> int:
        nonlocal steps
        request = await house.asked(amount=1, credit="globex", mission="m")
        steps = 0
        connection.set_progress_handler(step, 100)
        connection.execute(f"{TRANSFER} ('t-{request.id}', 'posted', '{request.id}', 1, 0)")
        connection.set_progress_handler(None, 0)
        return steps

    first = await cost()
    assert first > 1
    for _ in range(4):
        asked = [house.ask(1, credit="globex", mission="m") for _ in range(100)]
        for ledger, rows in ((house.app, asked), (house.cfo, list(map(decision, asked)))):
            assert not any(map(reason, await ledger.write(rows)))
        assert not any(map(reason, await house.app.write([transfer(each, "pending") for each in asked])))
    assert await cost() <= 1.5 * first
