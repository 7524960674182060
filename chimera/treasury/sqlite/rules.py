"""What may be written next, in SQLite's own language: what `book.py` says, in the same order.

Each check raises `reason: why`, and each effect brings a derived table up to date; the row's number and time are those
of `head`. RAISE takes no more than a literal, so no amounts are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MOST = 4 * 10**18
"""What an account has with all that is to come in, or owes with all that is to go out, at most: so it fits 64 bits."""

REQUESTED = "FROM asked WHERE asked.id = NEW.request_id"
STARTS = "NEW.kind IN ('pending', 'posted')"
LAST_ROW = "(SELECT seq FROM head)"
SUMS = (
    "spend.counts AND used.kind = 'cap' AND used.name = '*'",
    "spend.counts AND used.kind = 'cap' AND used.name = spend.account",
    "spend.small AND used.kind = 'payee' AND used.name = spend.payee",
    "spend.small AND used.kind = 'mission' AND used.name = spend.mission",
)
"""In which sums a spend is. Each is asked for by itself, so that it is found by its key."""
THE_CAP = "kind = 'cap' AND name = NEW.account AND currency = NEW.currency AND period = NEW.period"


def spent(since: str, until: str) -> str:
    """What a row of `used` sums, of the spends from `since` on and before `until`."""
    within = f"currency = used.currency AND at >= {since} AND at < {until}"
    total = "(SELECT coalesce(sum(amount), 0) FROM spend WHERE"
    return (
        f"CASE WHEN used.kind = 'cap' AND used.name = '*' THEN {total} counts = 1 AND {within})"
        f" WHEN used.kind = 'cap' THEN {total} counts = 1 AND account = used.name AND {within})"
        f" WHEN used.kind = 'payee' THEN {total} small = 1 AND payee = used.name AND {within})"
        f" ELSE {total} small = 1 AND mission = used.name AND {within}) END"
    )


def over(most: str, sums: Iterable[str]) -> str:
    """Whether the spend of the last row makes one of these sums more than `most`."""
    last = f"SELECT 1 FROM spend CROSS JOIN used WHERE spend.seq = {LAST_ROW} AND used.currency = spend.currency"
    return " OR ".join(f"EXISTS ({last} AND {each} AND used.used > {most})" for each in sums)


def change(seq: str, what: str, source: str = "spend", where: str = "1") -> Iterable[str]:
    """Change the sums that the spend `seq` is in."""
    for each in SUMS:
        yield (
            f"UPDATE used SET {what} FROM {source} WHERE spend.seq = {seq} AND used.currency = spend.currency"
            f" AND {each} AND {where}"
        )


def refuse(*cases: tuple[str, str], source: str = "") -> str:
    """Refuse with the first message whose condition holds, for each row of `source`."""
    whens = " ".join(f"WHEN {condition} THEN RAISE(ABORT, '{message}')" for condition, message in cases)
    return f"SELECT CASE {whens} END {source}"


def _account(side: str) -> Iterable[tuple[str, str]]:
    here = f"SELECT 1 FROM account_row WHERE id = NEW.{side}"
    yield f"NOT EXISTS ({here})", f"unknown: there is no such {side} account"
    yield f"NOT EXISTS ({here} AND currency = NEW.currency)", f"conflict: the {side} account has another currency"


WORD = (
    (
        "json_extract(NEW.payload, '$.request_digest') <> asked.digest",
        "conflict: it speaks of another request: the digest differs",
    ),
    ("asked.moved", "conflict: the request has been carried out"),
)
NO_REQUEST = refuse(
    ("NOT EXISTS (SELECT 1 FROM request_row WHERE id = NEW.request_id)", "unknown: there is no such request")
)
SAID_BEFORE = "EXISTS (SELECT 1 FROM decision_row WHERE request_id = NEW.request_id AND payload = NEW.payload)"
FORGED = "NOT signed('{table}', NEW.payload, NEW.signature)"

RULE = "(SELECT {limit} FROM rule_row WHERE seq = asked.ruled)"
VERDICT = "(SELECT verdict FROM decision_row WHERE seq = asked.decided)"
STOPPED = "(SELECT action FROM stop_row ORDER BY seq DESC LIMIT 1) = 'stop'"
PENDING = "SELECT amount FROM open_pending WHERE request_id = NEW.request_id"

BEGIN = refuse(
    ("asked.moved", "conflict: the request has been carried out"),
    ("NEW.amount <> asked.amount", "conflict: the request is over another amount"),
    ("asked.expires_at <= asked.now", "expired: the request has expired"),
    (
        "NEW.kind = 'pending' AND NEW.expires_at BETWEEN 1 AND asked.now",
        "expired: it would have expired already",
    ),
    (f"asked.decided IS NULL OR {VERDICT} = 'refused'", "unsigned: the CFO has not agreed"),
    (
        "NOT (SELECT signed('decision', payload, signature) FROM decision_row WHERE seq = asked.decided)",
        "unsigned: what is stored is not signed by the CFO",
    ),
    (
        "EXISTS (SELECT 1 FROM approval_row WHERE request_id = asked.id AND signature <> ''"
        " AND NOT signed('approval', payload, signature))",
        "unsigned: what is stored is not signed by who is said to approve",
    ),
    (f"asked.leaves AND {STOPPED}", "stopped: all spending is stopped, until a person starts it again"),
    ("asked.refused", "unapproved: a person has refused it"),
    (f"{VERDICT} = 'ask' AND NOT asked.approvals", "unapproved: the CFO wants a person to approve it"),
    ("asked.leaves AND asked.ruled IS NULL", "forbidden: there are no rules for this currency"),
    (
        f"asked.leaves AND asked.amount > {RULE.format(limit='dual_over')} AND asked.approvals < 2"
        " AND NOT asked.signed_too",
        "unapproved: two keys are needed: two people, or one who signs",
    ),
    source=f"{REQUESTED} AND {STARTS}",
)

END = refuse(
    (
        f"NOT EXISTS ({PENDING}) AND EXISTS (SELECT 1 FROM transfer_row WHERE request_id = NEW.request_id)",
        "conflict: nothing is set aside for this request any more",
    ),
    (f"NOT EXISTS ({PENDING})", "unknown: nothing is set aside for this request"),
    (
        f"NEW.kind = 'post' AND NEW.amount NOT BETWEEN 1 AND ({PENDING})",
        "conflict: this cannot be moved: more than nothing can, and what was set aside at most",
    ),
    ("NEW.kind = 'void' AND NEW.amount <> 0", "conflict: to let go moves nothing"),
    source=f"WHERE NOT {STARTS}",
)

CHECKS: Mapping[str, tuple[str, ...]] = {
    "account": (
        refuse(
            ("NEW.kind = 'metered' AND role() <> 'owner'", "forbidden: only the owner says who is paid by use"),
            ("EXISTS (SELECT 1 FROM account_row WHERE id = NEW.id)", "conflict: there is an account of this name"),
        ),
    ),
    "request": (
        refuse(
            ("EXISTS (SELECT 1 FROM request_row WHERE id = NEW.id)", "conflict: there is another request of this id"),
            *_account("debit"),
            *_account("credit"),
            ("NEW.debit = NEW.credit", "conflict: an account does not pay itself"),
            ("NEW.expires_at <= (SELECT at FROM head)", "expired: the request has expired"),
        ),
    ),
    "decision": (
        NO_REQUEST,
        refuse(
            (SAID_BEFORE, "conflict: this was said before"),
            *WORD,
            ("NEW.signature = ''", "unsigned: a decision has to be signed"),
            (FORGED.format(table="decision"), "unsigned: this is not the signature of the CFO"),
            source=REQUESTED,
        ),
    ),
    "approval": (
        NO_REQUEST,
        refuse(
            *WORD,
            ("NEW.approver = asked.requester", "forbidden: nobody approves what they asked for"),
            (
                "EXISTS (SELECT 1 FROM approval_row WHERE request_id = NEW.request_id AND approver = NEW.approver)",
                "conflict: this person has answered",
            ),
            ("NEW.expires_at <= asked.now", "expired: the approval has expired"),
            (f"NEW.signature <> '' AND {FORGED.format(table='approval')}", "unsigned: this is not their signature"),
            source=REQUESTED,
        ),
    ),
    "transfer": (
        "DELETE FROM open_pending WHERE expires_at > 0 AND expires_at <= (SELECT at FROM head)",
        refuse(("EXISTS (SELECT 1 FROM transfer_row WHERE id = NEW.id)", "conflict: there is another one of this id")),
        NO_REQUEST,
        END,
        BEGIN,
        # Who may be counted changes as soon as the row is there, so it is counted first.
        "INSERT INTO spend SELECT head.seq, head.at, asked.debit, asked.credit, asked.mission, asked.currency,"
        " asked.amount, asked.counts, NOT asked.approvals AND NOT asked.metered FROM asked CROSS JOIN head"
        f" WHERE asked.id = NEW.request_id AND asked.leaves AND {STARTS}",
        *(
            f"INSERT INTO used SELECT '{kind}', {kind}, currency, 'last_day', 0, 0, 0 FROM spend"
            f" WHERE seq = {LAST_ROW} AND small AND {kind} <> '' AND NOT EXISTS (SELECT 1 FROM used"
            f" WHERE kind = '{kind}' AND name = spend.{kind} AND currency = spend.currency)"
            for kind in ("payee", "mission")
        ),
        *change(
            LAST_ROW,
            f"since = bound.begins, used = used.used + spend.amount - {spent('used.since', 'bound.begins')}",
            "spend CROSS JOIN bound",
            "used.period = bound.period",
        ),
        refuse(
            (
                over(RULE.format(limit="ask_over"), SUMS[2:]),
                "unapproved: a person has to approve it: it is above the limit, alone or with others",
            ),
            (
                "asked.leaves AND asked.amount >"
                " (SELECT posted - pending_out FROM balance WHERE account = asked.debit)",
                "funds: the account has less than that",
            ),
            (
                "asked.counts AND NOT EXISTS (SELECT 1 FROM used"
                " WHERE kind = 'cap' AND name = '*' AND currency = asked.currency)",
                "cap: no caps are set for this currency",
            ),
            (
                over("used.most", SUMS[:2]),
                "cap: with it more would be spent than may be",
            ),
            (
                "EXISTS (SELECT 1 FROM balance WHERE account IN (asked.debit, asked.credit) AND asked.amount +"
                f" CASE account WHEN asked.debit THEN pending_out - posted ELSE posted + pending_in END > {MOST})",
                "funds: sums of it would not fit into 64 bits",
            ),
            source=f"{REQUESTED} AND {STARTS}",
        ),
    ),
    "cap": (),
    "rule": (),
    "stop": (
        refuse(
            (
                "NEW.action = 'stop' AND role() NOT IN ('cfo', 'owner')",
                "forbidden: the CFO and the owner stop spending",
            ),
            (
                "NEW.action = 'resume' AND role() NOT IN ('approver', 'owner')",
                "forbidden: a person who approves starts it again",
            ),
        ),
    ),
}

EFFECTS: Mapping[str, tuple[str, ...]] = {
    "account": ("INSERT INTO balance VALUES (NEW.id, NEW.kind = 'fund', 0, 0, 0)",),
    "transfer": (
        f"UPDATE balance SET pending_out = pending_out + NEW.amount FROM asked"
        f" WHERE asked.id = NEW.request_id AND account = asked.debit AND {STARTS}",
        f"UPDATE balance SET pending_in = pending_in + NEW.amount FROM asked"
        f" WHERE asked.id = NEW.request_id AND account = asked.credit AND {STARTS}",
        f"INSERT INTO open_pending SELECT id, {LAST_ROW}, debit, credit, NEW.amount,"
        f" CASE NEW.kind WHEN 'pending' THEN NEW.expires_at ELSE 0 END, 0 FROM request_row"
        f" WHERE id = NEW.request_id AND {STARTS}",
        "UPDATE open_pending SET posted = NEW.amount"
        " WHERE request_id = NEW.request_id AND NEW.kind IN ('post', 'posted')",
        "DELETE FROM open_pending WHERE request_id = NEW.request_id AND NEW.kind <> 'pending'",
    ),
    "cap": (
        "INSERT INTO used SELECT 'cap', NEW.account, NEW.currency, NEW.period, NEW.most, 0, begins FROM bound"
        f" WHERE period = NEW.period AND NOT EXISTS (SELECT 1 FROM used WHERE {THE_CAP})",
        f"UPDATE used SET most = NEW.most, used = {spent('used.since', f'used.since + {MOST}')} WHERE {THE_CAP}",
    ),
}
