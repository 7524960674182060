"""An event loop in a thread of its own, for policies: one that blocks it must not silence its cell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

PING_S = 0.25


class WorkLoop:
    """Runs coroutines beside the cell's own loop. When one blocks it, the loop says which, and can be abandoned."""

    def __init__(self) -> None:
        self.abandoned = False
        self._loop = asyncio.new_event_loop()
        self._pending: set[asyncio.Future[Any]] = set()
        threading.Thread(target=self._loop.run_forever, name="policies", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Future[Any]:
        """Run `work` there; the future belongs to the caller's loop. Cancelling it cancels the work."""

        async def named() -> Any:
            task = asyncio.current_task()
            assert task is not None
            task.set_name(name)
            return await work

        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(named(), self._loop))
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def blocker(self) -> str | None:
        """The name of the work that blocks the loop; None while the loop answers."""
        pong = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop))
        done, _ = await asyncio.wait({pong}, timeout=PING_S)
        if done:
            return None
        pong.cancel()
        task = asyncio.current_task(self._loop)
        return task.get_name() if task else None

    def abandon(self) -> None:
        """Give the loop up: its thread cannot be stopped, but what waited behind it is let go (cancelled)."""
        self.abandoned = True
        for future in list(self._pending):
            future.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
