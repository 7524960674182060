"""Limits on how much is asked for: one for all, or one for each client. A refusal says when to come again.

By themselves they count for one process. With a `TokenStore` (`shared_limits.SharedTokens` for the processes of one
machine, `redis_limits.RedisTokens` for those of several) they count for all: tokens are leased from it in small
batches, and taken from the lease. A check that a lease covers asks nobody.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
from typing import Literal, Protocol

from chimera.core.clock import Clock
from chimera.core.errors import InputError, RateLimited, StorageUnavailable
from chimera.security.buckets import NO_LEASE, Bucket, Lease, Limit

MAX_CLIENTS = 10_000
MAX_ID_CHARS = 128
LOOKS = 16
"""Buckets that are looked at, to find room for a new client."""

QUIET_S = 0.01
MAX_QUIET_S = 1.0
"""After a refusal, nobody is asked again for as long as it takes to fill, but within these bounds."""

ROUNDING_S = 1e-6

OUTAGE_S = 1.0
"""What a caller is told to wait when the store is out of reach and the limit fails closed."""

Outage = Literal["closed", "share"]
"""What a limit does while its store is out of reach: refuse all, or go by a share of its own."""


class TokenStore(Protocol):
    """Where processes keep the buckets that they share. Thread-safe."""

    def exchange(self, key: str, limit: Limit, amount: float, old: Lease) -> tuple[Lease, float]:
        """Settle `old`, and lease at least `amount`: the lease and 0, or `NO_LEASE` and the seconds to wait.

        With an amount of 0 nothing is leased. Raises StorageUnavailable; `old` may be settled then, or not.
        """
        ...

    def close(self) -> None: ...


class _Counter(Protocol):
    def take(self, amount: float, limit: Limit, now: float) -> float: ...

    def full_at(self, limit: Limit) -> float: ...


class _Leased:
    """One bucket of a store, as this process sees it. Thread-safe."""

    def __init__(self, store: TokenStore, key: str, outage: Outage, nodes: int) -> None:
        self._store = store
        self._key = key
        self._outage = outage
        self._nodes = nodes
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._lease = NO_LEASE
        self._drawn_at = 0.0
        self._refused = (float("inf"), 0.0, 0.0)  # this much or more, not asked for again until, can be taken at
        self._alone: Bucket | None = None

    def take(self, amount: float, limit: Limit, now: float) -> float:
        if self._pid != os.getpid():  # a fork: the lease is the parent's, and its lock may be held by nobody
            self._lock, self._pid, self._lease = threading.Lock(), os.getpid(), NO_LEASE
        with self._lock:
            lease = self._lease
            if now < lease.until and lease.left >= amount:
                lease.left -= amount
                return 0.0
            least, quiet_until, can_at = self._refused
            if amount >= least and now < quiet_until - ROUNDING_S:
                return max(can_at, quiet_until) - now
            try:
                return self._draw(amount, limit, now)
            except StorageUnavailable:
                return self._without(amount, limit, now)

    def full_at(self, limit: Limit) -> float:
        alone = self._alone.full_at(limit.shared_by(self._nodes)) if self._alone else 0.0
        return max(self._drawn_at + limit.fill_s, alone)

    def give_back(self, limit: Limit) -> None:
        """Return what is left of the lease. A store that is out of reach lets it end by itself."""
        with self._lock:
            old, self._lease = self._lease, NO_LEASE
            if old.left > 0.0 and self._pid == os.getpid():
                try:
                    self._store.exchange(self._key, limit, 0.0, old)
                except StorageUnavailable:
                    return

    def _draw(self, amount: float, limit: Limit, now: float) -> float:
        old, self._lease = self._lease, NO_LEASE
        lease, wait_s = self._store.exchange(self._key, limit, amount, old)
        self._drawn_at = now
        if wait_s == 0.0:
            lease.left -= amount
            self._lease = lease
            self._refused = (float("inf"), 0.0, 0.0)
            return 0.0
        quiet_s = min(max(wait_s, min(QUIET_S, limit.fill_s / 4)), MAX_QUIET_S)
        self._refused = (amount, now + quiet_s, now + wait_s)
        return max(wait_s, quiet_s)

    def _without(self, amount: float, limit: Limit, now: float) -> float:
        if self._outage == "closed":
            return OUTAGE_S
        share = limit.shared_by(self._nodes)
        if amount > share.capacity:
            return OUTAGE_S
        if self._alone is None:  # kept for the next outage: one that comes and goes must not give a full one each time
            self._alone = Bucket(share, now)
        return self._alone.take(amount, share, now)


class RateLimiter:
    """At most `capacity` at once and `rate` a second, of everybody who shares `store` and `name`. Thread-safe.

    `nodes` is how many processes share it: while the store is out of reach, each goes by that part of the limit, or
    with `outage="closed"` refuses everything. Of what the store and the shares gave, the worst is the sum.
    """

    def __init__(
        self,
        capacity: float,
        rate: float,
        *,
        clock: Clock,
        store: TokenStore | None = None,
        name: str = "all",
        outage: Outage = "share",
        nodes: int = 1,
    ) -> None:
        self._clients = ClientRateLimiter(
            capacity, rate, clock=clock, store=store, name=name, max_clients=1, outage=outage, nodes=nodes
        )

    def try_take(self, n: float = 1.0) -> bool:
        """Take `n` tokens, or none. Raises InputError for more than the capacity."""
        return self._clients.try_take("", n)

    def take(self, n: float = 1.0) -> None:
        """Take `n` tokens. Raises RateLimited, with `retry_after_s`; InputError for more than the capacity."""
        self._clients.take("", n)

    def close(self) -> None:
        """Give leased tokens back to the others. The store stays open."""
        self._clients.close()


class ClientRateLimiter:
    """A bucket for each client, made when it first asks. Thread-safe.

    The table holds at most `max_clients`: one whose bucket is full is forgotten for a new one, which gives nobody more
    than a full bucket that has been remembered. While no bucket is full, new clients share one. `limit` of a call is
    that client's own (an API key has one); the same must be given each time.
    """

    def __init__(
        self,
        capacity: float,
        rate: float,
        *,
        clock: Clock,
        store: TokenStore | None = None,
        name: str = "clients",
        max_clients: int = MAX_CLIENTS,
        outage: Outage = "share",
        nodes: int = 1,
    ) -> None:
        if max_clients < 1 or nodes < 1:
            raise InputError("max_clients and nodes must be at least 1")
        self.limit = Limit(capacity, rate)
        self._clock = clock
        self._store = store
        self._name = name
        self._max_clients = max_clients
        self._outage = outage
        self._nodes = nodes
        self._lock = threading.Lock()
        self._table: dict[str, tuple[_Counter, Limit]] = {}
        self._full: list[tuple[float, str]] = []
        """A heap with one row a client: a time before which its bucket is not full."""
        self._overflow: _Counter | None = None
        self._now = clock.monotonic()

    def __len__(self) -> int:
        return len(self._table)

    def try_take(self, client: str, n: float = 1.0, *, limit: Limit | None = None) -> bool:
        """Take `n` tokens of the client's bucket, or none. Raises InputError for more than the capacity."""
        return self._ask(client, n, limit or self.limit) == 0.0

    def take(self, client: str, n: float = 1.0, *, limit: Limit | None = None) -> None:
        """Take `n` tokens of the client's bucket. Raises RateLimited; InputError for more than the capacity."""
        wait_s = self._ask(client, n, limit or self.limit)
        if wait_s:
            raise RateLimited(f"too many requests: try again in {wait_s:.3g} s", wait_s)

    def close(self) -> None:
        """Give leased tokens back to the others. The store stays open."""
        with self._lock:
            entries = [*self._table.values()]
            entries += [(self._overflow, self.limit)] if self._overflow else []
            self._table.clear()
            self._full.clear()
        for counter, limit in entries:
            if isinstance(counter, _Leased):
                counter.give_back(limit)

    def _ask(self, client: str, n: float, limit: Limit) -> float:
        limit.check(n)
        if len(client) > MAX_ID_CHARS:
            client = hashlib.blake2b(client.encode(errors="surrogatepass"), digest_size=32).hexdigest()
        with self._lock:
            self._now = now = max(self._now, self._clock.monotonic())
            counter, limit = self._find(client, limit, now)
            if isinstance(counter, Bucket):
                return counter.take(n, limit, now) if n <= limit.capacity else limit.fill_s
        return counter.take(n, limit, now) if n <= limit.capacity else limit.fill_s

    def _find(self, client: str, limit: Limit, now: float) -> tuple[_Counter, Limit]:
        found = self._table.get(client)
        if found is not None:
            if found[1] is not limit and found[1] != limit:
                self._table[client] = found = (found[0], limit)
            return found
        if len(self._table) >= self._max_clients and not self._forget_one(now):
            if self._overflow is None:
                self._overflow = self._counter("overflow", self.limit, now)
            least = Limit(min(limit.capacity, self.limit.capacity), min(limit.per_s, self.limit.per_s))
            return self._overflow, least
        entry = (self._counter(f"client:{client}", limit, now), limit)
        self._table[client] = entry
        heapq.heappush(self._full, (now, client))
        return entry

    def _forget_one(self, now: float) -> bool:
        """Forget a client whose bucket is full, if one of the likeliest is."""
        for _ in range(LOOKS):
            at, client = self._full[0]
            if at > now:
                return False
            counter, limit = self._table[client]
            full_at = counter.full_at(limit)
            if full_at <= now:
                heapq.heappop(self._full)
                del self._table[client]
                return True
            heapq.heapreplace(self._full, (full_at, client))
        return False

    def _counter(self, key: str, limit: Limit, now: float) -> _Counter:
        if self._store is None:
            return Bucket(limit, now)
        return _Leased(self._store, f"{self._name}:{key}", self._outage, self._nodes)
