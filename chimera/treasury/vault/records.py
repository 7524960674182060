"""What the ledger's rows come to, for whoever has to judge: read once from the first on, and then only what is new.

Each row is checked to follow the one before, so one that was changed, removed or slipped in is noticed before anything
more is signed.
"""

from __future__ import annotations

import asyncio

from chimera.core.errors import LedgerError
from chimera.treasury.breaker import Breaker, BreakerLimits
from chimera.treasury.chain import GENESIS, broken
from chimera.treasury.docket import Case, Docket
from chimera.treasury.history import History
from chimera.treasury.ledger import MAX_BATCH, Ledger
from chimera.treasury.policy import Policy, asks_above, judge
from chimera.treasury.risk import assess
from chimera.treasury.rows import parse
from chimera.treasury.types import Approval, CfoDecision, Factor, PaymentRequest, Rules
from chimera.treasury.vault.decide import Opinion

MAX_CASES = 50_000
"""Open requests that are kept at hand; older ones are read from the ledger when they are asked for."""
SWEEP_US = 60_000_000

STRANGERS = Factor(
    name="strangers",
    value=1.0,
    weight=1.0,
    why="neither account is a fund of ours: what others pay each other is theirs",
)
"""It would count towards no cap, and need nobody, whatever the accounts are called."""


class LedgerRecords:
    """`ledger`'s rows, as history, open cases and breaker see them. Implements `decide.Records`."""

    def __init__(self, *, ledger: Ledger, policy: Policy, limits: BreakerLimits) -> None:
        self._ledger = ledger
        self._policy = policy
        self._history = History()
        self._docket = Docket()
        self._breaker = Breaker(limits)
        self._last = (0, GENESIS)
        self._at = self._swept_at = 0
        self._following = asyncio.Lock()

    @property
    def alarm(self) -> str | None:
        """Why all spending has to stop, as long as it has not been stopped."""
        return self._breaker.why

    async def follow(self) -> int:
        async with self._following:
            while rows := await self._ledger.rows(self._last[0], MAX_BATCH):
                if fault := broken(rows, after=self._last):
                    raise LedgerError(f"nothing is signed any more: audit the ledger: {fault}")
                for seq, table, told, found in rows:
                    self._take(table, told)
                    self._last = (seq, found)
                if len(rows) < MAX_BATCH:
                    break
            if self._at - self._swept_at >= SWEEP_US:
                self._docket.sweep(self._at)
                self._swept_at = self._at
        return self._at

    async def case(self, request_id: str) -> Case | None:
        if (known := self._docket.cases.get(request_id)) is not None:
            return known
        request = await self._ledger.request(request_id)
        if request is None:
            return None
        case = Case(request)
        for word in await self._ledger.decisions(request_id):
            if isinstance(word, CfoDecision):
                case.decision = word
            elif isinstance(word, Approval):
                case.approvals[word.approver] = word
        transfers = await self._ledger.transfers(request_id)
        case.transfer = transfers[-1] if transfers else None
        return case

    def rules(self, currency: str) -> Rules | None:
        return self._docket.rules.get(currency)

    def judge(self, request: PaymentRequest, at: int) -> Opinion:
        """By risk and policy; the ledger's own limit besides, whatever these say."""
        rules = self._docket.rules[request.currency]
        found = assess(request, self._history, at=at)
        limit = asks_above(self._history.flow(request), rules)
        if not self._docket.ours(request):
            return Opinion("refused", found.risk, (STRANGERS, *found.factors), limit)
        return Opinion(judge(request, found, rules=rules, policy=self._policy), found.risk, found.factors, limit)

    def _take(self, table: str, told: dict[str, str | int]) -> None:
        try:
            row, at = parse(table, told), int(told["at"])
        except ValueError as error:
            raise LedgerError(f"nothing is signed any more: audit the ledger: {error}") from None
        self._history.take(row, at)
        self._breaker.take(row, at)
        self._docket.take(row)
        self._at = at
        if len(self._docket.cases) > MAX_CASES:
            del self._docket.cases[next(iter(self._docket.cases))]
