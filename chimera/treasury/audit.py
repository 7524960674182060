"""An audit of a ledger from its raw rows: each is what it was, and was allowed when it came; the sums follow (pure).

The database is not believed: its hashes are computed again, each row is put to the rules of `book.Book`, and what the
database derived is compared with what the book makes of the rows. Somebody who can write the file can write all of it
anew, with good hashes: that shows only against a head that was kept elsewhere (`anchor`), and by signatures (`verify`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chimera.core.types import Frozen
from chimera.treasury.book import Book, Refusal
from chimera.treasury.chain import GENESIS, RawRow, broken
from chimera.treasury.ledger import Head
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.types import (
    Account,
    Approval,
    Balance,
    CapUse,
    CfoDecision,
    PaymentRequest,
    RefusalReason,
    Signed,
    Transfer,
    TransferKind,
)

MAX_FINDINGS = 100

Verify = Callable[[Signed], bool]
BEGINS = (TransferKind.PENDING, TransferKind.POSTED)


class Finding(Frozen):
    """Something that should not be. `seq` is the row that shows it; 0 where it is a sum or the end that is wrong."""

    seq: int
    what: str


class LedgerReport(Frozen):
    """What an audit came to. `head` is where the rows end that were read; after `MAX_FINDINGS` no more are listed."""

    rows: int
    head: Head
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings


def examine(
    rows: Iterable[RawRow],
    balances: Iterable[Balance],
    caps: Iterable[CapUse],
    *,
    at: int,
    anchor: Head | None = None,
    head: Head | None = None,
    verify: Verify | None = None,
) -> LedgerReport:
    """All rows of a ledger from the first on, and what its database says at the moment `at` (microseconds).

    `head` is where the database says that they end, `anchor` an earlier end that was kept outside; `verify` says
    whether a signature is good (None: signatures are not looked at).
    """
    auditor = Auditor(anchor=anchor, verify=verify)
    for row in rows:
        auditor.take(row)
    auditor.compare(balances, caps, at=at, head=head)
    return auditor.report()


class Auditor:
    """`examine`, for whoever reads the rows in parts: `take` each, then `compare`, then `report`."""

    def __init__(self, *, anchor: Head | None = None, verify: Verify | None = None) -> None:
        self._anchor = anchor
        self._verify = verify
        self._book = Book()
        self._transfers: set[str] = set()
        self._last = (0, GENESIS)
        self._at = 0
        self._rows = 0
        self._findings: list[Finding] = []
        if anchor is not None and anchor.seq == 0 and anchor.hash != GENESIS:
            self._find(0, "the anchor is that of no ledger")

    def take(self, row: RawRow) -> None:
        """The next row."""
        seq, table, told, found = row
        self._rows += 1
        fault = broken([row], after=self._last)
        if fault is not None:
            self._find(seq, fault)
        elif int(told["at"]) < self._at:
            self._find(seq, f"row {seq} is older than the row before it")
        if self._anchor is not None and seq == self._anchor.seq and found != self._anchor.hash:
            self._find(seq, f"row {seq} is not the one whose hash was kept outside: the rows were written anew")
        self._last = (seq, found)
        try:
            at = max(self._at, int(told["at"]))
            parsed = parse(table, told)
        except (ValueError, KeyError, TypeError) as error:
            self._find(seq, f"row {seq} ({table:.20}): {error}")
            return
        self._at = at
        try:
            if refusal := self._refuses(parsed, at):
                self._find(seq, f"row {seq} ({table}) should have been refused: {refusal[1]}")
            if isinstance(parsed, Transfer):
                self._transfers.add(parsed.id)
            self._book.add(parsed, at)
        except KeyError as error:  # what it is about is not there, which has been said
            self._find(seq, f"row {seq} ({table}) cannot be counted: {error} is missing")

    def compare(
        self, balances: Iterable[Balance], caps: Iterable[CapUse], *, at: int, head: Head | None = None
    ) -> None:
        """What follows from the rows, with what the database says that follows at the moment `at`."""
        at = max(at, self._at)
        self._book.sweep(at)
        found = {each.account: each for each in balances}
        for account in sorted({*self._book.kinds, *found}):
            totals = self._book.totals[account]
            made = Balance(
                account=account, posted=totals.posted, pending_out=totals.pending_out, pending_in=totals.pending_in
            )
            if account not in self._book.kinds:
                self._find(0, f"there is a balance of {account}, and no such account")
            elif found.get(account) != made:
                self._find(0, f"the balance of {account} is {_told(found.get(account))}: the rows make {_told(made)}")
        if (total := sum(each.posted for each in found.values())) != 0:
            self._find(0, f"the sum of all balances is {total}, and not zero")
        self._compare_caps({(each.cap.account, each.cap.currency, each.cap.window): each for each in caps}, at)
        if head is not None and (head.seq, head.hash) != self._last:
            self._find(0, f"the database says that the rows end with {head.seq}, and they end with {self._last[0]}")
        if self._anchor is not None and self._anchor.seq > self._last[0]:
            self._find(0, f"rows {self._last[0] + 1} to {self._anchor.seq} are missing: the end was kept outside")

    def report(self) -> LedgerReport:
        seq, hash_ = self._last
        return LedgerReport(rows=self._rows, head=Head(seq=seq, hash=hash_), findings=tuple(self._findings))

    def _find(self, seq: int, what: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(seq=seq, what=what[:500]))

    def _compare_caps(self, found: dict[tuple[str, str, str], CapUse], at: int) -> None:
        for key in sorted({*self._book.caps, *found}):
            name = "/".join(key)
            cap, use = self._book.caps.get(key), found.get(key)  # type: ignore[arg-type]
            if cap is None or use is None or use.cap != cap:
                limits = [shown.limit if shown else None for shown in (use and use.cap, cap)]
                self._find(0, f"the cap {name} is {limits[0]}: the rows make {limits[1]}")
            elif use.used != self._book.used(cap, at):
                self._find(0, f"of the cap {name} {use.used} is used: the rows make {self._book.used(cap, at)}")

    def _refuses(self, row: AnyRow, at: int) -> Refusal | None:
        """Why the row should not be there; None if it may."""
        book = self._book
        refusal: Refusal | None = None
        match row:
            case Account():
                refusal = _twice(row.id in book.kinds, row.id)
            case PaymentRequest():
                refusal = _twice(row.id in book.requests, row.id) or book.refuses_request(row, at)
            case CfoDecision() | Approval():
                refusal = book.refuses_word(row, at) or self._forged(row)
            case Transfer():
                refusal = _twice(row.id in self._transfers, row.id) or book.refuses_transfer(row, at)
                if row.kind in BEGINS:
                    words = book.said[row.request_id]
                    relied = [word for word in (words.decision, *words.approvals.values()) if word is not None]
                    refusal = refusal or next(filter(None, map(self._forged, relied)), None)
        return refusal

    def _forged(self, word: Signed) -> Refusal | None:
        if self._verify is None or not word.signature or self._verify(word):
            return None
        return RefusalReason.UNSIGNED, "the signature is not good"


def _twice(there: bool, name: str) -> Refusal | None:
    return (RefusalReason.CONFLICT, f"there is another {name}") if there else None


def _told(balance: Balance | None) -> str:
    return "not there" if balance is None else f"{balance.posted} (-{balance.pending_out}, +{balance.pending_in})"
