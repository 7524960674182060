"""A way to a model: its limits, what is known of how it fares, and who waits for it. Time is handed in."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from chimera.core.errors import ModelOutage, ModelQuota, ModelUnauthorized
from chimera.core.stats import percentile
from chimera.core.types import Frozen
from chimera.llm.breaker import Breaker
from chimera.llm.chat import ChatModel
from chimera.llm.concurrency import Concurrency
from chimera.llm.rate import Bucket

log = logging.getLogger(__name__)

RouteState = Literal["closed", "open", "half open", "resting", "disabled"]

MAX_REST_S = 3_600.0
"""As long as this a server's wish for a pause is granted."""

QUOTA_REST_S = 60.0
"""An account with nothing left is not asked again before this."""

SEEN = 128
"""Latencies that are remembered of a route."""

SEEN_ENOUGH = 20
"""A p95 of fewer is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A model, and what it is given at most. A limit of None is none.

    `tokens_per_minute` counts what goes in and what comes out. `max_concurrent`, `start_concurrent` and `slow_s` are
    `Concurrency`'s, `failures`, `failure_share` and `open_s` `Breaker`'s. `embeds` says whether it offers embeddings;
    None: if its class does. Routes that offer them have to lead to the same embedding model: the vectors of different
    ones cannot be compared.
    """

    model: ChatModel = field(kw_only=False)
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_concurrent: int = 64
    start_concurrent: int = 16
    slow_s: float = 30.0
    failures: int = 5
    failure_share: float = 0.5
    open_s: float = 30.0
    embeds: bool | None = None

    def offers_embeddings(self) -> bool:
        return type(self.model).embed is not ChatModel.embed if self.embeds is None else self.embeds


class RouteStatus(Frozen):
    """How a route stands. `resting` means that its server asked for a pause, or that its account has nothing left.

    `failures` are outages; `calls` are all that were begun. `limit` is how many may be in flight now, `waiting` who
    waits for that. `disabled` says why it is not asked any more.
    """

    name: str
    state: RouteState
    calls: int = Field(ge=0)
    failures: int = Field(ge=0)
    in_flight: int = Field(ge=0)
    limit: int = Field(ge=1)
    waiting: int = Field(ge=0)
    disabled: str | None = None


class Lane:
    """A route while it is used."""

    def __init__(self, route: Route, now: float) -> None:
        self.route = route
        self.model = route.model
        self.name = route.model.name
        self.line: dict[asyncio.Event, None] = {}
        """Who waits for it, in their order. Only the first may begin, and is woken when something has changed."""
        self.disabled: ModelUnauthorized | None = None
        self.breaker = Breaker(failures=route.failures, share=route.failure_share, open_s=route.open_s)
        self.places = Concurrency(most=route.max_concurrent, start=route.start_concurrent, slow_s=route.slow_s)
        self._requests = _bucket(route.requests_per_minute, now)
        self._tokens = _bucket(route.tokens_per_minute, now)
        self._rests_until = now
        self._took_s: deque[float] = deque(maxlen=SEEN)
        self._calls = 0
        self._failures = 0

    def never(self, tokens: int) -> str | None:
        """Why a call of so many tokens will never go this way; None if it may."""
        if self.disabled is not None:
            return self.disabled.message
        if self._tokens is not None and tokens > self._tokens.capacity:
            return f"about {tokens} tokens are more than the {self._tokens.capacity:g} a minute that it is given"
        return None

    def shut(self, tokens: int, now: float) -> str | None:
        """Why such a call cannot go this way now, even if there is room; None if it can."""
        if reason := self.never(tokens):
            return reason
        if now < self._rests_until:
            return f"not asked for another {self._rests_until - now:.3g} s, as its server wishes"
        if not self.breaker.lets_through(now):
            back_s = self.breaker.back_in_s(now)
            return f"not asked for another {back_s:.3g} s: it failed too often" if back_s else "is being probed"
        return None

    def back_in_s(self, now: float) -> float:
        """Seconds until it is not resting and its circuit is not open."""
        return max(0.0, self._rests_until - now, self.breaker.back_in_s(now))

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until there is room for such a call; 0 for now, infinity where a call has to end before."""
        if not self.places.has_room():
            return math.inf
        requests_s = self._requests.wait_s(1, now) if self._requests is not None else 0.0
        return max(requests_s, self._tokens.wait_s(tokens, now) if self._tokens is not None else 0.0)

    def begin(self, tokens: int, now: float) -> Held:
        """Take what a call needs. Only where `shut` and `wait_s` have just said that it may."""
        permit = self.breaker.begin(now)
        taken = self._requests is None or self._requests.take(1, now)
        taken = taken and (self._tokens is None or self._tokens.take(tokens, now))
        if permit is None or not taken or not self.places.begin():
            raise AssertionError(f"{self.name} was begun without room")
        self._calls += 1
        return Held(self, permit, now, tokens)

    def ended(self, held: Held, now: float, good: bool | None, used: int | None, took_s: float) -> None:
        """Give back what a call held. `used` are its tokens, None where nobody knows."""
        self.breaker.end(held.permit, now, good)
        self.places.end(held.began, now, good, took_s)
        if used is not None and self._tokens is not None:
            debt = max(held.tokens - used, -self._tokens.capacity)  # a server that lies is not kept away for ever
            self._tokens.correct(debt, now)
        self._failures += good is False
        if good:
            self._took_s.append(took_s)
        self.wake()

    def took_at_least(self, seconds: float) -> None:
        """A call was given up after so long. Left out, the slow ones would be missing, and the p95 sink."""
        self._took_s.append(seconds)

    def p95_s(self) -> float | None:
        """What 95 of 100 calls took at most; None while too few have been seen."""
        return percentile(self._took_s, 0.95) if len(self._took_s) >= SEEN_ENOUGH else None

    def rest(self, error: ModelOutage, now: float) -> None:
        """Its server asked for a pause, or its account has nothing left."""
        wished_s = max(error.retry_after_s, QUOTA_REST_S if isinstance(error, ModelQuota) else 0.0)
        self._rests_until = max(self._rests_until, now + min(wished_s, MAX_REST_S))

    def disable(self, error: ModelUnauthorized) -> None:
        """Its server does not take the key. Said once, however many calls were on their way."""
        if self.disabled is None:
            self.disabled = error
            log.error("%s is not asked any more: %s", self.name, error)

    def wake(self) -> None:
        """Tell the first in line that something has changed."""
        first = next(iter(self.line), None)
        if first is not None:
            first.set()

    def status(self, now: float) -> RouteStatus:
        state: RouteState = "resting" if now < self._rests_until else self.breaker.state(now)
        return RouteStatus(
            name=self.name,
            state="disabled" if self.disabled is not None else state,
            calls=self._calls,
            failures=self._failures,
            in_flight=self.places.in_flight,
            limit=self.places.limit,
            waiting=len(self.line),
            disabled=None if self.disabled is None else self.disabled.message,
        )


@dataclass(slots=True)
class Held:
    """What a call holds of a lane. `end` gives it back, once."""

    lane: Lane
    permit: int
    began: float
    tokens: int
    ended: bool = False

    def end(self, now: float, good: bool | None, *, used: int | None = None, took_s: float | None = None) -> None:
        """What came of it: good, an outage, or None for given up. `took_s` is the time since it began unless given."""
        if not self.ended:
            self.ended = True
            self.lane.ended(self, now, good, used, now - self.began if took_s is None else took_s)


def _bucket(per_minute: float | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now=now)
