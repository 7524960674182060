"""Reports on their way up: kept until the one who collects them says that they have arrived."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from chimera.swarm.attempt import Report


@dataclass(frozen=True, slots=True)
class Batch:
    """Reports numbered up to `last`. Collect again with `acked=last` to have them forgotten here."""

    last: int
    reports: tuple[Report, ...]


class Outbox:
    """An ordered mailbox for one reader, who polls. What was read and not acknowledged is given again.

    It needs no bound of its own: it holds at most one report for each attempt that its owner was given.
    """

    def __init__(self) -> None:
        self._reports: deque[Report] = deque()
        self._first = 1
        self._news = asyncio.Event()

    def put(self, reports: Iterable[Report]) -> None:
        self._reports.extend(reports)
        if self._reports:
            self._news.set()

    async def collect(self, *, acked: int, wait_s: float, most: int = 1_000) -> Batch:
        """At most `most` reports after `acked`; waits up to `wait_s` for the first. An empty batch is a heartbeat."""
        while self._reports and self._first <= acked:
            self._reports.popleft()
            self._first += 1
        if not self._reports:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), wait_s)
            except TimeoutError:
                return Batch(acked, ())
        reports = tuple(self._reports)[:most]
        return Batch(self._first - 1 + len(reports), reports)
