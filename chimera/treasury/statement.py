"""A month of the treasury (UTC): what each account had and has, what was spent on what, and how near the caps came.

A statement follows from the ledger's raw rows alone, which are read once, from the first on; whether they are what was
written is for an audit to say.

What is held: every account; requests until they are carried out or expire; what is set aside; the spends of the last 31
days, 32 bytes each; and a sum for each payee, mission and requester. So it is the month's names that take memory, and
not its transfers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heapify, heappop, heappush

from chimera.core.errors import InputError, LedgerError
from chimera.treasury.chain import RawRow
from chimera.treasury.ledger import MAX_BATCH, Ledger
from chimera.treasury.periods import EPOCH
from chimera.treasury.rows import AnyRow, parse
from chimera.treasury.statement_caps import CapUses, Place
from chimera.treasury.statement_lines import (
    MAX_LISTED,
    MAX_REFUSALS,
    MAX_TOTALS,
    OTHERS,
    AccountLine,
    DaySpend,
    MissionCost,
    MissionOutcome,
    PostedTransfer,
    RefusalLine,
    Statement,
    Sums,
    month_bounds,
    totals,
)
from chimera.treasury.types import (
    DAY_US,
    Account,
    AccountKind,
    Approval,
    Cap,
    CfoDecision,
    PaymentRequest,
    Transfer,
    TransferKind,
)

KINDS = ("category", "payee", "mission", "requester")
"""What spending is summed by."""

TIDY_FROM = 1_000
"""Ends of requests that are held without asking whether they have come already."""

DAY_CATEGORIES = 20
"""Categories that a day is split into; the rest is `OTHERS`."""


def statement(
    rows: Iterable[RawRow], *, month: str, at: int, outcomes: Mapping[str, MissionOutcome] | None = None
) -> Statement:
    """Of the ledger's rows from the first on: the statement of `month` ("2026-11") as it was at the moment `at`.

    Raises InputError for what is no month, one that has not begun, or more than `MAX_LISTED` transfers; LedgerError
    where the rows are not those of a ledger, or do not add up.
    """
    fold = StatementFold(month=month, at=at, outcomes=outcomes)
    listed = _Listed()
    for row in rows:
        if fold.is_past(row):
            break
        if (posted := fold.take(row)) is not None:
            listed.add(posted)
    return fold.finish(listed.transfers)


async def read_statement(
    ledger: Ledger,
    *,
    month: str,
    at: int,
    outcomes: Mapping[str, MissionOutcome] | None = None,
    each: Callable[[PostedTransfer], object] | None = None,
) -> Statement:
    """`statement` of a ledger, read in parts. With `each` transfers are given to it, any number, and not held.

    Raises what `statement` and the ledger raise.
    """
    fold = StatementFold(month=month, at=at, outcomes=outcomes)
    listed = _Listed()
    take = each or listed.add
    last = 0
    while page := await ledger.rows(after=last, limit=MAX_BATCH):
        for row in page:
            if fold.is_past(row):
                return fold.finish(listed.transfers)
            if (posted := fold.take(row)) is not None:
                take(posted)
        last = page[-1][0]
    return fold.finish(listed.transfers)


@dataclass(slots=True)
class Purse:
    """An account so far."""

    kind: AccountKind
    currency: str
    opening: int = 0
    moved_in: int = 0
    moved_out: int = 0
    closing: int = 0
    pending_out: int = 0


@dataclass(slots=True)
class Asked:
    """A request that may still be carried out, or is being: `amount` is set aside since `place` is known."""

    request: PaymentRequest
    risk: float | None = None
    approvals: list[Approval] = field(default_factory=list)
    approvers: tuple[str, ...] = ()
    place: Place = ()
    is_open: bool = False
    expires_at: int = 0

    @property
    def end(self) -> int:
        """When it ends by itself; 0 for never."""
        return self.expires_at if self.is_open else self.request.expires_at


class StatementFold:
    """`take` each row, the first first, until one `is_past`; then `finish`. Raises InputError for a wrong month."""

    def __init__(self, *, month: str, at: int, outcomes: Mapping[str, MissionOutcome] | None = None) -> None:
        self.since, end = month_bounds(month)
        self.until = min(end, at + 1)
        if self.until <= self.since:
            raise InputError(f"{month} has not begun: ask for this month, or one before it")
        self._month = month
        self._outcomes = dict(outcomes or {})
        self._seq = 0
        self._purses: dict[str, Purse] = {}
        self._asked: dict[str, Asked] = {}
        self._ends: list[tuple[int, str]] = []
        self._caps = CapUses(self.since, self.until)
        self._sums: dict[str, Sums] = {kind: {} for kind in KINDS}
        self._days: defaultdict[tuple[int, str], dict[str, int]] = defaultdict(dict)
        self._refusals: list[RefusalLine] = []
        self._refused = self._posted = 0

    def is_past(self, row: RawRow) -> bool:
        """Whether the statement ends before this row."""
        return _time(row) >= self.until

    def take(self, row: RawRow) -> PostedTransfer | None:
        """The next row; what it posted in the month, if it did. Raises LedgerError for one that cannot follow."""
        seq, table, told, _ = row
        if seq != self._seq + 1:
            raise LedgerError(f"row {self._seq + 1} is missing, row {seq} comes next: a statement needs all rows")
        self._seq = seq
        at = _time(row)
        self._go_on(at)
        try:
            return self._add(parse(table, told), at)
        except (KeyError, ValueError) as error:
            raise LedgerError(f"row {seq} ({table:.20}) does not belong to a ledger; audit it: {error}") from None

    def finish(self, transfers: Sequence[PostedTransfer] = ()) -> Statement:
        """The statement, with these transfers listed. Raises LedgerError where the sums do not hold."""
        self._go_on(self.until - 1)
        self._reconcile()
        return Statement(
            month=self._month,
            since=self.since,
            until=self.until,
            transfer_count=self._posted,
            refusal_count=self._refused,
            accounts=tuple(_account_line(name, purse) for name, purse in sorted(self._purses.items())),
            by_category=totals(self._sums["category"]),
            by_payee=totals(self._sums["payee"]),
            by_mission=totals(self._sums["mission"]),
            by_requester=totals(self._sums["requester"]),
            caps=self._caps.lines(),
            missions=self._missions(),
            days=tuple(self._day(*key) for key in sorted(self._days)),
            refusals=tuple(self._refusals),
            transfers=tuple(transfers),
        )

    def _go_on(self, at: int) -> None:
        """Time passes: what was set aside ends, requests expire, days of the month begin, each in its turn."""
        while min(self._caps.next_day, self._ends[0][0] if self._ends else self._caps.next_day) <= at:
            if self._ends and self._ends[0][0] <= self._caps.next_day:
                moment, request_id = heappop(self._ends)
                self._expire(request_id, moment)
            else:
                self._caps.begin_day()

    def _await_end(self, at: int, request_id: str) -> None:
        heappush(self._ends, (at, request_id))
        if len(self._ends) > 2 * len(self._asked) + TIDY_FROM:
            self._ends = [(end, name) for name, each in self._asked.items() if (end := each.end)]
            heapify(self._ends)

    def _expire(self, request_id: str, moment: int) -> None:
        asked = self._asked.get(request_id)
        if asked is None or asked.end != moment:
            return
        if asked.is_open:
            self._close(asked, 0)
        else:
            del self._asked[request_id]

    def _add(self, row: AnyRow, at: int) -> PostedTransfer | None:
        match row:
            case Account():
                self._purses[row.id] = Purse(row.kind, row.currency)
            case PaymentRequest():
                self._asked[row.id] = Asked(row)
                self._await_end(row.expires_at, row.id)
            case CfoDecision() | Approval():
                self._hear(row, at)
            case Transfer():
                return self._transfer(row, at)
            case Cap():
                self._caps.set(row, at)
        return None

    def _hear(self, word: CfoDecision | Approval, at: int) -> None:
        asked = self._asked.get(word.request_id)
        if asked is None:
            return  # it has expired: nothing that is said of it matters any more
        if isinstance(word, CfoDecision):
            asked.risk = word.risk
        else:
            asked.approvals.append(word)
        if word.verdict == "refused" and at >= self.since:
            self._refused += 1
            if self._refused <= MAX_REFUSALS:
                self._refusals.append(
                    RefusalLine(
                        at=at,
                        request_id=word.request_id,
                        payee=asked.request.credit,
                        amount=asked.request.amount,
                        currency=asked.request.currency,
                        by=word.approver if isinstance(word, Approval) else "cfo",
                        risk=None if isinstance(word, Approval) else word.risk,
                    )
                )

    def _transfer(self, row: Transfer, at: int) -> PostedTransfer | None:
        asked = self._asked[row.request_id]
        if row.kind in (TransferKind.PENDING, TransferKind.POSTED):
            self._begin(asked, row, at)
        if not asked.is_open:
            raise ValueError(f"nothing is set aside for {row.request_id}")
        if row.amount > asked.request.amount:
            raise ValueError(f"{row.amount} is more than was asked for")
        if row.kind is TransferKind.PENDING:
            return None
        self._close(asked, row.amount)
        return self._move(asked, row, at) if row.kind is not TransferKind.VOID else None

    def _begin(self, asked: Asked, row: Transfer, at: int) -> None:
        request = asked.request
        if asked.is_open:
            raise ValueError(f"{request.id} has begun already")
        asked.is_open, asked.expires_at = True, row.expires_at
        if row.expires_at:
            self._await_end(row.expires_at, request.id)
        held = (each for each in asked.approvals if each.verdict == "approved" and each.expires_at > at)
        asked.approvers = tuple(sorted(each.approver for each in held))
        asked.approvals.clear()
        self._purses[request.debit].pending_out += request.amount
        if self._is_spend(request):
            asked.place = self._caps.spend(request.debit, request.currency, request.amount, at)

    def _close(self, asked: Asked, posted: int) -> None:
        """What was set aside ends; what of it is not posted counts no more."""
        del self._asked[asked.request.id]
        self._purses[asked.request.debit].pending_out -= asked.request.amount
        self._caps.release(asked.place, asked.request.amount - posted)

    def _move(self, asked: Asked, row: Transfer, at: int) -> PostedTransfer | None:
        request, amount = asked.request, row.amount
        debit, credit = self._purses[request.debit], self._purses[request.credit]
        debit.closing -= amount
        credit.closing += amount
        if at < self.since:
            debit.opening -= amount
            credit.opening += amount
            return None
        debit.moved_out += amount
        credit.moved_in += amount
        self._posted += 1
        if self._is_spend(request):
            self._count(request, amount, at)
        return PostedTransfer(
            at=at,
            id=row.id,
            request_id=request.id,
            debit=request.debit,
            payee=request.credit,
            amount=amount,
            currency=request.currency,
            category=request.category,
            mission=request.mission,
            requester=request.requester,
            reason=request.reason,
            approvers=asked.approvers,
            risk=asked.risk,
        )

    def _count(self, request: PaymentRequest, amount: int, at: int) -> None:
        names = (request.category, request.credit, request.mission, request.requester)
        for sums, name in zip(self._sums.values(), names, strict=True):
            if name:
                total, transfers = sums.get((name, request.currency), (0, 0))
                sums[name, request.currency] = (total + amount, transfers + 1)
        day = self._days[(at - self.since) // DAY_US, request.currency]
        category = request.category if request.category in day or len(day) < DAY_CATEGORIES else OTHERS
        day[category] = day.get(category, 0) + amount

    def _is_spend(self, request: PaymentRequest) -> bool:
        debit, credit = self._purses[request.debit], self._purses[request.credit]
        return debit.kind is AccountKind.FUND and credit.kind is not AccountKind.FUND

    def _reconcile(self) -> None:
        sums: defaultdict[str, int] = defaultdict(int)
        for name, purse in self._purses.items():
            sums[purse.currency] += purse.closing
            if purse.opening + purse.moved_in - purse.moved_out != purse.closing:
                raise LedgerError(f"the account {name} does not add up: audit the ledger")
        for currency, total in sums.items():
            if total:
                raise LedgerError(f"all accounts in {currency} come to {total}, and not to zero: audit the ledger")

    def _missions(self) -> tuple[MissionCost, ...]:
        spent = self._sums["mission"]
        keys = {*spent, *((name, outcome.currency) for name, outcome in self._outcomes.items())}
        largest = sorted(keys, key=lambda key: (-spent.get(key, (0, 0))[0], key))
        return tuple(
            MissionCost.of(*key, spent.get(key, (0, 0))[0], self._outcomes.get(key[0])) for key in largest[:MAX_TOTALS]
        )

    def _day(self, day: int, currency: str) -> DaySpend:
        date = (EPOCH + timedelta(microseconds=self.since + day * DAY_US)).date()
        return DaySpend(day=date.isoformat(), currency=currency, by_category=self._days[day, currency])


def _time(row: RawRow) -> int:
    try:
        return int(row[2]["at"])
    except (KeyError, ValueError):
        raise LedgerError(f"row {row[0]} has no time: audit the ledger") from None


def _account_line(name: str, purse: Purse) -> AccountLine:
    return AccountLine(
        account=name,
        kind=purse.kind,
        currency=purse.currency,
        opening=purse.opening,
        moved_in=purse.moved_in,
        moved_out=purse.moved_out,
        closing=purse.closing,
        pending_out=purse.pending_out,
    )


class _Listed:
    """The transfers that a statement holds."""

    def __init__(self) -> None:
        self.transfers: list[PostedTransfer] = []

    def add(self, posted: PostedTransfer) -> None:
        if len(self.transfers) >= MAX_LISTED:
            raise InputError(f"the month has more than {MAX_LISTED:,} transfers: write them as CSV, which has no limit")
        self.transfers.append(posted)
