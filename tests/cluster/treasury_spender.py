"""Spenders who pay through the CFO actor while parts of the treasury are killed, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from chimera.actors import cluster
from chimera.actors.expenses import CfoPayments
from chimera.actors.ledger import LEDGER, ActorLedger
from chimera.core.errors import ChimeraError, InputError
from chimera.treasury.payment import PaymentState
from chimera.treasury.types import PaymentRequest, Written

PATIENCE_S = 120.0
"""Nobody waits longer for one answer; one who would is counted as one who waits for ever."""
MOST = 500
"""Payments of one spender."""
TRIES = 60
PAUSE_S = 0.25
HOUR_US = 3_600_000_000


@dataclass
class Told:
    """What spenders know of their payments, by request: amounts in billionths. `faults` is what must not be."""

    filed: dict[str, int] = field(default_factory=dict)
    paid: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    repeats: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Told) -> None:
        for name in ("filed", "paid", "reserved", "settled"):
            getattr(self, name).update(getattr(other, name))
        self.errors += other.errors
        self.repeats += other.repeats
        self.faults += other.faults


class Spender:
    """Pays now a payee, now a model that is settled afterwards; asks for some twice, and files some and looks away."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.told = Told()
        self._chance = random.Random(f"{seed} {name}")
        self._payments = CfoPayments()

    async def run(self, until_s: float) -> Told:
        for number in range(MOST):
            if time.time() > until_s:
                break
            await self._one(f"{self.name}-{number}")
        return self.told

    async def _one(self, request_id: str) -> None:
        metered = self._chance.random() < 0.4
        request = self._request(request_id, "model" if metered else "acme")
        self.told.filed[request_id] = request.amount
        if not metered and self._chance.random() < 0.15:
            await self._file(request)
            return
        await self._pay(request)
        if self._chance.random() < 0.2:
            self.told.repeats += 1
            await self._pay(request)
            await self._changed(request)
        if metered:
            await self._settle(request, self._chance.choice((0, request.amount, request.amount // 2)))

    def _request(self, request_id: str, payee: str) -> PaymentRequest:
        return PaymentRequest(
            id=request_id,
            debit="cash",
            credit=payee,
            amount=self._chance.randint(2, 1_000_000),
            category="tests",
            requester=self.name,
            expires_at=time.time_ns() // 1_000 + HOUR_US,
        )

    async def _pay(self, request: PaymentRequest) -> None:
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    found = await self._payments.pay(request)
            except ChimeraError:
                self.told.errors += 1
                await asyncio.sleep(PAUSE_S)
                continue
            except TimeoutError:
                self.told.faults.append(f"{request.id}: no answer within {PATIENCE_S} s")
                return
            match found.state:
                case PaymentState.PAID:
                    self.told.paid[request.id] = found.moved
                case PaymentState.RESERVED:
                    self.told.reserved[request.id] = found.request.amount
                case other:
                    self.told.faults.append(f"{request.id} is {other}: {found.why}")
            return
        self.told.faults.append(f"{request.id}: {TRIES} errors")

    async def _changed(self, request: PaymentRequest) -> None:
        """The same id with another amount is no payment."""
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._payments.pay(request.model_copy(update={"amount": request.amount + 1}))
            except InputError:
                return
            except ChimeraError:
                self.told.errors += 1
                await asyncio.sleep(PAUSE_S)
            else:
                break
        self.told.faults.append(f"{request.id} with another amount was not refused")

    async def _settle(self, request: PaymentRequest, amount: int) -> None:
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    outcome = await self._payments.settle(request.id, amount)
            except ChimeraError:
                self.told.errors += 1
                await asyncio.sleep(PAUSE_S)
                continue
            if isinstance(outcome, Written):
                self.told.settled[request.id] = amount
            else:
                self.told.faults.append(f"{request.id} cannot be settled: {outcome.detail}")
            return
        self.told.faults.append(f"{request.id} is not settled after {TRIES} errors")

    async def _file(self, request: PaymentRequest) -> None:
        """Nobody waits for this one."""
        for _ in range(TRIES):
            try:
                [outcome] = await ActorLedger(cluster.find(LEDGER)).write([request])
            except ChimeraError:
                self.told.errors += 1
                await asyncio.sleep(PAUSE_S)
                continue
            if not isinstance(outcome, Written):
                self.told.faults.append(f"{request.id} cannot be filed: {outcome.detail}")
            return
        self.told.faults.append(f"{request.id} is not filed after {TRIES} errors")


async def spend(name: str, seed: int, spenders: int, until_s: float) -> Told:
    """What so many spenders in this process were told, who pay one thing after the other until that time."""
    told = Told()
    for each in await asyncio.gather(*(Spender(f"{name}-{i}", seed).run(until_s) for i in range(spenders))):
        told.add(each)
    return told


class SpenderActor:
    """Spenders in a process of the cluster's."""

    async def spend(self, name: str, seed: int, spenders: int, until_s: float) -> Told:
        """See `spend`."""
        return await spend(name, seed, spenders, until_s)
