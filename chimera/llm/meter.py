"""Tokens and money: reserved before a call for the most it can cost, settled after it with the server's own usage.

So a cap is hard: a call that could pass it is not started, whatever else runs at the same time. All of it is under one
lock, and none of it waits: a meter may be shared by threads and event loops.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from chimera.core.clock import Clock
from chimera.core.errors import BudgetExceeded, InputError, Overloaded
from chimera.llm.account import Account, Amounts, Cap, Caps, Payer, Totals, charged_to, payer
from chimera.llm.chat import ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.prices import EXAMPLE, NANO, Price, Prices, nano
from chimera.llm.usage import (
    IDLE,
    NOTHING,
    Entry,
    Outcome,
    Usage,
    most_tokens,
    most_tokens_of,
    outcome_of,
    usage_of,
    written,
)

__all__ = ["Cap", "Caps", "Entry", "Meter", "Metered", "Reservation", "Totals", "Usage", "charged_to"]

MAX_ENTRIES = 10_000
MAX_ACCOUNTS = 100_000
"""Missions, and agents, that a meter knows. Those that no one used for a day make room for others."""
FORGET_AFTER_S = 86_400.0
MAX_TOKENS_TOLD = 10**12
"""A server that says more of one call is not believed further."""


@dataclass(eq=False)
class Reservation:
    """What is set aside for a call in progress: `tokens_in` and `tokens_out` are the most that it can take."""

    model: str
    provider: str
    payer: Payer
    tokens_in: int
    tokens_out: int
    price: Price | None
    amounts: Amounts
    accounts: tuple[Account, ...]
    started_s: float
    settled: bool = False


class Meter:
    """Counts every attempt, and refuses those that could pass one of `caps`.

    At every moment, for each mission, each agent and the day: settled + reserved <= cap. The one exception is a server
    that says that it used more than the most that was reserved: that is counted in full, and the next call is refused.
    `entries` are bounded by `max_entries`; totals are exact all the same.
    """

    def __init__(self, prices: Prices, caps: Caps, clock: Clock, max_entries: int = MAX_ENTRIES) -> None:
        if max_entries < 0:
            raise InputError(f"max_entries: {max_entries} is less than none")
        self.clock = clock
        self._prices = prices
        self._caps = caps
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=max_entries)
        self._missions: OrderedDict[str, Account] = OrderedDict()
        self._agents: OrderedDict[str, Account] = OrderedDict()
        self._date = _utc_day(clock.now())
        self._today = Account(f"the day {self._date} (UTC)", caps.day)

    def reserve(self, model: str, tokens_in: int, tokens_out: int, provider: str = "") -> Reservation:
        """Set aside the most that a call of `model` can cost, on the account of who pays here (`charged_to`).

        Every reservation has to be settled. Raises BudgetExceeded that names the cap, what is left and what was asked;
        InputError where a cap is in USD and the model's price is not known; Overloaded for too many missions or agents.
        """
        price, who = self._prices.find(model), payer()
        ask = Amounts(price.most(tokens_in, tokens_out) if price else 0, tokens_in + tokens_out, 1)
        with self._lock:
            mission = self._account(self._missions, who.mission, "mission", self._caps.mission)
            agent = self._account(self._agents, who.agent, "agent", self._caps.agent)
            accounts = (mission, agent, self._day())
            for account in accounts:
                if price is None and account.in_usd:
                    raise InputError(
                        f"{model} was not asked: {account.whose} has a cap in USD, and the price of {model} is not "
                        f"known; set one in the prices, such as {model!r}: {EXAMPLE} in USD per million tokens (zeros "
                        f"for a model of your own), or cap tokens"
                    )
                if refusal := account.refusal(ask):
                    raise BudgetExceeded(f"{model} was not asked: {refusal}; raise the cap, or ask for less")
            for account in accounts:
                account.reserve(ask)
        started_s = self.clock.monotonic()
        return Reservation(model, provider or model, who, tokens_in, tokens_out, price, ask, accounts, started_s)

    def settle(self, held: Reservation, outcome: Outcome = "ok", usage: Usage | None = None) -> Entry | None:
        """Count what the call took, and give the rest of the reservation back; its entry. A second time: None.

        Without `usage` all that was reserved stays counted as spent, and its entry is `assumed`: a call that ran out of
        time or was cancelled after it had been sent may have been worked on to its end, and be charged for, though
        nobody heard the answer. A cap that gave this back would not be hard.
        """
        took = usage or Usage(held.tokens_in, held.tokens_out, assumed=True)
        tokens_in, tokens_out = min(took.tokens_in, MAX_TOKENS_TOLD), min(took.tokens_out, MAX_TOKENS_TOLD)
        usd: int | None = None
        if took.cost_usd is not None:
            usd = nano(took.cost_usd)
        elif held.price is not None:
            price, cached = held.price, (took.tokens_cached, took.tokens_stored)
            usd = held.amounts.usd if usage is None else price.cost(tokens_in, tokens_out, *cached)
        entry = Entry(
            at_s=self.clock.now(),
            provider=held.provider,
            model=held.model,
            outcome=outcome,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost_usd=None if usd is None else usd / NANO,
            elapsed_s=max(0.0, self.clock.monotonic() - held.started_s),
            mission=held.payer.mission,
            agent=held.payer.agent,
            assumed=took.assumed,
            tokens_cached=took.tokens_cached,
        )
        with self._lock:
            if held.settled:
                return None
            held.settled = True
            for account in held.accounts:
                account.settle(held.amounts, Amounts(usd or 0, tokens_in + tokens_out, took.calls), usd is None)
            self._entries.append(entry)
        return entry

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The last attempts, the newest last."""
        with self._lock:
            return tuple(self._entries)

    def totals(self, mission: str | None = None, agent: str | None = None) -> Totals:
        """What a mission, or an agent, has spent so far. Raises InputError unless one of both is named."""
        if (mission is None) == (agent is None):
            raise InputError("totals are of a mission or of an agent: name one")
        with self._lock:
            account = self._missions.get(mission) if mission is not None else self._agents.get(agent or "")
            return account.totals() if account else Totals()

    def today(self) -> Totals:
        """What was spent since midnight UTC. A call is of the day on which it began."""
        with self._lock:
            return self._day().totals()

    def _day(self) -> Account:
        date = _utc_day(self.clock.now())
        if date > self._date:  # a clock that is set back gives no second budget
            self._date, self._today = date, Account(f"the day {date} (UTC)", self._caps.day)
        return self._today

    def _account(self, accounts: OrderedDict[str, Account], name: str, kind: str, cap: Cap) -> Account:
        account, now_s = accounts.get(name), self.clock.monotonic()
        if account is None:
            if len(accounts) >= MAX_ACCOUNTS:
                _make_room(accounts, kind, now_s)
            account = accounts[name] = Account(f"the {kind} {name!r}", cap)
        account.used_at_s = now_s
        accounts.move_to_end(name)
        return account


class Metered(ChatModel):
    """`model`, with each call reserved and settled in `meter`, charged to who pays where it is made (`charged_to`).

    Put it around one provider's model, inside of a router (so that each attempt is an entry) and of a cache (so that
    hits are free). Fills in `cost_usd` by the meter's prices where the model does not say it itself.
    Besides what the model raises: BudgetExceeded, InputError and Overloaded, of `Meter.reserve`.
    """

    def __init__(self, model: ChatModel, meter: Meter, provider: str = "") -> None:
        self.name = model.name
        self.writes = model.writes
        self._model = model
        self._meter = meter
        self._provider = provider or model.name.partition(":")[0]

    async def chat(self, request: ChatRequest) -> ChatResponse:
        held = self._reserve(request)
        try:
            return self._settle_answered(held, await self._model.chat(request))
        except BaseException as error:
            self._settle_failed(held, error)
            raise

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """Settled when the response comes. One that is closed before, or has none, stays counted as the most that it
        could take: who writes may have thought more than it has said."""
        held, begun = self._reserve(request), False
        try:
            async with aclosing(cast(AsyncGenerator[ChatChunk, None], self._model.stream(request))) as chunks:
                async for chunk in chunks:
                    begun = True
                    if chunk.response is not None:
                        response = self._settle_answered(held, chunk.response)
                        chunk = chunk.model_copy(update={"response": response})
                    yield chunk
            self._meter.settle(held, "ok")
        except GeneratorExit:
            self._meter.settle(held, "closed")
            raise
        except BaseException as error:
            self._settle_failed(held, error, begun=begun)
            raise

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        held = self._meter.reserve(self.name, most_tokens_of(texts), 0, self._provider)
        try:
            made = await self._model.embed(texts)
            return made.model_copy(update={"cost_usd": self._settle(held, usage_of(made, _most(held, 0)))})
        except BaseException as error:
            self._settle_failed(held, error)
            raise

    async def close(self) -> None:
        await self._model.close()

    def _reserve(self, request: ChatRequest) -> Reservation:
        return self._meter.reserve(self.name, most_tokens(request), request.max_tokens, self._provider)

    def _settle_answered(self, held: Reservation, response: ChatResponse) -> ChatResponse:
        """The response with its cost. A model that writes, and a server that says nothing of its usage, is counted
        from above, from what was sent and what came; that is no known cost, so none is filled in."""
        most = _most(held, written(response)) if self.writes else Usage(0, 0)
        return response.model_copy(update={"cost_usd": self._settle(held, usage_of(response, most))})

    def _settle(self, held: Reservation, usage: Usage) -> float | None:
        """The cost, where it is known."""
        entry = self._meter.settle(held, "ok", usage)
        return usage.cost_usd if usage.assumed or entry is None or usage.cost_usd is not None else entry.cost_usd

    def _settle_failed(self, held: Reservation, error: BaseException, begun: bool = False) -> None:
        """Where the server surely did not work, nothing is counted. Else it may have, and the reservation stays
        counted as spent, as `Meter.settle` explains; so it does once it has `begun` to answer."""
        outcome = outcome_of(error)
        self._meter.settle(held, outcome, NOTHING if outcome in IDLE and not begun else None)


def _most(held: Reservation, tokens_out: int) -> Usage:
    return Usage(held.tokens_in, tokens_out, assumed=True)


def _make_room(accounts: OrderedDict[str, Account], kind: str, now_s: float) -> None:
    """Forget the account that rested longest, if that is a day. One that is in use has its cap."""
    oldest = next(iter(accounts.values()))
    rested_s = now_s - oldest.used_at_s
    if rested_s < FORGET_AFTER_S or not oldest.idle:
        wait_s = max(0.0, FORGET_AFTER_S - rested_s)
        raise Overloaded(f"{MAX_ACCOUNTS} {kind}s within a day are the most that one meter counts", wait_s)
    accounts.popitem(last=False)


def _utc_day(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()
