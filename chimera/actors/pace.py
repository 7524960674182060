"""A pace: the first of a while goes at once, and those that follow closely go together a moment later."""

from __future__ import annotations

import asyncio

PACE_S = 0.002
"""A message costs some 200 microseconds of two processes' time, whatever it carries: at most 500 a second a hop."""


class Pace:
    """Lets its caller pass once in `every_s`."""

    def __init__(self, every_s: float = PACE_S) -> None:
        self._every_s = every_s
        self._last = float("-inf")

    async def keep(self) -> None:
        """Return at once, or as late as `every_s` after the call before."""
        loop = asyncio.get_running_loop()
        early_s = self._last + self._every_s - loop.time()
        if early_s > 0:
            await asyncio.sleep(early_s)
        self._last = loop.time()
