"""Each row of the ledger holds the hash of the row before: a row that was changed, removed or moved shows (pure).

The text that is hashed is one line for each value: the hash before, the row's number, its table, its time, then its
columns in the order of `COLUMNS`. No value holds a line's end, so no two rows have the same text. The database computes
it at insertion (`sha256`), whoever checks it does so here (Haber and Stornetta, Journal of Cryptology 3, 1991).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

GENESIS = "0" * 64

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "account": ("id", "kind", "currency", "title"),
    "request": (
        *("id", "digest", "debit", "credit", "amount", "currency"),
        *("category", "requester", "mission", "reason", "expires_at"),
    ),
    "decision": ("request_id", "verdict", "key_id", "payload", "signature"),
    "approval": ("request_id", "approver", "verdict", "expires_at", "key_id", "payload", "signature"),
    "transfer": ("id", "kind", "request_id", "amount", "expires_at"),
    "cap": ("account", "currency", "period", "most"),
    "rule": ("currency", "ask_over", "dual_over"),
    "stop": ("action", "why", "by_whom"),
}
"""The tables of the ledger, and those columns that are the row's own."""

RawRow = tuple[int, str, Mapping[str, str | int], str]
"""`(seq, table, columns with "at", hash)`."""


def link(prev: str, seq: int, table: str, columns: Mapping[str, str | int]) -> str:
    """The hash of a row, in hex. `columns` has those of `COLUMNS[table]`, and `at`."""
    values = [prev, seq, table, columns["at"], *(columns[name] for name in COLUMNS[table])]
    return hashlib.sha256("".join(f"{value}\n" for value in values).encode()).hexdigest()


def broken(rows: Iterable[RawRow], *, after: tuple[int, str] = (0, GENESIS)) -> str | None:
    """What is wrong with these rows, which follow the row `after` (its number and hash); None if they are whole."""
    seq, prev = after
    at = 0
    for number, table, columns, found in rows:
        if number != seq + 1:
            return f"row {seq + 1} is missing: row {number} comes next"
        if set(columns) != {"at", *COLUMNS.get(table, ())}:
            return f"row {number} is no row of a ledger: {table} {sorted(columns)}"
        if int(columns["at"]) < at:
            return f"row {number} is older than the row before it"
        if link(prev, number, table, columns) != found:
            return f"row {number} ({table}) is not what it was when it was written, or a row before it is not"
        seq, prev, at = number, found, int(columns["at"])
    return None
