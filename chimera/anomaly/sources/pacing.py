"""When to ask again, and how to stop in the middle of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Pace:
    """Ticks every `interval_s` until closed. The first is at once; ticks that nobody waited for are left out."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._closed = asyncio.Event()
        self._next: float | None = None

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()

    async def tick(self) -> bool:
        """Wait for the next tick. False says that it is closed."""
        now = asyncio.get_running_loop().time()
        if self._next is None:
            self._next = now
        elif self._next + self._interval_s > now:
            self._next += self._interval_s
        else:
            self._next = now
        if self._next > now:
            await self.until_closed(asyncio.sleep(self._next - now))
        return not self.closed

    async def until_closed(self, work: Awaitable[T]) -> T | None:
        """Do this, unless closed first: then it is cancelled, and the answer is None."""
        task, closing = asyncio.ensure_future(work), asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait((task, closing), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, closing):
                each.cancel()
            await asyncio.gather(task, closing, return_exceptions=True)
