"""What the adapter asks. Names are qualified throughout: nothing that a session has set can shadow them."""

from __future__ import annotations

from chimera.treasury.chain import COLUMNS

MORE_WAS_SAID = "CH002"
WRITE = "SELECT * FROM chimera_treasury.write(%s)"
ANSWER = "RETURNING seq AS row_seq, hash AS row_hash, false AS again, '' AS reason, '' AS detail"
INSERT = {
    table: f"INSERT INTO chimera_treasury.{table} ({', '.join(names)})"
    f" VALUES ({', '.join(f'%({name})s' for name in names)}) {ANSWER}"
    for table, names in COLUMNS.items()
}

NOW = "(SELECT greatest(at, chimera_treasury.now_us()) AS now FROM chimera_treasury.head)"
REQUEST_COLUMNS = ", ".join(f"asked.{name}" for name in COLUMNS["request"] if name != "digest")
ACCOUNT = "SELECT id, kind, currency, title FROM chimera_treasury.account WHERE id = %s"
REQUEST = f"SELECT {REQUEST_COLUMNS} FROM chimera_treasury.request AS asked WHERE id = %s"
WORDS = """
SELECT seq, 'decision' AS kind, request_id, verdict, key_id, payload, signature, '' AS approver, 0 AS expires_at
FROM chimera_treasury.decision WHERE request_id = ANY(%s)
UNION ALL
SELECT seq, 'approval', request_id, verdict, key_id, payload, signature, approver, expires_at
FROM chimera_treasury.approval WHERE request_id = ANY(%s)
ORDER BY 1
"""
TRANSFERS = """
SELECT id, kind, request_id, amount, expires_at FROM (
    SELECT * FROM chimera_treasury.transfer WHERE request_id = %s AND kind IN ('pending', 'posted')
    UNION ALL
    SELECT * FROM chimera_treasury.transfer WHERE request_id = %s AND kind IN ('post', 'void')
) AS moved ORDER BY seq
"""
BALANCE = f"""
WITH gone AS (
    SELECT debit, credit, amount FROM chimera_treasury.open_pending WHERE expires_at > 0 AND expires_at <= {NOW}
)
SELECT account, posted,
    pending_out - coalesce((SELECT sum(amount) FROM gone WHERE debit = account), 0)::bigint AS pending_out,
    pending_in - coalesce((SELECT sum(amount) FROM gone WHERE credit = account), 0)::bigint AS pending_in
FROM chimera_treasury.balance WHERE account = %s
"""
WAITING = f"""
SELECT {REQUEST_COLUMNS} FROM chimera_treasury.request AS asked
WHERE id > %s AND expires_at > {NOW} AND 'ask' = (
    SELECT verdict FROM chimera_treasury.decision WHERE request_id = id ORDER BY seq DESC LIMIT 1
) AND NOT EXISTS (
    SELECT FROM chimera_treasury.approval AS word
    WHERE word.request_id = id AND (word.verdict = 'refused' OR word.expires_at > {NOW})
) AND NOT EXISTS (
    SELECT FROM chimera_treasury.transfer AS moved WHERE moved.request_id = id AND moved.kind IN ('pending', 'posted')
)
ORDER BY id LIMIT %s
"""
CAPS = "SELECT * FROM chimera_treasury.cap_uses()"
STOPPED = """
SELECT why, at, by_whom AS by FROM (SELECT * FROM chimera_treasury.stop ORDER BY seq DESC LIMIT 1) AS last
WHERE action = 'stop'
"""
HEAD = "SELECT seq, hash FROM chimera_treasury.head"
TABLES = len(COLUMNS)
ROWS = (
    " UNION ALL ".join(
        f"(SELECT seq, '{table}' AS kind, to_jsonb(t) - '{{seq,prev,hash}}'::text[] AS cells, hash"
        f" FROM chimera_treasury.{table} AS t WHERE seq > %s ORDER BY seq LIMIT %s)"
        for table in COLUMNS
    )
    + " ORDER BY 1 LIMIT %s"
)
