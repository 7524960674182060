"""The circuit breaker: it says when all spending has to stop, until a person starts it again (pure).

It reads the ledger's rows in their order, and is told of anomalies. Caps bound what is spent; the breaker stops what
goes wrong long before the caps are reached, and stops what caps do not see, as a row of refusals.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import Field

from chimera.core.types import Frozen, Share
from chimera.treasury.rows import AnyRow, Switch
from chimera.treasury.types import (
    DAY_US,
    MAX_AMOUNT,
    NANO,
    Account,
    AccountKind,
    CfoDecision,
    Currency,
    PaymentRequest,
    Transfer,
    TransferKind,
    shown,
)

_T = TypeVar("_T")

Count = Annotated[int, Field(ge=1, le=10_000)]

OPEN = 100_000
"""Requests and accounts that are remembered. A transfer of one that is forgotten counts in every currency."""

SPENDS = 10_000
"""Spends of one window that are remembered. One more, and it is too fast."""


class BreakerLimits(Frozen):
    """How much is too much within `window_us` (microseconds).

    `spend`: by currency, in billionths, from our funds to the outside. `refused`: requests that the CFO
    refused, for whatever reason. `risky`: requests that it found a risk of `risk_at` or more in. `anomalies`: events
    whose score is `anomaly_at` or more; one at `alarm_at` is enough alone.
    """

    window_us: Annotated[int, Field(ge=1_000_000, le=7 * DAY_US)] = DAY_US // 24
    spend: Mapping[Currency, Annotated[int, Field(gt=0, le=MAX_AMOUNT)]] = Field(
        default_factory=lambda: {"USD": 500 * NANO}, max_length=100
    )
    refused: Count = 50
    risky: Count = 10
    risk_at: Share = 0.8
    anomalies: Count = 3
    anomaly_at: Share = 0.9
    alarm_at: Share = 0.99


class Breaker:
    """Says why all spending has to stop, at each row and event until it reads in the ledger that it is stopped.

    So a stop that could not be written is asked for again. When a person has started spending again, it counts anew.
    `at` is the ledger's time in microseconds; one that goes back counts as the latest so far.
    """

    def __init__(self, limits: BreakerLimits) -> None:
        self.limits = limits
        self._kinds: OrderedDict[str, AccountKind] = OrderedDict()
        self._requests: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._at = 0
        self._stopped = False
        self._begin()

    def take(self, row: AnyRow, at: int) -> str | None:
        """A row that is in the ledger since `at`: why all spending has to stop, or None."""
        self._at = max(self._at, at)
        match row:
            case Account():
                _remember(self._kinds, row.id, row.kind)
            case PaymentRequest():
                _remember(self._requests, row.id, (row.currency, self._is_spend(row)))
            case CfoDecision():
                self._decided(row)
            case Transfer() if row.kind in (TransferKind.PENDING, TransferKind.POSTED):
                self._spent(row)
            case Switch():
                self._stopped = row.action == "stop"
                if not self._stopped:
                    self._begin()
            case _:
                pass
        return self.why

    def anomaly(self, metric: str, score: float, at: int) -> str | None:
        """An anomaly of a metric, with its score from 0 to 1: why all spending has to stop, or None."""
        self._at = max(self._at, at)
        if score >= self.limits.alarm_at:
            self._trip(f"{metric:.100} is out of order: its score is {score:.3f}")
        elif score >= self.limits.anomaly_at and self._many(self._anomalies, self.limits.anomalies, ""):
            self._trip(f"{len(self._anomalies)} anomalies within {self._window}, the last of {metric:.100}")
        return self.why

    @property
    def why(self) -> str | None:
        """What it says at this moment."""
        return None if self._stopped else self._why

    def _begin(self) -> None:
        self._why: str | None = None
        self._spends: dict[str, deque[tuple[int, int]]] = {}
        self._sums: dict[str, int] = {}
        self._refused: deque[tuple[int, str]] = deque()
        self._risky: deque[tuple[int, str]] = deque()
        self._anomalies: deque[tuple[int, str]] = deque()

    def _trip(self, why: str) -> None:
        self._why = self._why or why

    def _decided(self, decision: CfoDecision) -> None:
        if decision.verdict == "refused" and self._many(self._refused, self.limits.refused, decision.request_id):
            self._trip(f"{len(self._refused)} requests were refused within {self._window}")
        risky = decision.risk >= self.limits.risk_at
        if risky and self._many(self._risky, self.limits.risky, decision.request_id):
            self._trip(f"{len(self._risky)} requests of a risk of {self.limits.risk_at} or more within {self._window}")

    def _spent(self, transfer: Transfer) -> None:
        currency, is_spend = self._requests.pop(transfer.request_id, ("", True))
        if not is_spend:
            return
        for each in [currency] if currency else list(self.limits.spend):
            if each in self.limits.spend:
                self._add(each, transfer.amount)

    def _add(self, currency: str, amount: int) -> None:
        spends = self._spends.setdefault(currency, deque())
        while spends and spends[0][0] <= self._at - self.limits.window_us:
            self._sums[currency] -= spends.popleft()[1]
        if len(spends) == SPENDS:
            return self._trip(f"more than {SPENDS} spends within {self._window}")
        spends.append((self._at, amount))
        self._sums[currency] = self._sums.get(currency, 0) + amount
        limit = self.limits.spend[currency]
        if self._sums[currency] > limit:
            told = f"{shown(self._sums[currency], currency)} within {self._window}"
            self._trip(f"{told}: more than {shown(limit, currency)}")
        return None

    def _many(self, events: deque[tuple[int, str]], limit: int, name: str) -> bool:
        """One more of these, now: whether they are as many as the limit. What has a name is counted once."""
        while events and events[0][0] <= self._at - self.limits.window_us:
            events.popleft()
        if len(events) < limit and (not name or all(name != each for _, each in events)):
            events.append((self._at, name))
        return len(events) >= limit

    def _is_spend(self, request: PaymentRequest) -> bool:
        """From a fund to the outside, as far as one knows the accounts: one that is forgotten counts."""
        ours = self._kinds.get(request.debit, AccountKind.FUND) is AccountKind.FUND
        return ours and self._kinds.get(request.credit) is not AccountKind.FUND

    @property
    def _window(self) -> str:
        return f"{self.limits.window_us / 60_000_000:g} minutes"


def _remember(known: OrderedDict[str, _T], key: str, value: _T) -> None:
    known[key] = value
    if len(known) > OPEN:
        known.popitem(last=False)
