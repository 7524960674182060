"""An audit finds each kind of manipulation, and nothing in a ledger that nobody touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chimera.treasury.audit import MAX_FINDINGS, LedgerReport, examine
from chimera.treasury.book import Book
from chimera.treasury.chain import COLUMNS, GENESIS, RawRow, link
from chimera.treasury.ledger import Head
from chimera.treasury.rows import AnyRow, Switch, columns
from chimera.treasury.types import (
    DAY_US,
    NANO,
    Account,
    AccountKind,
    Balance,
    Cap,
    CapUse,
    PaymentRequest,
    Rules,
    Transfer,
    TransferKind,
    Window,
)
from tests.ledger_house import NEVER, approval, decision, transfer
from tests.ledgers import verify

CAP = Cap(window=Window.LAST_DAY, limit=100 * NANO)
Rows = list[RawRow]


def ask(name: str, amount: int, debit: str = "cash", credit: str = "acme") -> PaymentRequest:
    return PaymentRequest(
        id=name, debit=debit, credit=credit, amount=amount, category="any", requester="worker-1", expires_at=NEVER
    )


FILL, SMALL, LARGE, OPEN = (
    ask("fill", 500 * NANO, "bank", "cash"),
    ask("small", 7),
    ask("large", 60 * NANO),
    ask("open", 9),
)
STORY: list[AnyRow] = [
    *(Account(id=name, kind=kind) for name, kind in (("cash", AccountKind.FUND), ("acme", AccountKind.OUTSIDE))),
    Account(id="bank", kind=AccountKind.OUTSIDE),
    CAP,
    Rules(),
    *(row for each in (FILL, SMALL) for row in (each, decision(each), transfer(each))),
    *(LARGE, decision(LARGE, "ask"), approval(LARGE, "ann", signed=True), transfer(LARGE)),
    *(OPEN, decision(OPEN), transfer(OPEN, "pending", expires_at=2 * DAY_US)),
    Switch(action="stop", why="a test", by="cfo"),
]
PLACE = {row: place for place, row in enumerate(STORY)}


def chained(story: list[AnyRow]) -> Rows:
    return rechained(
        [(0, table, {"at": 1_000 + place, **told}, "") for place, (table, told) in enumerate(map(columns, story))]
    )


def rechained(rows: Rows) -> Rows:
    """As somebody would write them who knows how rows are chained."""
    prev, made = GENESIS, Rows()
    for seq, (_, table, told, _) in enumerate(rows, 1):
        prev = link(prev, seq, table, told) if set(COLUMNS[table]) <= set(told) else "0" * 64
        made.append((seq, table, told, prev))
    return made


ROWS = chained(STORY)
HEAD = Head(seq=ROWS[-1][0], hash=ROWS[-1][3])
AT = DAY_US


def derived() -> tuple[list[Balance], list[CapUse]]:
    """What a database has that nobody touched."""
    book = Book()
    for row, (_, _, told, _) in zip(STORY, ROWS, strict=True):
        book.add(row, int(told["at"]))
    balances = [
        Balance(account=name, posted=each.posted, pending_out=each.pending_out, pending_in=each.pending_in)
        for name, each in ((name, book.totals[name]) for name in book.kinds)
    ]
    return balances, [CapUse(cap=CAP, used=book.used(CAP, AT))]


def audit(rows: Rows, *, anchor: Head | None = None, head: Head | None = HEAD) -> LedgerReport:
    return examine(rows, *derived(), at=AT, anchor=anchor, head=head, verify=verify)


def test_nothing_is_found_where_nothing_was_done() -> None:
    report = audit(ROWS, anchor=Head(seq=5, hash=ROWS[4][3]))
    assert report.ok and (report.rows, report.head) == (len(ROWS), HEAD)
    assert examine([], [], [], at=0, head=Head(seq=0, hash=GENESIS)).ok


def changed(row: AnyRow, **fields: str | int) -> Callable[[Rows], Rows]:
    place = PLACE[row]

    def change(rows: Rows) -> Rows:
        seq, table, told, found = rows[place]
        return [*rows[:place], (seq, table, {**told, **fields}, found), *rows[place + 1 :]]

    return change


def without(row: AnyRow) -> Callable[[Rows], Rows]:
    return lambda rows: [each for place, each in enumerate(rows) if place != PLACE[row]]


def more(*rows_: AnyRow) -> Callable[[Rows], Rows]:
    """Rows at the end, as if whoever wrote them could pass by the database's rules."""
    return lambda rows: rows + [(0, *_at(row, AT), "") for row in rows_]


def _at(row: AnyRow, at: int) -> tuple[str, dict[str, str | int]]:
    table, told = columns(row)
    return table, {"at": at, **told}


def swapped(rows: Rows) -> Rows:
    return [*rows[:6], rows[7], rows[6], *rows[8:]]


GO = Switch(action="resume", why="", by="ann")
BIG, NEW = ask("big", 41 * NANO), ask("new", 5)
SIGNED = approval(BIG, "ann", signed=True)


@pytest.mark.parametrize(
    ("manipulate", "finding"),
    [
        (changed(transfer(SMALL), amount=8), "not what it was"),
        (changed(STORY[-1], why="no reason"), "not what it was"),
        (changed(SMALL, more="x"), "no row of a ledger"),
        (without(decision(SMALL)), "row 10 is missing"),
        (without(STORY[0]), "row 1 is missing"),
        (without(STORY[-1]), "the rows end with"),
        (swapped, "is missing"),
        (lambda rows: [*rows[:6], rows[5], *rows[6:]], "is missing"),
        (lambda rows: [], "the rows end with"),
    ],
)
def test_what_was_changed_removed_moved_or_repeated_shows_in_the_chain(
    manipulate: Callable[[Rows], Rows], finding: str
) -> None:
    assert any(finding in each.what for each in audit(manipulate(ROWS)).findings)


@pytest.mark.parametrize(
    ("manipulate", "finding"),
    [
        (changed(transfer(SMALL), at=1), "older than the row before"),
        (changed(SMALL, amount=8), "says one thing"),
        (changed(decision(SMALL), verdict="refused"), "says one thing"),
        (changed(decision(SMALL), signature="0" * 128), "the signature is not good"),
        (changed(approval(LARGE, "ann", signed=True), signature="0" * 128), "the signature is not good"),
        (changed(SMALL, amount="7"), "no request can be read"),
        (changed(CAP, most=-1), "no cap can be read"),
        (without(decision(SMALL)), "the CFO has not agreed"),
        (without(approval(LARGE, "ann", signed=True)), "the CFO wants a person to approve it"),
        (without(FILL), "there is no request fill"),
        (without(CAP), "no caps are set"),
        (without(Rules()), "there are no rules"),
        (changed(transfer(SMALL), kind="post"), "nothing is set aside"),
        (changed(transfer(SMALL), amount=8), "the request is over 7"),
        (more(GO, NEW, decision(NEW), transfer(NEW), transfer(NEW, id="twice")), "carried out"),
        (more(GO, SMALL), "there is another small"),
        (more(NEW, decision(NEW).model_copy(update={"signature": "0" * 128})), "the signature is not good"),
        (more(NEW, decision(NEW), transfer(NEW)), "all spending is stopped"),
        (more(GO, BIG, decision(BIG), SIGNED, transfer(BIG)), "of 100000000000 is used"),
        (more(GO, NEW, decision(NEW), approval(NEW, "worker-1")), "nobody approves what they asked for"),
        (more(Account(id="cash", kind=AccountKind.OUTSIDE)), "there is another cash"),
        (
            more(GO, NEW, decision(NEW), transfer(NEW, id="posted-small")),
            "there is another posted-small",
        ),
        (more(Transfer(id="x", kind=TransferKind.POST, request_id="nobody", amount=1)), "there is no request nobody"),
    ],
)
def test_what_the_rules_would_have_refused_is_found_though_the_hashes_are_good(
    manipulate: Callable[[Rows], Rows], finding: str
) -> None:
    rows = rechained(manipulate(ROWS))
    report = audit(rows, head=Head(seq=rows[-1][0], hash=rows[-1][3]))
    assert any(finding in each.what for each in report.findings), report.findings
    assert not any("not what it was" in each.what or "is missing: row" in each.what for each in report.findings)


def test_rows_that_were_all_written_anew_differ_from_the_head_that_was_kept_outside() -> None:
    anew = chained([*STORY[:-1], Switch(action="stop", why="another reason", by="cfo")])
    ends = Head(seq=len(anew), hash=anew[-1][3])
    assert audit(anew, head=ends).ok, "this cannot show without one"
    for anchor, rows in ((HEAD, anew), (HEAD, ROWS[:-1]), (Head(seq=0, hash="1" * 64), ROWS)):
        assert not examine(rows, *derived(), at=AT, anchor=anchor).ok
    assert audit(anew, head=ends, anchor=Head(seq=5, hash=ROWS[4][3])).ok, "up to there they are the same"


@pytest.mark.parametrize(
    ("balance", "finding"),
    [
        ({"posted": 1}, "the balance of acme is 1"),
        ({"pending_in": 0}, "the balance of acme"),
        ({"account": "mallory"}, "a balance of mallory, and no such account"),
        ({"account": "mallory"}, "the balance of acme is not there"),
        ({"posted": 0}, "the sum of all balances"),
    ],
)
def test_a_balance_that_does_not_follow_from_the_rows_is_found(balance: dict[str, object], finding: str) -> None:
    balances, caps = derived()
    other = [each.model_copy(update=balance) if each.account == "acme" else each for each in balances]
    assert any(finding in each.what for each in examine(ROWS, other, caps, at=AT).findings)


@pytest.mark.parametrize(
    ("caps", "finding"),
    [
        ([CapUse(cap=CAP, used=0)], "of the cap */USD/last_day 0 is used"),
        ([CapUse(cap=CAP.model_copy(update={"limit": 10**18}), used=60 * NANO + 16)], "the cap */USD/last_day is"),
        ([], "the cap */USD/last_day is None"),
        ([*derived()[1], CapUse(cap=Cap(window=Window.DAY, limit=5), used=0)], "the cap */USD/day is 5"),
    ],
)
def test_a_cap_that_does_not_follow_from_the_rows_is_found(caps: list[CapUse], finding: str) -> None:
    assert any(finding in each.what for each in examine(ROWS, derived()[0], caps, at=AT).findings)


def test_what_expired_or_is_older_than_its_window_counts_no_more() -> None:
    balances, caps = derived()
    assert not examine(ROWS, balances, caps, at=2 * DAY_US).ok
    (acme,) = [each for each in balances if each.account == "acme"]
    assert acme.pending_in == 9
    freed = [each.model_copy(update={"pending_in": 0, "pending_out": 0}) for each in balances]
    assert examine(ROWS, freed, [CapUse(cap=CAP, used=0)], at=2 * DAY_US).ok


def test_the_list_of_findings_has_an_end() -> None:
    rows = [(seq, "nothing", {"at": 0}, "") for seq in range(2, 1_000, 2)]
    assert len(examine(rows, [], [], at=0).findings) == MAX_FINDINGS
