"""Who judges the readings of a `chimera watch`: an engine in this process, or a watch wired for Ray."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.source import Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.cli.watch.recorder import Recorder
from chimera.core.watching import Alert, AnomalyDetected, Reading

if TYPE_CHECKING:
    from chimera.system.watching import Watching


class Told(NamedTuple):
    """An alert, and the score of the reading that it is about."""

    alert: Alert
    score: float


class Watcher(Protocol):
    """Takes what a source has, and tells what it shows."""

    def alerts(self, source: Source) -> AsyncGenerator[list[Told], None]:
        """What the readings show, a list for each part of them, until the source ends; it is opened and closed here.

        It may be left after any part. Raises SourceError where nothing can come.
        """
        ...

    async def top(self, rows: int) -> list[MetricView]:
        """The metrics with the highest scores, the highest first, with their bands."""
        ...

    async def names(self) -> list[str]:
        """Of all metrics."""
        ...

    async def unjudged(self, handed: int) -> int:
        """How many of so many readings that the source handed over it did not come to before it was left."""
        ...

    async def status(self) -> EngineStatus: ...


class InProcess:
    """An engine, called round by round: with at most one reading a metric, so that what it says is about that one."""

    def __init__(self, engine: AnomalyDetectionEngine, recorder: Recorder | None = None) -> None:
        self._engine = engine
        self._recorder = recorder
        self._begun = 0

    async def alerts(self, source: Source) -> AsyncGenerator[list[Told], None]:
        async with source:
            async for batch in source.batches():
                for each in rounds(batch):
                    self._begun += len(each)
                    alerts = await self._engine.push(each)
                    if self._recorder is not None:
                        self._recorder.note(each, alerts)
                    yield [Told(alert, self._score(alert)) for alert in alerts]

    async def top(self, rows: int) -> list[MetricView]:
        return [self._engine.view(view.metric, band=True) for view in highest(self._engine.views(), rows)]

    async def names(self) -> list[str]:
        return [view.metric for view in self._engine.views()]

    async def unjudged(self, handed: int) -> int:
        return handed - self._begun

    async def status(self) -> EngineStatus:
        return self._engine.status()

    def _score(self, alert: Alert) -> float:
        if isinstance(alert, AnomalyDetected):
            return alert.score
        return self._engine.view(alert.metric).score or 0.0


class Wired:
    """A watch over shards on Ray, or over Ray itself."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self._through = False

    async def alerts(self, source: Source) -> AsyncGenerator[list[Told], None]:
        found = cast("AsyncGenerator[Alert, None]", self._watching.watch(source))
        async with aclosing(found):
            async for alert in found:
                yield [Told(alert, await self._score(alert))]
        self._through = True

    async def top(self, rows: int) -> list[MetricView]:
        shown = highest(await self._watching.views(), rows)
        return await asyncio.gather(*(self._watching.view(view.metric, band=True) for view in shown))

    async def names(self) -> list[str]:
        return [view.metric for view in await self._watching.views()]

    async def unjudged(self, handed: int) -> int:
        """By what the shards have counted."""
        status = await self.status()
        return 0 if self._through else max(0, handed - status.readings - sum(status.refused.values()))

    async def status(self) -> EngineStatus:
        return (await self._watching.status()).engine

    async def _score(self, alert: Alert) -> float:
        """That of a failure warning is the score of its metric's last reading."""
        if isinstance(alert, AnomalyDetected):
            return alert.score
        return (await self._watching.view(alert.metric)).score or 0.0


def highest(views: Sequence[MetricView], rows: int) -> list[MetricView]:
    """The `rows` views with the highest scores; those without one last, by name."""

    def place(view: MetricView) -> tuple[float, str]:
        return (float("inf") if view.score is None else -view.score, view.metric)

    return heapq.nsmallest(rows, views, key=place)


def rounds(readings: Sequence[Reading]) -> list[list[Reading]]:
    """The readings in as few parts as can be, with at most one of each metric in a part; a metric's in their order."""
    parts: list[list[Reading]] = []
    seen: Counter[str] = Counter()
    for reading in readings:
        turn = seen[reading.metric]
        seen[reading.metric] = turn + 1
        if turn == len(parts):
            parts.append([])
        parts[turn].append(reading)
    return parts
