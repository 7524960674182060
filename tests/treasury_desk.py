"""A CFO's desk over a ledger of its own, in one process: with a signer that holds the tests' key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chimera.treasury.desk import Desk
from chimera.treasury.payment import Payment
from chimera.treasury.policy import Policy
from chimera.treasury.signer import Proposal
from chimera.treasury.types import Account, Outcome, PaymentRequest, RefusalReason, Refused
from tests.ledger_house import House, decision

CALM = Policy(ask_at=1.0, refuse_at=1.0)
"""Whatever the risk: only the ledger's own rules count."""


class HouseSigner:
    """Signs what it is told of requests that are in the ledger. The vault is the one that thinks for itself."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.asked: list[Proposal] = []

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        self.asked += proposals
        outcomes: list[Outcome] = []
        for proposal in proposals:
            request = await self._house.cfo.request(proposal.request_id)
            if request is None or request.digest() != proposal.request_digest:
                outcomes.append(Refused(id=proposal.request_id, reason=RefusalReason.UNKNOWN, detail="no such request"))
                continue
            word = decision(
                request, proposal.verdict, risk=proposal.risk, factors=proposal.factors, at=self._house.bench.at
            )
            outcomes += await self._house.cfo.write([word])
        return outcomes


class AtDesk:
    """What a cost keeper asks for, from a desk in the same process."""

    def __init__(self, house: House, desk: Desk) -> None:
        self.pay, self.payment, self.settle, self.reserved = desk.pay, desk.payment, desk.settle, desk.reserved
        self._house = house

    async def account(self, account_id: str) -> Account | None:
        return await self._house.app.account(account_id)


@asynccontextmanager
async def working(house: House, **options: Any) -> AsyncIterator[Desk]:
    """A desk at work."""
    clock = house.bench.clock  # type: ignore[attr-defined]
    told: dict[str, Any] = {"policy": CALM, **options}
    desk = Desk(ledger=house.app, signer=HouseSigner(house), clock=clock, **told)
    work = asyncio.create_task(desk.run())
    try:
        yield desk
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def paid(desk: Desk, request: PaymentRequest) -> Payment:
    return await asyncio.wait_for(desk.pay(request), 20)
