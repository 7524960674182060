"""What somebody with psql may try as the application, and how the database refuses it.

Each attack is some statements that do pass, the last one that must not, and the SQLSTATE that it is refused with.
The schema `mine` is the application's own.
"""

from __future__ import annotations

from chimera.treasury.types import NANO, PaymentRequest

DENIED, RULED, CHECKED, NULL = "42501", "CH001", "23514", "23502"
"""SQLSTATE: no right to do it; refused by a rule of the ledger; by a CHECK; by NOT NULL."""
DERIVED = ("head", "balance", "open_pending", "spend", "used")


def move(request_id: str, amount: int = 40 * NANO, kind: str = "posted", name: str = "x", more: str = "") -> str:
    return (
        "INSERT INTO chimera_treasury.transfer (id, kind, request_id, amount, expires_at)"
        f" VALUES ('{name}', '{kind}', '{request_id}', {amount}, 0) {more}"
    )


def account(
    more: str = "",
    name: str = "new",
    kind: str = "fund",
    columns: str = "(id, kind, currency, title)",
    values: str = "",
) -> str:
    return f"INSERT INTO chimera_treasury.account {columns} VALUES ('{name}', '{kind}', 'USD', ''{values}) {more}"


def switch(action: str) -> str:
    return f"INSERT INTO chimera_treasury.stop (action, why, by_whom) VALUES ('{action}', '', 'me')"


def asked(request: PaymentRequest, **columns: object) -> str:
    told = {**request.model_dump(), "digest": request.digest(), **columns}
    values = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in told.values())
    return f"INSERT INTO chimera_treasury.request ({', '.join(told)}) VALUES ({values})"


BEYOND = move("beyond")
"""$40 that all have agreed to, when $10 of the cap are left."""

ATTACKS: list[tuple[str, ...]] = [
    # What is written is neither changed nor removed.
    ("UPDATE chimera_treasury.transfer SET amount = 1", DENIED),
    ("UPDATE chimera_treasury.balance SET posted = posted + 1000000 WHERE account = 'cash'", DENIED),
    ("UPDATE chimera_treasury.used SET used = 0", DENIED),
    ("UPDATE chimera_treasury.used SET most = 1000000000000000000", DENIED),
    ("UPDATE chimera_treasury.head SET at = 0", DENIED),
    ("UPDATE chimera_treasury.clock SET stands_at = 9000000000000000", DENIED),
    ("DELETE FROM chimera_treasury.spend", DENIED),
    ("DELETE FROM chimera_treasury.transfer WHERE seq > 5", DENIED),
    ("DELETE FROM chimera_treasury.stop", DENIED),
    ("TRUNCATE chimera_treasury.transfer", DENIED),
    ("TRUNCATE chimera_treasury.spend CASCADE", DENIED),
    ("WITH gone AS (DELETE FROM chimera_treasury.cap RETURNING *) SELECT count(*) FROM gone", DENIED),
    (account("ON CONFLICT (id) DO UPDATE SET kind = 'metered'", name="acme"), DENIED),
    (move("good", 5 * NANO, more="ON CONFLICT (id) DO UPDATE SET amount = 9"), DENIED),
    (account("ON CONFLICT DO NOTHING", name="cash"), RULED),
    (move("good", 5 * NANO, name="posted-paid", more="ON CONFLICT DO NOTHING"), RULED),
    (
        "MERGE INTO chimera_treasury.balance USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET posted = 0",
        DENIED,
    ),
    ("MERGE INTO chimera_treasury.cap AS c USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE", DENIED),
    ("SELECT * FROM chimera_treasury.head FOR UPDATE", DENIED),
    ("BEGIN", "LOCK TABLE chimera_treasury.head IN ACCESS EXCLUSIVE MODE", DENIED),
    # Nothing is written but one's own columns in one's own tables.
    *((f"INSERT INTO chimera_treasury.{name} DEFAULT VALUES", DENIED) for name in DERIVED),
    ("INSERT INTO chimera_treasury.cap (account, currency, period, most) VALUES ('*', 'USD', 'last_day', 9)", DENIED),
    ("INSERT INTO chimera_treasury.rule (currency, ask_over, dual_over) VALUES ('USD', 9, 9)", DENIED),
    (switch("resume"), DENIED),
    ("INSERT INTO chimera_treasury.decision SELECT * FROM chimera_treasury.decision", DENIED),
    (
        "INSERT INTO chimera_treasury.approval (request_id, approver, verdict, expires_at, key_id, payload, signature)"
        " VALUES ('big', 'me', 'approved', 9000000000000000, 'none', '{}', '')",
        DENIED,
    ),
    ("INSERT INTO chimera_treasury.transfer SELECT * FROM chimera_treasury.transfer", DENIED),
    (account(columns="(id, kind, currency, title, at)", values=", 5"), DENIED),
    (account(columns="(id, kind, currency, title, seq)", values=", 5"), DENIED),
    (account(columns="(id, kind, currency, title, hash)", values=", ''"), DENIED),
    (account(kind="metered"), DENIED),
    (account(kind="owner"), CHECKED),
    (account(name="two\nlines"), CHECKED),
    (account(name="*"), CHECKED),
    ("INSERT INTO chimera_treasury.account (id, kind, currency) VALUES ('a', 'fund', 'USD')", NULL),
    ("COPY chimera_treasury.transfer FROM PROGRAM 'echo 1'", DENIED),
    ("COPY chimera_treasury.transfer TO PROGRAM 'cat'", DENIED),
    ("COPY chimera_treasury.head FROM STDIN", DENIED),
    # What nobody agreed to does not move.
    (move("silent", 5 * NANO), RULED),
    (move("big", 60 * NANO), RULED),
    (move("big", 60 * NANO, "pending"), RULED),
    (move("big", 5 * NANO), RULED),
    (move("nowhere"), RULED),
    (move("good", -5 * NANO), CHECKED),
    (move("good", 2**63 - 1), CHECKED),
    (move("good", 2**70), "22003"),
    (move("good", 5 * NANO, "void"), RULED),
    (move("good", 5 * NANO, "post"), RULED),
    (move("paid", 5 * NANO), RULED),
    (move("good", 5 * NANO, "refund"), CHECKED),
    # The cap holds, whatever is set, and whatever has the same name.
    (BEYOND, RULED),
    (move("beyond", kind="pending"), RULED),
    ("SET TimeZone = 'Pacific/Kiritimati'", BEYOND, RULED),
    ("SET search_path = pg_temp, public", BEYOND, RULED),
    ("SET standard_conforming_strings = off", BEYOND, RULED),
    ("SET row_security = off", account(kind="metered"), DENIED),
    ("SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'", BEYOND, RULED),
    ("SET transform_null_equals = on; SET client_encoding = 'LATIN1'", BEYOND, RULED),
    ("SET session_replication_role = replica", DENIED),
    ("SET LOCAL session_replication_role = replica", DENIED),
    (
        "CREATE TEMP TABLE used (LIKE chimera_treasury.used); CREATE TEMP TABLE spend (LIKE chimera_treasury.spend);"
        "CREATE TEMP TABLE head (LIKE chimera_treasury.head); CREATE TEMP TABLE cap (LIKE chimera_treasury.cap);"
        "CREATE TEMP TABLE clock (stands_at bigint); INSERT INTO clock VALUES (9000000000000000);"
        "SET search_path = pg_temp, chimera_treasury",
        BEYOND,
        RULED,
    ),
    (
        "GRANT USAGE ON SCHEMA mine TO PUBLIC;"
        "CREATE FUNCTION mine.greatest_of(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR mine.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = mine.greatest_of);"
        "SET search_path = mine, pg_catalog, chimera_treasury",
        BEYOND,
        RULED,
    ),
    ("SELECT pg_advisory_lock(1128813650)", BEYOND, RULED),
    ("BEGIN ISOLATION LEVEL SERIALIZABLE", BEYOND, RULED),
    ("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM chimera_treasury.used", BEYOND, RULED),
    ("BEGIN; SAVEPOINT a", move("good", 5 * NANO), "ROLLBACK TO a", BEYOND, RULED),
    ("BEGIN; SAVEPOINT a", move("good", 5 * NANO), "RELEASE a; SAVEPOINT b", BEYOND, RULED),
    ("BEGIN", account(), "PREPARE TRANSACTION 'mine'", "55000"),
    (f"DO $$ BEGIN {BEYOND}; EXCEPTION WHEN SQLSTATE 'CH001' THEN {BEYOND}; END $$", RULED),
    # Nobody makes themselves somebody else, nor the rules others.
    ("SET ROLE chimera_treasury_owner", DENIED),
    ("SET ROLE chimera_treasury_cfo", DENIED),
    ("SET SESSION AUTHORIZATION test_cfo", DENIED),
    ("GRANT chimera_treasury_owner TO test_app", DENIED),
    (
        "GRANT ALL ON ALL TABLES IN SCHEMA chimera_treasury TO test_app",  # grants nothing, and says so
        "UPDATE chimera_treasury.transfer SET amount = 1",
        DENIED,
    ),
    ("ALTER ROLE test_app SUPERUSER", DENIED),
    ("ALTER TABLE chimera_treasury.transfer DISABLE TRIGGER ALL", DENIED),
    ("ALTER TABLE chimera_treasury.account DISABLE ROW LEVEL SECURITY", DENIED),
    ("ALTER TABLE chimera_treasury.used DROP CONSTRAINT used_used_check", DENIED),
    ("ALTER SCHEMA chimera_treasury RENAME TO gone", DENIED),
    ("DROP TRIGGER add ON chimera_treasury.transfer", DENIED),
    ("DROP TABLE chimera_treasury.cap", DENIED),
    ("DROP SCHEMA chimera_treasury CASCADE", DENIED),
    ("DROP FUNCTION chimera_treasury.refuse(text, text) CASCADE", DENIED),
    (
        "CREATE OR REPLACE FUNCTION chimera_treasury.refuse(reason text, why text) RETURNS void"
        " LANGUAGE sql AS 'SELECT'",
        DENIED,
    ),
    ("CREATE FUNCTION chimera_treasury.mine() RETURNS void LANGUAGE sql AS 'SELECT'", DENIED),
    (
        "CREATE TRIGGER a BEFORE INSERT ON chimera_treasury.rule EXECUTE FUNCTION tsvector_update_trigger()",
        DENIED,
    ),
    (
        "CREATE TEMP TABLE mine (id text)",
        "CREATE TRIGGER a BEFORE INSERT ON mine EXECUTE FUNCTION chimera_treasury.keep()",
        DENIED,
    ),
    ("CREATE RULE none AS ON INSERT TO chimera_treasury.spend DO INSTEAD NOTHING", DENIED),
    ("CREATE POLICY mine ON chimera_treasury.account FOR INSERT WITH CHECK (true)", DENIED),
    ("CREATE TEMP TABLE child () INHERITS (chimera_treasury.transfer)", DENIED),
    ("SELECT chimera_treasury.settle('paid', 0)", DENIED),
    ("SELECT chimera_treasury.sweep(9000000000000000)", DENIED),
    ("SELECT chimera_treasury.set_used(u) FROM chimera_treasury.used AS u", DENIED),
    ("SELECT chimera_treasury.last()", DENIED),
]
