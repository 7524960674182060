"""An event loop in a thread of its own, for policies: one that blocks it must not silence its cell."""

from __future__ import annotations

import asyncio
import logging
import selectors
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

log = logging.getLogger(__name__)

PING_S = 1.0
"""A loop that does nothing for this long is blocked. The ping is sent only when an attempt ran out of time."""

_key: ContextVar[str] = ContextVar("key", default="")

Job = tuple[str, Callable[[], Awaitable[Any]]]
"""A key of its own, and what to await."""


class _Watched(selectors.DefaultSelector):
    """A selector that knows how long its loop has had nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self._idle_s = 0.0
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._since = since = time.monotonic()
        try:
            return super().select(timeout)
        finally:
            self._since = None
            self._idle_s += time.monotonic() - since

    @property
    def idle_s(self) -> float:
        since = self._since
        return self._idle_s + (time.monotonic() - since if since is not None else 0.0)


class WorkLoop:
    """Runs coroutines beside the cell's own loop. When one blocks it, the loop says which, and can be abandoned.

    `on_end` is called in the loop that made this one, with `(key, result)` of each that ended; a job must not raise,
    and one that was cancelled has None. Both ways, what happens together crosses between the threads together.
    """

    def __init__(self, on_end: Callable[[list[tuple[str, Any]]], None]) -> None:
        self.abandoned = False
        self.culprit = ""
        self._on_end = on_end
        self._home = asyncio.get_running_loop()
        self._selector = _Watched()
        self._made_at = time.monotonic()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._loop.set_task_factory(_named_after_its_job)
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._asked: dict[str, float] = {}
        self._moves = 0
        self._ping: asyncio.Task[bool] | None = None
        self._ended: deque[tuple[str, Any]] = deque()
        self._flushing = False
        threading.Thread(target=self._run, name="policies", daemon=True).start()

    def _run(self) -> None:
        """Run the loop, and again when a policy stopped it: by `loop.stop()`, or by sys.exit() in a child task."""
        while not self.abandoned:
            try:
                self._loop.run_forever()
            except BaseException as error:
                log.warning("a policy ended its event loop with %r; it goes on", error)

    @property
    def busy_s(self) -> float:
        """Seconds in which there was something to do. On a crowded machine that is more than the CPU time it got."""
        return time.monotonic() - self._made_at - self._selector.idle_s

    def start(self, jobs: list[Job]) -> None:
        """Begin these there."""
        self._loop.call_soon_threadsafe(self._begin, jobs)

    def cancel(self, keys: Iterable[str]) -> None:
        """Ask these to stop. `on_end` tells when they did, if they ever do."""
        self._loop.call_soon_threadsafe(self._stop, list(keys))

    def strays(self) -> int:
        """How many were told to stop more than a moment ago, and go on."""
        before = time.monotonic() - PING_S
        return sum(since < before for since in list(self._asked.values()))

    async def is_blocked(self) -> bool:
        """Whether the loop neither answers nor gets on. If so, `culprit` is the key of the job whose code it is in."""
        if self._ping is None or self._ping.done():
            self._ping = asyncio.create_task(self._is_blocked())
        return await asyncio.shield(self._ping)

    async def _is_blocked(self) -> bool:
        moves = self._moves
        pong = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop))
        done, _ = await asyncio.wait({pong}, timeout=PING_S)
        if done:
            return False
        pong.cancel()
        if self._moves != moves:
            return False  # a job has begun or ended meanwhile: it has very much to do, and does it
        task = asyncio.current_task(self._loop)
        self.culprit = task.get_name() if task else ""
        return True

    def abandon(self) -> None:
        """Give the loop up: its thread cannot be stopped, and what it still does is nobody's business any more."""
        self.abandoned = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self, jobs: list[Job]) -> None:
        for key, work in jobs:
            _key.set(key)
            task = self._tasks[key] = self._loop.create_task(self._owned(work))
            task.add_done_callback(partial(self._finish, key))
        _key.set("")

    async def _owned(self, work: Callable[[], Awaitable[Any]]) -> Any:
        self._moves += 1
        try:
            return await work()
        finally:
            self._moves += 1

    def _stop(self, keys: list[str]) -> None:
        for key in keys:
            if task := self._tasks.get(key):
                self._asked[key] = time.monotonic()
                task.cancel()

    def _finish(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        self._asked.pop(key, None)
        failed = task.cancelled() or task.exception() is not None
        self._ended.append((key, None if failed else task.result()))
        if not self._flushing:
            self._flushing = True
            try:
                self._home.call_soon_threadsafe(self._flush)
            except RuntimeError:
                return  # the cell has ended meanwhile

    def _flush(self) -> None:
        self._flushing = False  # first: what ends from now on asks for a flush of its own
        ended = []
        while self._ended:
            ended.append(self._ended.popleft())
        self._on_end(ended)


def _named_after_its_job(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """A task factory: what a job starts carries its key, however deep it is."""
    return asyncio.Task(work, loop=loop, name=_key.get() or None, context=context)
