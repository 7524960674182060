"""Token buckets: how much may be taken, and how processes share one without asking each other each time. Pure.

A bucket of `capacity` tokens fills evenly by `per_s` a second, so that in any `t` seconds at most capacity + per_s x t
are taken (Turner, "New directions in communications", IEEE Communications Magazine 24(10), 1986). Processes that share
one lease tokens from it, and take from their lease. What is leased and not known to be spent counts against the
capacity, or hoarded leases would add to a full bucket. A lease ends with the epoch after its own: what a process that
died had leased counts as spent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chimera.core.errors import InputError

SLACK = 1e-9
"""Of the capacity: what rounding may hold back, or a wait of exactly what was told could be too short for ever."""

EPOCH_S = 1.0
"""A lease is good for one to two of these."""

LEASE_S = 0.005
"""A lease is at least what comes in so many seconds: a busy bucket is asked no more than 1 / LEASE_S times a second."""

SHARERS = 16
"""A lease is this part of what there is, so that the last tokens go where they are asked for."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `capacity` at once, and `per_s` a second. Raises InputError unless both are above 0, and finite."""

    capacity: float
    per_s: float

    def __post_init__(self) -> None:
        if not (0.0 < self.per_s < math.inf and 0.0 < self.capacity < math.inf):
            raise InputError(f"a limit of {self.capacity} at once, {self.per_s} a second: give numbers above 0")

    @property
    def fill_s(self) -> float:
        """Seconds in which an empty bucket becomes full."""
        return self.capacity / self.per_s

    def shared_by(self, nodes: int) -> Limit:
        """An equal share of it; of the capacity at least one, or nothing would ever pass."""
        return Limit(max(1.0, self.capacity / nodes), self.per_s / nodes)

    def check(self, amount: float) -> None:
        """Raises InputError for an amount that could never be taken."""
        if not 0.0 < amount <= self.capacity:
            raise InputError(f"{amount} cannot be taken of a bucket that holds {self.capacity}")


class Bucket:
    """A bucket of one process. Not thread-safe. It begins full; a time before the last one counts as that."""

    __slots__ = ("_at", "_level")

    def __init__(self, limit: Limit, now: float) -> None:
        self._level = limit.capacity
        self._at = now

    def take(self, amount: float, limit: Limit, now: float) -> float:
        """Take `amount`, and return 0; or take nothing, and return the seconds until it can be taken."""
        now = max(now, self._at)
        self._level = min(limit.capacity, self._level + (now - self._at) * limit.per_s)
        self._at = now
        missing = amount - self._level
        if missing > SLACK * limit.capacity:
            return missing / limit.per_s
        self._level -= amount
        return 0.0

    def full_at(self, limit: Limit) -> float:
        """When it will be full if nobody takes anything: from then on it is as good as a new one."""
        return self._at + max(0.0, limit.capacity - self._level) / limit.per_s


@dataclass(slots=True)
class Lease:
    """Tokens that a process may take by itself until `until`, by its own monotonic clock. `left` of `size` are."""

    size: float
    left: float
    epoch: int
    until: float


NO_LEASE = Lease(0.0, 0.0, 0, 0.0)


@dataclass(slots=True)
class Account:
    """A bucket that is leased from. Times are those of whoever keeps it, and never run backwards.

    `leased` and `leased_before` are what is out from this epoch and the one before. Always,
    level + leased + leased_before <= capacity; that is the whole proof of the bound.
    """

    level: float
    leased: float
    leased_before: float
    epoch: int
    at: float

    def settle(self, lease: Lease) -> None:
        """A lease is over: what is left of it comes back, if its epoch is not too long ago."""
        if lease.epoch == self.epoch:
            size = min(lease.size, self.leased)
            self.leased -= size
        elif lease.epoch == self.epoch - 1:
            size = min(lease.size, self.leased_before)
            self.leased_before -= size
        else:
            return
        self.level += min(lease.left, size)

    def advance(self, limit: Limit, now: float) -> None:
        """Let it fill until `now`, and end the leases whose time has come, each at its own moment."""
        now = max(now, self.at)
        epoch = int(now // EPOCH_S)
        while self.epoch < epoch and (self.leased or self.leased_before):
            self._fill(limit, (self.epoch + 1) * EPOCH_S)
            self.leased, self.leased_before, self.epoch = 0.0, self.leased, self.epoch + 1
        self.epoch = max(self.epoch, epoch)
        self._fill(limit, now)

    def lease(self, limit: Limit, amount: float) -> float:
        """Give out at least `amount`, and return how much; 0 if there is not as much."""
        if amount - self.level > SLACK * limit.capacity:
            return 0.0
        plenty = math.floor(min(self.level, max(self.level / SHARERS, limit.per_s * LEASE_S)))
        size = max(amount, plenty)
        self.level -= size
        self.leased += size
        return size

    def is_new(self, limit: Limit) -> bool:
        """Whether nobody could tell it from a new one, so that it may be forgotten."""
        return self.level >= limit.capacity and not self.leased and not self.leased_before

    def _fill(self, limit: Limit, now: float) -> None:
        room = limit.capacity - self.leased - self.leased_before
        self.level = min(room, self.level + max(0.0, now - self.at) * limit.per_s)
        self.at = max(now, self.at)
