"""The tables of the ledger in SQLite, and how a row gets into them.

Whoever writes inserts into a view, `request` say. Its trigger checks the row (`rules.py`), gives it its number, time
and hash, and adds it to `request_row`; then it brings the derived tables up to date. An `OR REPLACE` or `OR IGNORE` of
the writer's holds for every statement of a trigger too, so none of them leaves anything to a constraint: what may not
be is refused by RAISE, which takes back the whole statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chimera.treasury.chain import COLUMNS, GENESIS
from chimera.treasury.sqlite.rules import CHECKS, EFFECTS, change
from chimera.treasury.types import DAY_US

NUMBERS = frozenset({"amount", "expires_at", "most", "ask_over", "dual_over"})
"""Columns that hold whole numbers; all others are text."""

STAMPS = ("seq", "at", "prev", "hash")
"""What the database says of a row."""

DERIVED = ("head", "balance", "open_pending", "spend", "used")

TABLES = (
    """CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, at INTEGER NOT NULL, hash TEXT NOT NULL
    ) STRICT""",
    f"INSERT INTO head VALUES (1, 0, 0, '{GENESIS}')",
    """CREATE TABLE balance (
        account TEXT PRIMARY KEY,
        fund INTEGER NOT NULL,
        posted INTEGER NOT NULL,
        pending_out INTEGER NOT NULL CHECK (pending_out >= 0),
        pending_in INTEGER NOT NULL CHECK (pending_in >= 0),
        CHECK (fund = 0 OR posted - pending_out >= 0)
    ) STRICT, WITHOUT ROWID""",
    # `posted` is what of it is moved when it ends, which is when the row is deleted.
    """CREATE TABLE open_pending (
        request_id TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        debit TEXT NOT NULL,
        credit TEXT NOT NULL,
        amount INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        posted INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX open_pending_ends ON open_pending (expires_at) WHERE expires_at > 0",
    # What left a fund: it `counts` towards caps if it went outside, and is `small` if nobody approved it.
    """CREATE TABLE spend (
        seq INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        account TEXT NOT NULL,
        payee TEXT NOT NULL,
        mission TEXT NOT NULL,
        currency TEXT NOT NULL,
        amount INTEGER NOT NULL CHECK (amount >= 0),
        counts INTEGER NOT NULL,
        small INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX spend_of_all ON spend (currency, at, amount) WHERE counts = 1",
    "CREATE INDEX spend_of_account ON spend (account, currency, at, amount) WHERE counts = 1",
    "CREATE INDEX spend_to_payee ON spend (payee, currency, at, amount) WHERE small = 1",
    "CREATE INDEX spend_for_mission ON spend (mission, currency, at, amount) WHERE small = 1",
    # The sum of the spends from `since` on: of each cap, and of what nobody approved, by payee and by mission.
    """CREATE TABLE used (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        currency TEXT NOT NULL,
        period TEXT NOT NULL,
        most INTEGER NOT NULL,
        used INTEGER NOT NULL CHECK (used >= 0),
        since INTEGER NOT NULL,
        PRIMARY KEY (kind, name, currency, period)
    ) STRICT, WITHOUT ROWID""",
)

INDICES = (
    "CREATE UNIQUE INDEX account_id ON account_row (id)",
    "CREATE UNIQUE INDEX request_id ON request_row (id)",
    "CREATE INDEX decision_of ON decision_row (request_id, seq)",
    "CREATE INDEX decision_asks ON decision_row (request_id) WHERE verdict = 'ask'",
    "CREATE UNIQUE INDEX approval_of ON approval_row (request_id, approver)",
    "CREATE UNIQUE INDEX transfer_id ON transfer_row (id)",
    "CREATE INDEX transfer_of ON transfer_row (request_id)",
    "CREATE INDEX rule_of ON rule_row (currency, seq)",
)


def begins(at: str) -> str:
    """A table of the windows, `(period, begins)`: the first microsecond of each that ends at `at` (see periods.py)."""
    day = f"({at}) / {DAY_US}"
    month = f"strftime('%s', ({at}) / 1000000, 'unixepoch', 'start of month')"
    lengths = {"last_day": 1, "last_week": 7, "last_month": 30}
    rolling = [f"SELECT '{name}' AS period, ({at}) - {days * DAY_US} + 1 AS begins" for name, days in lengths.items()]
    return " UNION ALL ".join(
        (
            *rolling,
            f"SELECT 'day', {day} * {DAY_US}",
            f"SELECT 'week', ({day} - ({day} + 3) % 7) * {DAY_US}",  # day 0 was a Thursday
            f"SELECT 'month', CAST({month} AS INTEGER) * 1000000",
        )
    )


VIEWS = (
    f"CREATE VIEW bound AS {begins('SELECT at FROM head')}",
    # A request, and what was said of it until now.
    """CREATE VIEW asked AS SELECT
        request.*,
        head.at AS now,
        debit.kind = 'fund' AS leaves,
        debit.kind = 'fund' AND credit.kind <> 'fund' AS counts,
        credit.kind = 'metered' AS metered,
        EXISTS (SELECT 1 FROM transfer_row WHERE request_id = request.id) AS moved,
        (SELECT max(seq) FROM decision_row WHERE request_id = request.id) AS decided,
        EXISTS (SELECT 1 FROM approval_row WHERE request_id = request.id AND verdict = 'refused') AS refused,
        (SELECT count(*) FROM approval_row
            WHERE request_id = request.id AND verdict = 'approved' AND expires_at > head.at) AS approvals,
        EXISTS (SELECT 1 FROM approval_row WHERE request_id = request.id AND verdict = 'approved'
            AND expires_at > head.at AND signature <> '') AS signed_too,
        (SELECT max(seq) FROM rule_row WHERE currency = request.currency) AS ruled
        FROM request_row AS request
            JOIN account_row AS debit ON debit.id = request.debit
            JOIN account_row AS credit ON credit.id = request.credit
            CROSS JOIN head""",
)

# What was set aside ends: `posted` of it goes over, the rest is free again.
CLOSE = f"""CREATE TRIGGER close_pending AFTER DELETE ON open_pending BEGIN
    SELECT RAISE(ABORT, 'forbidden: this follows from the rows, and is not written') WHERE now_us() IS NULL;
    UPDATE balance SET posted = posted - OLD.posted, pending_out = pending_out - OLD.amount WHERE account = OLD.debit;
    UPDATE balance SET posted = posted + OLD.posted, pending_in = pending_in - OLD.amount WHERE account = OLD.credit;
    {"; ".join(change("OLD.seq", "used = used.used - (OLD.amount - OLD.posted)", where="used.since <= spend.at"))};
    UPDATE spend SET amount = OLD.posted WHERE seq = OLD.seq;
END"""


def _hash(values: Iterable[str]) -> str:
    """The hash of a row (see chain.py), of these values."""
    return f"sha256({' || '.join(f'{value} || char(10)' for value in values)})"


def _table(name: str) -> Iterator[str]:
    kinds = {column: "INTEGER" if column in NUMBERS else "TEXT" for column in COLUMNS[name]}
    own = ", ".join(f"{column} {kind} NOT NULL" for column, kind in kinds.items())
    yield (
        f"CREATE TABLE {name}_row (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, prev TEXT NOT NULL,"
        f" hash TEXT NOT NULL, {own}) STRICT"
    )
    yield f"CREATE VIEW {name} AS SELECT {', '.join((*STAMPS, *COLUMNS[name]))} FROM {name}_row"


def _triggers(name: str) -> Iterator[str]:
    own = ", ".join(COLUMNS[name])
    new = ", ".join(f"NEW.{column}" for column in COLUMNS[name])
    values = ("head.hash", "head.seq", f"'{name}'", "head.at", *(f"NEW.{column}" for column in COLUMNS[name]))
    linked = ("NEW.prev", "NEW.seq", f"'{name}'", "NEW.at", *(f"NEW.{column}" for column in COLUMNS[name]))
    statements = (
        f"SELECT RAISE(ABORT, 'conflict: no {name} has such columns') WHERE NOT well_formed('{name}', {new})",
        "UPDATE head SET seq = seq + 1, at = max(at, now_us())",
        *CHECKS[name],
        f"INSERT INTO {name}_row (seq, at, prev, hash, {own}) SELECT seq, at, hash, {_hash(values)}, {new} FROM head",
        f"UPDATE head SET hash = (SELECT hash FROM {name}_row WHERE seq = head.seq)",
        *EFFECTS.get(name, ()),
    )
    yield f"CREATE TRIGGER write_{name} INSTEAD OF INSERT ON {name} BEGIN {'; '.join(statements)}; END"
    # These hold for whoever has the file but not this program's functions: there is no sha256 in SQLite.
    yield (
        f"CREATE TRIGGER link_{name} BEFORE INSERT ON {name}_row BEGIN"
        " SELECT RAISE(ABORT, 'forbidden: a row has its hash from the one before')"
        f" WHERE NEW.hash <> {_hash(linked)} "
        " OR NEW.seq <> (SELECT seq FROM head) OR NEW.prev <> (SELECT hash FROM head); END"
    )
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER keep_{name}_{verb.lower()} BEFORE {verb} ON {name}_row BEGIN"
            f" SELECT RAISE(ABORT, 'forbidden: rows are only ever added'); END"
        )


def statements() -> Iterator[str]:
    """All that makes the tables, in order."""
    for name in COLUMNS:
        yield from _table(name)
    yield from (*TABLES, *INDICES, *VIEWS, CLOSE)
    for name in COLUMNS:
        yield from _triggers(name)


TRIGGERS = frozenset({"close_pending", *(f"write_{name}" for name in COLUMNS)})
"""Those that write. What they write nobody else may."""
