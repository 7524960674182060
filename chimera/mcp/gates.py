"""What keeps one server from being asked too much: a rate, a circuit breaker, and a number of calls at once for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chimera.core.clock import Clock
from chimera.core.errors import RateLimited
from chimera.llm.breaker import Breaker
from chimera.mcp.config import MAX_SERVERS, ServerConfig
from chimera.mcp.outcome import Refused
from chimera.security.buckets import Limit
from chimera.security.limits import ClientRateLimiter

FAILURES: Final = 5
OPEN_S: Final = 30.0


class Gates:
    """Of one caller. `at_once` is over all servers: the hub bounds each."""

    def __init__(self, *, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._at_once = at_once
        self._running = 0
        self._rates = ClientRateLimiter(1.0, 1.0, clock=clock, name="mcp", max_clients=MAX_SERVERS)
        self._breakers: dict[str, Breaker] = {}

    def breaker(self, server: str) -> Breaker:
        """The server's own. Ask for servers that are configured only: they are bounded."""
        return self._breakers.setdefault(server, Breaker(failures=FAILURES, open_s=OPEN_S))

    def full(self) -> Refused | None:
        """Whether as many calls are on their way as there may be."""
        if self._running < self._at_once:
            return None
        return Refused("busy", f"{self._running} calls are on their way", "make fewer calls at once", 1.0)

    def broken(self, server: str) -> Refused | None:
        """Whether the server has failed so often that it is left alone."""
        now = self._clock.monotonic()
        breaker = self.breaker(server)
        if breaker.lets_through(now):
            return None
        return Refused(
            "breaker", f"{server} has failed again and again", "use another server", max(1.0, breaker.back_in_s(now))
        )

    def take(self, config: ServerConfig) -> Refused | None:
        """Count one call to the server, or say when it may be made."""
        limit = Limit(max(1.0, config.max_calls_per_s), config.max_calls_per_s)
        try:
            self._rates.take(config.name, limit=limit)
        except RateLimited as error:
            per_s = config.max_calls_per_s
            return Refused(
                "rate", f"{config.name} is asked {per_s:g} times a second at most", "wait", error.retry_after_s
            )
        return None

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a call is on its way."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
