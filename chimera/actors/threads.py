"""Synchronous policies, each in a thread of its own, so that one that hangs holds nobody up but itself.

An executor would wait for it at exit and keep its slot; a daemon thread is simply left behind, and counted as overdue
once it goes on past its own time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from chimera.actors.work_loop import PING_S


class Threads:
    """`overdue` counts the calls that go on long after their time."""

    def __init__(self) -> None:
        self.overdue = 0

    def run(self, call: Callable[[], Any], *, name: str, limit_s: float) -> asyncio.Future[Any]:
        """What `call` gives. Cancelling the future leaves the call alone, and drops what it gives."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        running, overdue = True, False

        def settle(result: Any, error: BaseException | None) -> None:
            nonlocal running
            running = False
            if overdue:
                self.overdue -= 1
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(_ordinary(error))
            else:
                done.set_result(result)

        def work() -> None:
            try:
                result, error = call(), None
            except BaseException as caught:
                result, error = None, caught
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the cell has ended meanwhile

        def count() -> None:
            nonlocal overdue
            if running:
                overdue = True
                self.overdue += 1

        threading.Thread(target=work, name=name, daemon=True).start()
        loop.call_later(limit_s + PING_S, count)
        return done


def said(error: BaseException, form: Callable[[object], str] = str) -> str:
    """An error's message. A user's exception may raise when asked for it."""
    try:
        return form(error)
    except Exception:
        return f"{type(error).__name__}, whose message cannot be read"


def _ordinary(error: BaseException) -> BaseException:
    """An error that a future can carry: SystemExit would end the event loop, StopIteration cannot be set."""
    fits = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if fits or isinstance(error, asyncio.CancelledError) else RuntimeError(said(error, repr))
