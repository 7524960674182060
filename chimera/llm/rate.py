"""A token bucket: how much may go through a minute. Pure: time is handed in.

It fills evenly, as the large providers' own do (Anthropic's API reference, "Rate limits"; OpenAI's, "Rate limits").
"""

from __future__ import annotations

from chimera.core.errors import InputError

SLACK = 1e-9
"""Of the capacity: what rounding may hold back, or a wait of exactly `wait_s` could be too short for ever."""


class Bucket:
    """Lets through at most `burst + per_minute / 60 * t` in any `t` seconds. `burst` is a minute's worth unless given.

    What was taken on an estimate is put right with `correct`; a bucket that gave too much goes into debt and lets
    nothing through until it is paid.
    """

    def __init__(self, per_minute: float, *, now: float, burst: float | None = None) -> None:
        capacity = per_minute if burst is None else burst
        if not (0.0 < per_minute < float("inf") and 0.0 < capacity < float("inf")):
            raise InputError(f"a limit of {per_minute} a minute, {capacity} at once: give numbers above 0")
        self.capacity = capacity
        self._per_s = per_minute / 60.0
        self._level = capacity
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 for at once, infinity for what is more than the capacity."""
        if amount > self.capacity:
            return float("inf")
        missing = amount - self.level(now)
        return missing / self._per_s if missing > SLACK * self.capacity else 0.0

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if it may be taken now."""
        if self.wait_s(amount, now) > 0.0:
            return False
        self._set(self.level(now) - amount, now)
        return True

    def correct(self, difference: float, now: float) -> None:
        """Give back `difference` of what was taken; below 0, take more, whether it is there or not."""
        self._set(min(self.capacity, self.level(now) + difference), now)

    def level(self, now: float) -> float:
        """What may be taken now; below 0 it is a debt. A time before the last one counts as that."""
        return min(self.capacity, self._level + max(0.0, now - self._at) * self._per_s)

    def _set(self, level: float, now: float) -> None:
        self._level, self._at = level, max(now, self._at)
