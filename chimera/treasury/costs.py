"""What missions spend on models, in the ledger: set aside before the first call, posted when the mission has ended.

A mission with a budget in USD has a reservation of its own, over all of it. The others share reservations of
`chunk_usd`, with `grant_usd` each: so a thousand tasks a second are a few transfers, and still none of them is made
before the ledger has set its money aside. Within a mission the swarm's own purse is the hard limit.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from chimera.core.clock import Clock
from chimera.core.errors import BudgetExceeded, ChimeraError, InputError
from chimera.treasury.payment import Payment, PaymentState, entry_id
from chimera.treasury.types import NANO, Account, AccountKind, Outcome, PaymentRequest, Refused, shown

log = logging.getLogger(__name__)

MODELS = "models"
"""The metered account that stands for those who are paid for models and compute."""

LATE_S = 3_600.0
"""How long after its mission's deadline a reservation still holds."""

ROLL_S = 60.0
"""After this long a shared reservation is posted, and the next one begins."""

SETTLE_TRIES = 5
PAUSE_S = 1.0


class Payments(Protocol):
    """The CFO's desk, wherever it is."""

    async def account(self, account_id: str) -> Account | None: ...

    async def pay(self, request: PaymentRequest) -> Payment: ...

    async def payment(self, request_id: str) -> Payment: ...

    async def settle(self, request_id: str, amount: int) -> Outcome: ...

    async def reserved(self, prefix: str) -> Sequence[PaymentRequest]: ...


Spent = Callable[[str], Awaitable[float | None]]
"""What a mission that has ended has spent, in USD; None for one that has not, or that nobody knows."""


async def _not_known(mission_id: str) -> None:
    return None


@dataclass(eq=False)
class _Chunk:
    """A shared reservation. What its missions were granted and have not spent is free again when they end."""

    request: PaymentRequest
    began_s: float
    free: int
    spent: int = 0
    missions: set[str] = field(default_factory=set)
    over: bool = False


class MissionCosts:
    """`fund` pays, unless there is a fund `mission:ID` of the mission's own. One for each swarm."""

    def __init__(
        self,
        *,
        payments: Payments,
        swarm: str,
        fund: str,
        clock: Clock,
        chunk_usd: float = 1.0,
        grant_usd: float = 0.05,
    ) -> None:
        if not 0 < grant_usd <= chunk_usd:
            raise InputError(f"a mission's share of {grant_usd} USD has to be within a reservation of {chunk_usd} USD")
        self.grant_usd = grant_usd
        self._payments = payments
        self._prefix = f"costs/{swarm}"[:48] + "/"
        self._fund = fund
        self._clock = clock
        self._chunk, self._grant = round(chunk_usd * NANO), round(grant_usd * NANO)
        self._life = secrets.token_hex(4)
        self._made = 0
        self._chunks: list[_Chunk] = []
        self._shared: dict[str, _Chunk] = {}
        self._own: dict[str, PaymentRequest] = {}
        self._turn = asyncio.Lock()
        self._settling: set[asyncio.Task[None]] = set()

    async def begin(self, spent_usd: Spent = _not_known) -> None:
        """Post what an earlier life of this swarm has left set aside.

        Of what was shared it is not known who spent it, and it counts as spent. A mission's own is posted if the
        mission has ended by now, which `spent_usd` tells; else it goes on (`resume`), or is let go when it expires.
        """
        for request in await self._payments.reserved(self._prefix):
            if not request.mission:
                await self._payments.settle(request.id, request.amount)
            elif (spent := await spent_usd(request.mission)) is not None:
                await self._payments.settle(request.id, min(round(spent * NANO), request.amount))

    async def reserve(self, mission_id: str, usd: float | None, deadline_s: float) -> None:
        """Set aside the mission's budget, or its share of a common one. Again, it is the same.

        Raises BudgetExceeded where the ledger refuses (its caps, its fund, its CFO, a person who has to be asked), and
        what the ledger raises.
        """
        if mission_id in self._own or mission_id in self._shared or usd == 0:
            return
        if usd is None:
            await self._share(mission_id)
            return
        fund = f"mission:{mission_id}"[:96]
        if not _is_fund(await self._payments.account(fund)):  # whoever may make accounts gives them any name
            fund = self._fund
        request = self._request(self._name(mission_id), mission_id, round(usd * NANO), deadline_s, fund)
        self._own[mission_id] = await self._pay(request)

    async def resume(self, mission_id: str) -> None:
        """A mission that goes on after a crash has what it had, or a share again. Raises as `reserve`."""
        try:
            found = await self._payments.payment(self._name(mission_id))
        except InputError:
            found = None
        if found is not None and found.state is PaymentState.RESERVED:
            self._own[mission_id] = found.request
        else:
            await self.reserve(mission_id, None, 0.0)

    def settle(self, mission_id: str, spent_usd: float) -> None:
        """The mission has ended, and has spent so much: posted soon, the rest is let go."""
        spent = round(spent_usd * NANO)
        if request := self._own.pop(mission_id, None):
            self._post(request, spent)
        elif chunk := self._shared.pop(mission_id, None):
            chunk.missions.discard(mission_id)
            spent = min(spent, self._grant)
            chunk.spent += spent
            chunk.free += self._grant - spent
            self._roll(chunk)

    async def close(self) -> None:
        """Post what shared reservations have spent so far; what is not settled by then waits for `begin`."""
        for chunk in list(self._chunks):
            chunk.over = True
            self._roll(chunk)
        await asyncio.gather(*self._settling, return_exceptions=True)

    def _name(self, mission_id: str) -> str:
        return entry_id(mission_id, self._prefix.rstrip("/"))

    async def _share(self, mission_id: str) -> None:
        async with self._turn:
            chunk = next((each for each in self._chunks if not each.over and each.free >= self._grant), None)
            chunk = chunk or await self._more()
            chunk.free -= self._grant
            chunk.missions.add(mission_id)
            self._shared[mission_id] = chunk

    async def _more(self) -> _Chunk:
        self._made += 1
        name = f"{self._prefix}shared/{self._life}-{self._made}"
        request = await self._pay(self._request(name, "", self._chunk, 86_400.0))
        chunk = _Chunk(request, self._clock.monotonic(), request.amount)
        self._chunks.append(chunk)
        asyncio.get_running_loop().call_later(ROLL_S + PAUSE_S, self._roll, chunk)
        return chunk

    def _roll(self, chunk: _Chunk) -> None:
        """Post a chunk that nobody draws on any more."""
        if self._clock.monotonic() - chunk.began_s > ROLL_S:
            chunk.over = True
        if (chunk.over or chunk.free < self._grant) and not chunk.missions and chunk in self._chunks:
            self._chunks.remove(chunk)
            self._post(chunk.request, chunk.spent)

    async def _pay(self, request: PaymentRequest) -> PaymentRequest:
        """The request that is reserved for it: this one, or that of an earlier try.

        Raises BudgetExceeded where there is none, also where somebody else has filed another under its id.
        """
        try:
            payment = await self._payments.pay(request)
        except InputError:
            payment = await self._payments.payment(request.id)  # of an earlier life, with another end
            if payment.request.model_copy(update={"expires_at": request.expires_at}) != request:
                raise BudgetExceeded(f"{request.id} is there, and another request: look who has filed it") from None
        if payment.state is not PaymentState.RESERVED:
            raise BudgetExceeded(
                f"the treasury does not set {shown(request.amount)} aside for {request.mission or 'missions'}:"
                f" {payment.why} (request {request.id})"
            )
        return payment.request

    def _request(self, name: str, mission_id: str, amount: int, deadline_s: float, fund: str = "") -> PaymentRequest:
        return PaymentRequest(
            id=name,
            debit=fund or self._fund,
            credit=MODELS,
            amount=amount,
            category="models",
            requester="coordinator",
            mission=mission_id,
            reason="models and compute of a mission" if mission_id else "models and compute of missions without budget",
            expires_at=int((self._clock.now() + deadline_s + LATE_S) * 1_000_000),
        )

    def _post(self, request: PaymentRequest, spent: int) -> None:
        task = asyncio.create_task(self._settle(request, min(spent, request.amount)))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, request: PaymentRequest, spent: int) -> None:
        for left in reversed(range(SETTLE_TRIES)):
            try:
                outcome = await self._payments.settle(request.id, spent)
                if isinstance(outcome, Refused):  # it ended otherwise: it expired, or somebody else has settled it
                    told = f"{request.id}: {shown(spent)} were spent and are not in the ledger: {outcome.detail}"
                    log.error("%s", told)
                return
            except ChimeraError as error:
                log.warning("%s is not settled yet: %s", request.id, error)
                if left:
                    await asyncio.sleep(PAUSE_S)


def _is_fund(account: Account | None) -> bool:
    """One in USD: what is paid from any other counts towards no cap of its currency."""
    return account is not None and account.kind is AccountKind.FUND and account.currency == "USD"
