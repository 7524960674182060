"""An audit of a ledger that goes on being written: its rows in parts, then what the database says that follows.

`audit` does the looking. What is here is the order of asking: a head, the rows until it, then balances and caps, and
the head again. Where that has moved, balances and caps are of another moment, and are asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import NotThere
from chimera.treasury.anchors import HeadAnchor
from chimera.treasury.audit import MAX_FINDINGS, Auditor, Finding, LedgerReport, Verify
from chimera.treasury.chain import GENESIS, RawRow
from chimera.treasury.ledger import MAX_BATCH, Head, Ledger
from chimera.treasury.types import Balance, CapUse

TRIES = 50
"""How often balances and caps are asked for while others write."""

LOOKS = 3
"""How often something has to be wrong with them: a spend that leaves its window just then is no fault."""


class LedgerAudit(LedgerReport):
    """What an audit came to. Unless `compared`, others wrote all the time: all rows were looked at, but no sums."""

    compared: bool


async def audit_ledger(
    ledger: Ledger, *, verify: Verify | None = None, anchors: Sequence[HeadAnchor] = (), clock: Clock | None = None
) -> LedgerAudit:
    """Every row that is there when it begins, and those that come while it runs, against the rules and all `anchors`.

    Anchors are taken as they are: `anchors.read_anchors` has checked who signed them. `clock` is the database's own,
    as nearly as it can be had. Raises what the ledger raises.
    """
    reader = _Reader(ledger, verify, anchors)
    clock = clock or SystemClock()
    looks = 0
    findings: list[Finding] = []
    for _ in range(TRIES):
        found = await reader.moment()
        if found is None:
            continue
        looks += 1
        findings = reader.compare(*found, at=round(clock.now() * 1_000_000))
        if not findings or looks == LOOKS or reader.is_full:
            break
    return reader.report(findings, compared=looks > 0)


class _Reader:
    """The rows so far, and what was found in them. What comparisons find is kept apart: the next one may not."""

    def __init__(self, ledger: Ledger, verify: Verify | None, anchors: Sequence[HeadAnchor]) -> None:
        self._ledger = ledger
        last = max(anchors, key=lambda each: each.seq, default=None)
        self._last = Head(seq=last.seq, hash=last.hash) if last else None
        self._auditor = Auditor(anchor=self._last, verify=verify)
        self._kept: dict[int, set[str]] = {0: {GENESIS}}
        for each in anchors:
            self._kept.setdefault(each.seq, set()).add(each.hash)
        self._accounts: list[str] = []
        self._end = 0
        self._in_rows: list[Finding] = []
        self._seen = 0
        self._check(0, GENESIS)

    @property
    def is_full(self) -> bool:
        """Nothing that is found from now on would be listed."""
        return self._seen >= MAX_FINDINGS

    async def moment(self) -> tuple[list[Balance], list[CapUse], Head, bool] | None:
        """All that the database says at one moment, and whether rows go on after its head; None if it moved."""
        head = await self._ledger.head()
        await self._read_to(head.seq)
        balances: list[Balance] = []
        for account in self._accounts:
            with suppress(NotThere):  # what compares it says so
                balances.append(await self._ledger.balance(account))
        caps = await self._ledger.caps()
        goes_on = bool(await self._ledger.rows(after=head.seq, limit=1))
        return (balances, caps, head, goes_on) if await self._ledger.head() == head else None

    def compare(
        self, balances: list[Balance], caps: list[CapUse], head: Head, goes_on: bool, *, at: int
    ) -> list[Finding]:
        """What is wrong with it."""
        self._auditor.compare(balances, caps, at=at, head=head)
        found = self._news()
        if goes_on:
            what = f"rows go on after {head.seq}, where the database says that they end"
            found.append(Finding(seq=head.seq + 1, what=what))
        return found

    def report(self, in_sums: Sequence[Finding], *, compared: bool) -> LedgerAudit:
        told = self._auditor.report()
        if not compared and self._last is not None and self._last.seq > told.head.seq:
            what = f"rows {told.head.seq + 1} to {self._last.seq} are missing: the end was kept outside"
            in_sums = [*in_sums, Finding(seq=0, what=what)]
        findings = (*self._in_rows, *in_sums)[:MAX_FINDINGS]
        return LedgerAudit(rows=told.rows, head=told.head, findings=findings, compared=compared)

    async def _read_to(self, seq: int) -> None:
        while self._end < seq:
            page = await self._ledger.rows(after=self._end, limit=MAX_BATCH)
            for row in page:
                self._take(row)
            self._in_rows += self._news()
            if not page:
                break
            self._end = page[-1][0]

    def _take(self, row: RawRow) -> None:
        seq, table, told, found = row
        self._auditor.take(row)
        self._check(seq, found)
        if table == "account":
            self._accounts.append(str(told.get("id", "")))

    def _check(self, seq: int, found: str) -> None:
        """Against the anchors but the last, which the auditor looks at."""
        for kept in self._kept.get(seq, set()) - {found}:
            if self._last != Head(seq=seq, hash=kept):
                what = f"row {seq} is not the one whose hash was kept outside: the rows were written anew"
                self._in_rows.append(Finding(seq=seq, what=what))

    def _news(self) -> list[Finding]:
        """What the auditor has found since it was asked last."""
        findings = self._auditor.report().findings
        new, self._seen = list(findings[self._seen :]), len(findings)
        return new
