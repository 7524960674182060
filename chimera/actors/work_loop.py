"""An event loop in a thread of its own, for policies: one that blocks it must not silence its cell."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

log = logging.getLogger(__name__)

PING_S = 1.0
"""A loop that does not answer for this long is blocked. The ping is sent only when an attempt ran out of time."""

_attempt: ContextVar[str] = ContextVar("attempt", default="")


class WorkLoop:
    """Runs coroutines beside the cell's own loop. When one blocks it, the loop says which, and can be abandoned."""

    def __init__(self) -> None:
        self.abandoned = False
        self.culprit = ""
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(_named_after_its_attempt)
        self._pending: set[asyncio.Future[Any]] = set()
        self._alive = 0
        threading.Thread(target=self._run, name="policies", daemon=True).start()

    def _run(self) -> None:
        """Run the loop, and again when a policy stopped it: by `loop.stop()`, or by sys.exit() in a child task."""
        while not self.abandoned:
            try:
                self._loop.run_forever()
            except BaseException as error:
                log.warning("a policy ended its event loop with %r; it goes on", error)

    @property
    def strays(self) -> int:
        """Attempts that were cancelled and go on all the same."""
        return max(0, self._alive - len(self._pending))

    def start(self, work: Callable[[], Awaitable[Any]], attempt_id: str) -> asyncio.Future[Any]:
        """Call `work` there and await it; the future belongs to the caller's loop. Cancelling it cancels the work."""

        async def counted() -> Any:
            self._alive += 1
            try:
                return await work()
            finally:
                self._alive -= 1

        async def owned() -> Any:
            _attempt.set(attempt_id)
            return await asyncio.ensure_future(counted())

        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(owned(), self._loop))
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def is_blocked(self) -> bool:
        """Whether the loop fails to answer. If so, `culprit` is the attempt whose code it is in, if known."""
        pong = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop))
        done, _ = await asyncio.wait({pong}, timeout=PING_S)
        if done:
            return False
        pong.cancel()
        task = asyncio.current_task(self._loop)
        self.culprit = task.get_name() if task else ""
        return True

    def abandon(self) -> None:
        """Give the loop up: its thread cannot be stopped, but what waited behind it is let go (cancelled)."""
        self.abandoned = True
        for future in list(self._pending):
            future.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)


def _named_after_its_attempt(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """A task factory: what an attempt starts carries the attempt's id, however deep it is."""
    return asyncio.Task(work, loop=loop, name=_attempt.get() or None, context=context)
