"""The source of a `chimera watch`, and how much of it was handed over: what is taken in is judged, or counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Self, cast

from chimera.anomaly.sources.source import Readings, Source
from chimera.core.errors import SourceError
from chimera.core.watching import AnomalyDetected

if TYPE_CHECKING:
    from chimera.system.local_watch import KnowsFacts

LEFT_S = 1.0
"""For counting what is left when a watch ends. A source that is finished has it at hand."""


class Feed(Source):
    """Hands over what a source has. `handed` counts readings: once it is finished and closed, all that were taken in.

    `opened` is called as soon as the source is open.
    """

    def __init__(self, source: Source, opened: Callable[[], None]) -> None:
        self.name, self.refused = source.name, source.refused
        self.handed = 0
        self.is_open = False
        self._source = source
        self._opened = opened
        self._finished = False
        self._batches: AsyncIterator[Readings] | None = None

    async def __aenter__(self) -> Self:
        await self._source.__aenter__()
        self.is_open = True
        self._opened()
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._finished and self._batches is not None:
                with suppress(TimeoutError, SourceError):
                    async with asyncio.timeout(LEFT_S):
                        async for batch in self._batches:
                            self.handed += len(batch)
        finally:
            await self._source.__aexit__(*exc)

    def finish(self) -> None:
        self._finished = True
        self._source.finish()

    async def batches(self) -> AsyncIterator[Readings]:
        self._batches = self._source.batches()
        async for batch in self._batches:
            self.handed += len(batch)
            yield batch


class KnowingFeed(Feed):
    """That of a source that knows facts."""

    def facts(self) -> list[AnomalyDetected]:
        return cast("KnowsFacts", self._source).facts()

    def echoes(self, fact: AnomalyDetected) -> Iterable[str]:
        return cast("KnowsFacts", self._source).echoes(fact)


def feed(source: Source, opened: Callable[[], None]) -> Feed:
    """Knows what the source knows."""
    return (KnowingFeed if hasattr(source, "facts") else Feed)(source, opened)
