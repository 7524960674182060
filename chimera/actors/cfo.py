"""The CFO actor: without its word nothing is paid. It decides; who signs is another process, outside Ray.

All that it knows comes from the ledger: Ray starts one that died again, and it goes on with what is not finished.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chimera.actors import cluster
from chimera.actors.ledger import LEDGER, ActorLedger
from chimera.core.clock import SystemClock
from chimera.core.errors import LedgerUnavailable
from chimera.treasury.breaker import Breaker, BreakerLimits
from chimera.treasury.desk import Desk
from chimera.treasury.payment import Payment
from chimera.treasury.policy import Policy
from chimera.treasury.types import Account, Outcome, PaymentRequest

if TYPE_CHECKING:
    from chimera.treasury.evm.payer import EvmPayments
    from chimera.treasury.evm.rail import RailSettings

CFO = "treasury/CFO"

MAX_WAIT_S = 60.0
TEND_S = 10.0
MAX_SWARMS = 64

log = logging.getLogger(__name__)


class Cfo:
    """A `Desk` over the ledger actor. `policy` can be stricter than the vault's own, and never milder.

    `chains` are what it pays on, with an outbox for each in the folder `outboxes`.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        limits: BreakerLimits,
        chains: Sequence[RailSettings] = (),
        outboxes: Path = Path(),
    ) -> None:
        self._ledger = ActorLedger(_ledger_actor())
        self._clock = SystemClock()
        self._breaker = Breaker(limits)
        self._reputations: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._desk = Desk(
            ledger=self._ledger,
            signer=self._ledger,
            clock=self._clock,
            policy=policy,
            reputation=self._reputation,
        )
        self._chains = tuple(chains)
        self._outboxes = outboxes
        self._work: asyncio.Task[None] | None = None
        self._tending: list[asyncio.Task[None]] = []

    async def awake(self) -> None:
        """Begin to work. Raises StorageError where another works on one of the outboxes."""
        for chain in self._chains:
            rail = self._rail(chain)
            self._desk.rails.append(rail)
            self._tending.append(asyncio.create_task(_tend(rail)))
        self._work = asyncio.create_task(self._desk.run())

    async def ready(self) -> bool:
        """Whether it works."""
        return self._work is not None and not self._work.done()

    async def pay(self, request: PaymentRequest) -> Payment:
        """See `Desk.pay`."""
        return await self._desk.pay(request)

    async def payment(self, request_id: str) -> Payment:
        """See `Desk.payment`."""
        return await self._desk.payment(request_id)

    async def settled(self, request_id: str, timeout_s: float) -> Payment:
        """See `Desk.settled`; at most a minute at a time."""
        return await self._desk.settled(request_id, min(timeout_s, MAX_WAIT_S))

    async def settle(self, request_id: str, amount: int) -> Outcome:
        """See `Desk.settle`."""
        return await self._desk.settle(request_id, amount)

    async def account(self, account_id: str) -> Account | None:
        """See `Ledger.account`."""
        return await self._ledger.account(account_id)

    async def reserved(self, prefix: str) -> list[PaymentRequest]:
        """See `Desk.reserved`."""
        return await self._desk.reserved(prefix)

    async def in_hand(self) -> list[Payment]:
        """See `Desk.in_hand`."""
        return await self._desk.in_hand()

    async def accounts(self, after: str, limit: int) -> list[Account]:
        """See `Desk.accounts`."""
        return await self._desk.accounts(after, limit)

    async def nudge(self) -> None:
        """See `Desk.nudge`."""
        self._desk.nudge()

    async def repute(self, swarm: str, scores: dict[str, float]) -> None:
        """What a swarm knows of its agents now, from 0 to 1; those who are not named are not known."""
        self._reputations[swarm] = scores
        self._reputations.move_to_end(swarm)
        if len(self._reputations) > MAX_SWARMS:
            self._reputations.popitem(last=False)

    def _reputation(self, agent: str) -> float | None:
        """The lowest, where several swarms have one of that name."""
        return min((known[agent] for known in self._reputations.values() if agent in known), default=None)

    def _rail(self, chain: RailSettings) -> EvmPayments:
        from chimera.treasury.evm.rail import open_rail

        self._outboxes.mkdir(mode=0o700, parents=True, exist_ok=True)
        outbox = self._outboxes / f"{chain.name}.db"
        return open_rail(chain, ledger=self._ledger, outbox=outbox, pay=self._desk.pay)

    async def anomaly(self, metric: str, score: float) -> str:
        """Something is strange. Stops all spending where that is enough for it: why; empty where it is not."""
        why = self._breaker.anomaly(metric, score, int(self._clock.now() * 1_000_000))
        if why:
            await self._ledger.stop(why, "circuit-breaker")
        return why or ""


async def _tend(rail: EvmPayments) -> None:
    """Go on with what a crash left, also where the ledger knows the end already and only the gas is to be entered."""
    look: Callable[[], Awaitable[object]] = rail.recover
    while True:
        try:
            await look()
            look = rail.watch
        except Exception as error:  # of a node, a key, the ledger: all of it can be tried again
            log.warning("payments on a chain wait: %s", error)
        await asyncio.sleep(TEND_S)


def _ledger_actor() -> Any:
    found = cluster.find(LEDGER)
    if found is None:
        raise LedgerUnavailable(f"no actor {LEDGER} in this cluster: start the treasury")
    return found
