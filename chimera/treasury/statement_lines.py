"""What stands in a statement (pure), and its transfers as CSV.

"Spent" is what went from a fund to the outside and was posted. Amounts are billionths, times microseconds UTC.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import Field

from chimera.core.errors import InputError
from chimera.core.types import Frozen, Share
from chimera.treasury.periods import EPOCH
from chimera.treasury.types import NANO, AccountKind, Cap, Currency

MAX_LISTED = 100_000
"""Transfers in one statement; more go into a CSV file, which is written as they are read."""

MAX_REFUSALS = 1_000
"""Refusals that are listed; all are counted."""

MAX_TOTALS = 1_000
"""Names in one list of totals, the largest first; what is beyond them is summed under `OTHERS`."""

OTHERS = "(others)"

Sums = dict[tuple[str, str], tuple[int, int]]
"""By name and currency: the amount, and in how many transfers."""


class PostedTransfer(Frozen):
    """One posted transfer. `approvers` are the people whose word held when it began, `risk` the CFO's last score."""

    at: int
    id: str
    request_id: str
    debit: str
    payee: str
    amount: int
    currency: str
    category: str
    mission: str
    requester: str
    reason: str
    approvers: tuple[str, ...]
    risk: float | None


class AccountLine(Frozen):
    """An account over the month: `opening + moved_in - moved_out = closing`. `pending_out` is still set aside."""

    account: str
    kind: AccountKind
    currency: str
    opening: int
    moved_in: int
    moved_out: int
    closing: int
    pending_out: int


class Total(Frozen):
    """What was spent under one name, and in how many transfers."""

    name: str
    currency: str
    amount: int
    transfers: int


class CapLine(Frozen):
    """How much of a cap was used: at most (`highest`, first at `highest_at`), at the end (`now`), at most each day."""

    cap: Cap
    highest: int
    highest_at: int
    now: int
    by_day: tuple[int, ...]

    @property
    def highest_percent(self) -> float | None:
        """None where nothing is allowed at all."""
        return percent(self.highest, self.cap.limit)

    @property
    def now_percent(self) -> float | None:
        return percent(self.now, self.cap.limit)


class RefusalLine(Frozen):
    """A request that somebody refused: the CFO (`by` is "cfo", with the risk), or a person."""

    at: int
    request_id: str
    payee: str
    amount: int
    currency: str
    by: str
    risk: Share | None = None


class MissionOutcome(Frozen):
    """What the swarm's record says of a mission: tasks that were done, and what they were worth, if anybody said."""

    tasks_done: Annotated[int, Field(ge=0)]
    value: int | None = None
    currency: Currency = "USD"


class MissionCost(Frozen):
    """What a mission cost in the month, for each task, and the return on it: (value - cost) / cost; None if unknown."""

    mission: str
    currency: str
    cost: int
    tasks_done: int | None = None
    cost_per_task: int | None = None
    value: int | None = None
    roi: float | None = None

    @classmethod
    def of(cls, mission: str, currency: str, cost: int, outcome: MissionOutcome | None) -> MissionCost:
        """With what is known of its outcome, if that is in the same currency."""
        if outcome is None or outcome.currency != currency:
            return cls(mission=mission, currency=currency, cost=cost)
        tasks, value = outcome.tasks_done, outcome.value
        return cls(
            mission=mission,
            currency=currency,
            cost=cost,
            tasks_done=tasks,
            cost_per_task=(cost + tasks // 2) // tasks if tasks else None,
            value=value,
            roi=(value - cost) / cost if value is not None and cost else None,
        )


class DaySpend(Frozen):
    """What was spent on one day, by category."""

    day: str
    currency: str
    by_category: dict[str, int]


class Statement(Frozen):
    """From `since` to before `until`. `transfers` is empty where they were given out one by one."""

    month: str
    since: int
    until: int
    transfer_count: int
    refusal_count: int
    accounts: tuple[AccountLine, ...]
    by_category: tuple[Total, ...]
    by_payee: tuple[Total, ...]
    by_mission: tuple[Total, ...]
    by_requester: tuple[Total, ...]
    caps: tuple[CapLine, ...]
    missions: tuple[MissionCost, ...]
    days: tuple[DaySpend, ...]
    refusals: tuple[RefusalLine, ...]
    transfers: tuple[PostedTransfer, ...] = ()


CSV_COLUMNS = (
    *("time_utc", "id", "request", "debit", "payee", "amount", "currency", "category", "mission", "requester"),
    *("approvers", "risk", "reason"),
)
FORMULA_STARTS = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"
"""With one of these (the last four are their wide forms) a spreadsheet takes a cell for a formula, and runs it."""


def csv_head() -> str:
    """The first line of a CSV file of transfers."""
    return _csv(CSV_COLUMNS)


def csv_line(posted: PostedTransfer) -> str:
    """One transfer as a line of CSV (RFC 4180), with its end; no spreadsheet takes a cell of it for a formula."""
    whole, part = divmod(posted.amount, NANO)
    return _csv(
        (
            (EPOCH + timedelta(microseconds=posted.at)).isoformat(timespec="microseconds"),
            *(posted.id, posted.request_id, posted.debit, posted.payee),
            *(f"{whole}.{part:09d}", posted.currency, posted.category, posted.mission, posted.requester),
            *(" ".join(posted.approvers), "" if posted.risk is None else f"{posted.risk:.4f}", posted.reason),
        )
    )


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return f"'{cell}" if cell.lstrip(" ").startswith(tuple(FORMULA_STARTS)) else cell


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a month and of the one after it, UTC. Raises InputError."""
    try:
        if len(month) != len("2026-11"):
            raise ValueError
        since = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        until = (since + timedelta(days=32)).replace(day=1)
    except (ValueError, OverflowError):
        raise InputError(f"{month!r:.40} is no month: write it as 2026-11") from None
    if since < EPOCH:
        raise InputError(f"{month} is before 1970")
    return (since - EPOCH) // timedelta(microseconds=1), (until - EPOCH) // timedelta(microseconds=1)


def percent(used: int, limit: int) -> float | None:
    """`used` in % of `limit`; None where the limit is zero."""
    return round(100.0 * used / limit, 2) if limit else None


def _csv(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([harmless(cell) for cell in cells])
    return line.getvalue()


def totals(sums: Sums) -> tuple[Total, ...]:
    """The largest first, and what is beyond `MAX_TOTALS` in one line for each currency."""
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
    found = [
        Total(name=name, currency=currency, amount=amount, transfers=transfers)
        for (name, currency), (amount, transfers) in ordered[:MAX_TOTALS]
    ]
    rest: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (_, currency), (amount, transfers) in ordered[MAX_TOTALS:]:
        rest[currency] = (rest[currency][0] + amount, rest[currency][1] + transfers)
    others = (
        Total(name=OTHERS, currency=currency, amount=amount, transfers=transfers)
        for currency, (amount, transfers) in sorted(rest.items())
    )
    return (*found, *others)
