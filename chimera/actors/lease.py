"""A lease on life: an actor that nobody asks for anything any more ends itself, so that no crash leaves it behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Lease:
    """Calls `end`, once, when `limit_s` have passed since it was last renewed. Begins with its first renewal."""

    def __init__(self, limit_s: float, end: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._end = end
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def renew(self, at_least_s: float = 0.0) -> None:
        """Somebody was here; who is long at it has `at_least_s` until the next renewal, if that is more."""
        self._until = time.monotonic() + max(self._limit_s, at_least_s)
        if self._timer is None or self._timer.when() > self._until:
            self._look()

    def _look(self) -> None:
        if self._timer:
            self._timer.cancel()
        left_s = self._until - time.monotonic()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look)
        elif not self._ended:
            self._ended = True
            self._end()
