"""A circuit breaker: who fails again and again is left alone for a while, and then tried with one call.

Pure: time is handed in. Each call has a permit, so that an answer to a call from before the circuit opened is not taken
for the probe's. Source: M. Nygard, "Release It!", chapter 5.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from chimera.core.errors import InputError

State = Literal["closed", "open", "half open"]

MAX_WINDOW = 1_000


class Breaker:
    """Opens after `failures` in a row, or when `share` of the last `window` calls failed; is closed by a good probe.

    It stays open for `open_s`. Then it is half open: one call is let through at a time, the probe. If that fails, it is
    open for `open_s` again; if that is given up, the next may be the probe.
    """

    def __init__(self, *, failures: int = 5, share: float = 0.5, window: int = 20, open_s: float = 30.0) -> None:
        if failures < 1 or not 1 <= window <= MAX_WINDOW or not 0.0 < share <= 1.0 or not 0.0 <= open_s < float("inf"):
            raise InputError(
                f"a breaker of {failures=}, {share=}, {window=}, {open_s=}: give failures >= 1, 0 < share <= 1, "
                f"1 <= window <= {MAX_WINDOW} and open_s >= 0"
            )
        self._failures = failures
        self._share = share
        self._open_s = open_s
        self._last: deque[bool] = deque(maxlen=window)
        self._in_a_row = 0
        self._open_until: float | None = None
        self._permit = 0
        self._probing = False

    def state(self, now: float) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half open"

    def back_in_s(self, now: float) -> float:
        """Seconds until it may let a call through; 0 when it is not open."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def lets_through(self, now: float) -> bool:
        """Whether `begin` would give a permit."""
        return self._open_until is None or (now >= self._open_until and not self._probing)

    def begin(self, now: float) -> int | None:
        """A permit for one call, to be handed to `end`; None where no call may be made."""
        if not self.lets_through(now):
            return None
        if self._open_until is not None:
            self._probing = True
        return self._permit

    def end(self, permit: int, now: float, good: bool | None) -> None:
        """What came of a call. None: nothing can be said, it was given up. Calls from before a change say nothing."""
        if permit != self._permit:
            return
        if self._open_until is not None:
            self._probing = False
            if good:
                self._close()
            elif good is False:
                self._open(now)
        elif good is not None:
            self._count(good, now)

    def _count(self, good: bool, now: float) -> None:
        self._last.append(good)
        self._in_a_row = 0 if good else self._in_a_row + 1
        full = len(self._last) == self._last.maxlen
        too_many = full and self._last.count(False) >= self._share * len(self._last)
        if not good and (self._in_a_row >= self._failures or too_many):
            self._open(now)

    def _open(self, now: float) -> None:
        self._open_until = now + self._open_s
        self._permit += 1

    def _close(self) -> None:
        self._open_until = None
        self._permit += 1
        self._in_a_row = 0
        self._last.clear()
