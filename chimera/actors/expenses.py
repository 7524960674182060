"""The coordinator's part that has missions paid for by the treasury: nothing is called before money is set aside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from heapq import nsmallest
from operator import itemgetter
from typing import Any

from chimera.actors import cluster
from chimera.actors.cfo import CFO
from chimera.actors.ledger import ask
from chimera.actors.sessions import Submission
from chimera.core.clock import Clock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, LedgerUnavailable, StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import Journal, open_journal
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.replay import rebuild
from chimera.treasury.costs import MissionCosts
from chimera.treasury.payment import Payment
from chimera.treasury.types import Account, Outcome, PaymentRequest

log = logging.getLogger(__name__)

REPUTE_S = 30.0
MAX_REPUTED = 1_000
"""Agents, those of the lowest reputation: it counts only where it is low."""


class CfoPayments:
    """The desk of the cluster's CFO actor; one that died is waited for."""

    async def account(self, account_id: str) -> Account | None:
        found: Account | None = await _ask("account", account_id)
        return found

    async def pay(self, request: PaymentRequest) -> Payment:
        found: Payment = await _ask("pay", request)
        return found

    async def payment(self, request_id: str) -> Payment:
        found: Payment = await _ask("payment", request_id)
        return found

    async def settle(self, request_id: str, amount: int) -> Outcome:
        outcome: Outcome = await _ask("settle", request_id, amount)
        return outcome

    async def reserved(self, prefix: str) -> Sequence[PaymentRequest]:
        return list(await _ask("reserved", prefix))


class Expenses:
    """Without `treasury_fund` in the settings all of it does nothing, and missions cost what they cost."""

    def __init__(self, *, swarm: str, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._swarm = swarm
        self._clock = clock
        self._repute_at_s = 0.0
        self._costs = (
            MissionCosts(payments=CfoPayments(), swarm=swarm, fund=settings.treasury_fund, clock=clock)
            if settings.treasury_fund
            else None
        )

    async def begin(self) -> None:
        """Post what an earlier coordinator had not. Raises LedgerUnavailable where no treasury runs in this cluster."""
        if self._costs is not None:
            async with AsyncExitStack() as stack:
                await self._costs.begin(_Past(self._settings, self._clock, stack).spent_usd)

    async def fund(
        self, submissions: Sequence[Submission], here: Callable[[str], bool]
    ) -> tuple[Sequence[Submission], dict[str, ChimeraError]]:
        """Set aside what these may spend, but for missions that are `here` already: them, each with a budget in USD;
        and by the id of a mission why its money cannot be set aside."""
        if self._costs is None:
            return submissions, {}
        costs = self._costs
        limited = [_limited(each, costs.grant_usd) for each in submissions]
        new = [each for each in submissions if not here(each.mission_id)]  # as they are: without a budget, they share
        found = await asyncio.gather(
            *(costs.reserve(each.mission_id, each.budget.usd, each.deadline_s + each.review_s) for each in new),
            return_exceptions=True,
        )
        refused: dict[str, ChimeraError] = {}
        for submission, answer in zip(new, found, strict=True):
            if isinstance(answer, ChimeraError):
                refused[submission.mission_id] = answer.with_traceback(None)
            elif answer is not None:
                raise answer
        return limited, refused

    async def resume(self, mission_id: str) -> None:
        """See `MissionCosts.resume`."""
        if self._costs is not None:
            await self._costs.resume(mission_id)

    def ended(self, mission_id: str, spent_usd: float) -> None:
        """See `MissionCosts.settle`."""
        if self._costs is not None:
            self._costs.settle(mission_id, spent_usd)

    async def repute(self, reputations: Callable[[], dict[str, float]]) -> None:
        """Let the CFO know, now and then, how far the agents are to be trusted that ask for money."""
        if self._costs is not None and self._clock.monotonic() >= self._repute_at_s:
            self._repute_at_s = self._clock.monotonic() + REPUTE_S
            lowest = nsmallest(MAX_REPUTED, reputations().items(), key=itemgetter(1))
            await _ask("repute", self._swarm, dict(lowest))

    async def close(self) -> None:
        if self._costs is not None:
            await self._costs.close()


class _Past:
    """What missions have spent, as the journal tells it: it is opened when the first is asked for."""

    def __init__(self, settings: Settings, clock: Clock, stack: AsyncExitStack) -> None:
        self._settings, self._clock, self._stack = settings, clock, stack
        self._journal: Journal | None = None

    async def spent_usd(self, mission_id: str) -> float | None:
        """See `costs.Spent`. What attempts that were still being ended had, counts as spent."""
        if self._journal is None:
            self._journal = open_journal(self._settings.journal)
            self._stack.push_async_callback(self._journal.close)
        events: list[Event] = []
        while more := await self._journal.read(mission_id, after=len(events)):
            events += more
        if not events or events[-1].kind is not EventKind.MISSION_ENDED:
            return None
        try:
            brain, _ = rebuild(
                events,
                decomposer=TaskDecomposer(max_nodes=self._settings.max_nodes),
                now=self._clock.monotonic(),
                wall=self._clock.now(),
            )
        except StorageError as error:
            log.error("what mission %s spent is not known, and not posted: %s", mission_id, error)
            return None
        return brain.spent.usd + brain.reserved.usd


def _limited(submission: Submission, usd: float) -> Submission:
    """With a budget in USD, if it had none: what is set aside has an end."""
    if submission.budget.usd is not None:
        return submission
    return replace(submission, budget=submission.budget.model_copy(update={"usd": usd}))


async def _ask(method: str, *arguments: Any) -> Any:
    found = cluster.find(CFO)
    if found is None:
        raise LedgerUnavailable(
            f"no actor {CFO} in this cluster: `chimera treasury run` starts it, or unset CHIMERA_TREASURY_FUND"
        )
    return await ask(found, method, *arguments)
