"""How many calls a server is given at a time: more while it copes, half as many when it does not (AIMD). Pure.

Sources: V. Jacobson, "Congestion Avoidance and Control" (SIGCOMM 1988); `AIMDLimit` of Netflix's concurrency-limits.
"""

from __future__ import annotations

from chimera.core.errors import InputError

CUT = 0.5

MAX_CONCURRENT = 10_000


class Concurrency:
    """From 1 to `most` calls at a time, beginning with `start`.

    A failure, or an answer after more than `slow_s`, halves the limit, once for all the calls that were on their way
    then. A good answer raises it if at least half of it is in use: by 1 until the first cut, which doubles it each time
    that a limit's worth of calls comes back, and by 1 / limit from then on.
    """

    def __init__(self, *, most: int = 64, start: int = 16, slow_s: float = 30.0) -> None:
        if not (1 <= most <= MAX_CONCURRENT and start >= 1 and slow_s > 0.0):
            raise InputError(f"{most} calls at a time from {start}, slow after {slow_s} s: give 1 to {MAX_CONCURRENT}")
        self.in_flight = 0
        self._most = most
        self._limit = float(min(start, most))
        self._slow_s = slow_s
        self._cut_at: float | None = None

    @property
    def limit(self) -> int:
        return int(self._limit)

    def has_room(self) -> bool:
        return self.in_flight < self.limit

    def begin(self) -> bool:
        """Take a place if there is one. Each place is given back by `end`."""
        if not self.has_room():
            return False
        self.in_flight += 1
        return True

    def end(self, began: float, now: float, good: bool | None, took_s: float) -> None:
        """Give a place back. `good` is None for a call that was given up: nothing can be said."""
        used = self.in_flight
        self.in_flight -= 1
        if good is None:
            return
        if not good or took_s > self._slow_s:
            if self._cut_at is None or began > self._cut_at:
                self._limit = max(1.0, self._limit * CUT)
                self._cut_at = now
        elif 2 * used >= self._limit:
            self._limit = min(self._most, self._limit + (1.0 if self._cut_at is None else 1.0 / self._limit))
