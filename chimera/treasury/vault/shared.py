"""Calls that come while one is under way share the next: one transaction, and one wait for the disk, for them all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from chimera.core.errors import Overloaded

MAX_WAITING = 20_000
"""Items that wait."""
RETRY_AFTER_S = 0.1

A = TypeVar("A")
B = TypeVar("B")


class Shared(Generic[A, B]):
    """`run` with the items of all callers who wait, at most `most` at once and one run at a time.

    It answers each item, in order; what it raises, all callers of that run get. Nobody has more than `most` items.
    """

    def __init__(self, run: Callable[[Sequence[A]], Awaitable[list[B]]], *, most: int) -> None:
        self._run = run
        self._most = most
        self._waiting: deque[tuple[Sequence[A], asyncio.Future[list[B]]]] = deque()
        self._items = 0
        self._running: asyncio.Task[None] | None = None
        self.runs = 0

    async def ask(self, items: Sequence[A]) -> list[B]:
        """What came of each. Raises what `run` does, and Overloaded. Cancelled, it may still be done."""
        if not items:
            return []
        if self._items + len(items) > MAX_WAITING:
            raise Overloaded(f"{self._items} already wait for the vault", RETRY_AFTER_S)
        answer: asyncio.Future[list[B]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        self._items += len(items)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """When all that waits is done."""
        if self._running is not None:
            await self._running

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft()]
            size = len(batch[0][0])
            while self._waiting and size + len(self._waiting[0][0]) <= self._most:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            self._items -= size
            self.runs += 1
            try:
                answers = iter(await self._run([item for items, _ in batch for item in items]))
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for items, answer in batch:
                    told = [next(answers) for _ in items]
                    if not answer.done():
                        answer.set_result(told)
