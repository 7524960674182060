"""What is read of the ledger in SQLite. What was set aside until now or earlier, and not swept yet, counts no more."""

from __future__ import annotations

from chimera.treasury.chain import COLUMNS
from chimera.treasury.sqlite.rules import spent
from chimera.treasury.sqlite.schema import begins

NOW = "(SELECT max(at, now_us()) FROM head)"
GONE = f"expires_at > 0 AND expires_at <= {NOW}"
OWN = {table: ", ".join(names) for table, names in COLUMNS.items()}

BALANCE = f"""
SELECT account, posted,
    pending_out - coalesce((SELECT sum(amount) FROM open_pending WHERE debit = account AND {GONE}), 0) AS pending_out,
    pending_in - coalesce((SELECT sum(amount) FROM open_pending WHERE credit = account AND {GONE}), 0) AS pending_in
FROM balance WHERE account = ?
"""
CAPS = f"""
WITH bound AS ({begins(NOW)})
SELECT used.name AS account, used.currency, used.period AS window, used.most AS "limit",
    used.used - {spent("used.since", "bound.begins")} - coalesce((
        SELECT sum(gone.amount) FROM open_pending AS gone JOIN spend USING (seq)
        WHERE {GONE} AND spend.at >= max(used.since, bound.begins)
            AND spend.counts = 1 AND spend.currency = used.currency AND used.name IN ('*', spend.account)
    ), 0) AS used
FROM used JOIN bound USING (period) WHERE used.kind = 'cap' ORDER BY 1, 2, 3
"""
WAITING = f"""
SELECT {OWN["request"]} FROM request_row AS asked
WHERE id > ? AND id IN (SELECT request_id FROM decision_row WHERE verdict = 'ask') AND expires_at > {NOW}
    AND 'ask' = (SELECT verdict FROM decision_row WHERE request_id = asked.id ORDER BY seq DESC LIMIT 1)
    AND NOT EXISTS (SELECT 1 FROM approval_row AS word
        WHERE word.request_id = asked.id AND (word.verdict = 'refused' OR word.expires_at > {NOW}))
    AND NOT EXISTS (SELECT 1 FROM transfer_row AS moved WHERE moved.request_id = asked.id)
ORDER BY id LIMIT ?
"""
STOPPED = """
SELECT why, at, by_whom AS by FROM (SELECT * FROM stop_row ORDER BY seq DESC LIMIT 1) WHERE action = 'stop'
"""
HEAD = "SELECT seq, hash FROM head"
ROWS = {
    table: f"SELECT seq, hash, at, {own} FROM {table}_row WHERE seq > ? ORDER BY seq LIMIT ?"
    for table, own in OWN.items()
}
FIND = {table: f"SELECT {own} FROM {table}_row WHERE id = ?" for table, own in OWN.items() if "id" in COLUMNS[table]}
OF_REQUEST = {
    table: f"SELECT seq, {own} FROM {table}_row WHERE request_id = ?"
    for table, own in OWN.items()
    if "request_id" in COLUMNS[table]
}
SAME = {
    table: f"SELECT seq, hash FROM {table}_row WHERE " + " AND ".join(f"{name} = ?" for name in names)
    for table, names in COLUMNS.items()
}
