"""Reports on their way up: kept until the one who collects them says that they have arrived."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from chimera.actors.pace import Pace

T = TypeVar("T")


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Items numbered up to `last`. Collect again with `acked=last` to have them forgotten here.

    `origin` names the outbox: another one than before counts anew. `up` is the share of a manager's agents that can be
    given work.
    """

    last: int
    reports: tuple[T, ...]
    origin: str = ""
    up: float = 1.0


class Outbox(Generic[T]):
    """An ordered mailbox for one reader, who polls. What was read and not acknowledged is given again.

    It needs no bound of its own: it holds at most one report for each attempt that its owner was given.
    """

    def __init__(self) -> None:
        self._reports: deque[T] = deque()
        self._first = 1
        self._news = asyncio.Event()
        self._pace = Pace()
        self._origin = secrets.token_hex(4)

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def origin(self) -> str:
        """Names this outbox."""
        return self._origin

    @property
    def first(self) -> int:
        """The number of the oldest item that is still here."""
        return self._first

    @property
    def last(self) -> int:
        """The number of the newest item."""
        return self._first - 1 + len(self._reports)

    def put(self, reports: Iterable[T]) -> None:
        self._reports.extend(reports)
        if self._reports:
            self._news.set()

    def forget(self, acked: int) -> list[T]:
        """Let go of what has arrived; it is returned for the last time. An ack that is not this outbox's is ignored."""
        gone: list[T] = []
        if acked > self.last:
            return gone
        while self._reports and self._first <= acked:
            gone.append(self._reports.popleft())
            self._first += 1
        return gone

    async def collect(self, *, after: int, wait_s: float, most: int = 500) -> Batch[T]:
        """At most `most` items numbered from `after + 1`; waits up to `wait_s` for one. An empty batch: still alive.

        An `after` that this outbox never reached is a reader's who knew another one: it gets all there is.
        """
        if after > self.last:
            after = 0
        if after == self.last:
            self._news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                return Batch(after, (), self._origin)
        if self.last - after < most:
            await self._pace.keep()
        skip = max(0, after - self._first + 1)
        reports = tuple(islice(self._reports, skip, skip + most))
        return Batch(self._first - 1 + skip + len(reports), reports, self._origin)
