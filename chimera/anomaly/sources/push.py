"""Readings that a Python program hands over itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Self

from chimera.anomaly.sources.intake import Inbox, Raw, Sieve
from chimera.anomaly.sources.source import MAX_BATCH, Readings, Source, SourceOptions
from chimera.core.errors import Overloaded
from chimera.core.watching import Reading

RETRY_AFTER_S = 1.0


class PushSource(Source):
    """`await source.push(readings)` from the program that has them; whoever iterates gets them.

    Called on the event loop that iterates. What is refused is counted in `refused`. Raises SourceError once closed.
    """

    def __init__(self, *, options: SourceOptions | None = None) -> None:
        self._options = options or SourceOptions()
        self.name = "push"
        self._sieve = Sieve(self._options.metrics)
        self.refused: dict[str, int] = self._sieve.refused
        self._inbox = Inbox(self._options.max_queued)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.finish()

    async def push(self, readings: Iterable[Reading] | Iterable[Raw]) -> int:
        """Hand over readings, and wait while there is no room. Returns how many were taken in.

        Raises Overloaded when there is none for `timeout_s`; what was taken in until then stays.
        """
        kept = self._sieve.sift(readings)
        step = min(MAX_BATCH, self._inbox.limit)
        for start in range(0, len(kept), step):
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    await self._inbox.put(kept[start : start + step])
            except TimeoutError:
                raise self._overloaded(f"{start:,} of {len(kept):,} readings were taken in") from None
        return len(kept)

    def push_nowait(self, readings: Iterable[Reading] | Iterable[Raw]) -> int:
        """Hand over readings, all or none, without waiting: for callbacks, and who would rather lose than wait.

        Returns how many were taken in: those that are refused or unwanted are not. Called on the event loop, as `push`.
        Raises Overloaded when they have no room now, or are more than `max_queued`.
        """
        kept = self._sieve.sift(readings)
        if not self._inbox.offer(kept):
            raise self._overloaded("none of these were taken in")
        return len(kept)

    def finish(self) -> None:
        """No more will come: the iteration ends after what is waiting, and whoever pushes gets a SourceError."""
        self._inbox.close()

    def batches(self) -> AsyncIterator[Readings]:
        return self._inbox.batches()

    def _overloaded(self, what: str) -> Overloaded:
        waiting, limit = len(self._inbox), self._inbox.limit
        return Overloaded(f"{waiting:,} of at most {limit:,} readings wait: {what}; try again later", RETRY_AFTER_S)
