"""What every watch does, and the watch within this process, for which no Ray is needed or imported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, runtime_checkable

from chimera.actors.detector import History
from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import MAX_BATCH, Readings, Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.core.clock import Clock
from chimera.core.types import Frozen
from chimera.core.watching import Alert, AnomalyDetected, Reading

log = logging.getLogger(__name__)

IN_FLIGHT = 8
"""Batches of a source that are worked on at once."""

MAX_KNOWN = 1_000
"""Metrics whose last fact is remembered, so that it is not told again when a detector sees it too."""

ECHO = 10
"""Readings within which a detector has seen what was a fact. It takes a few to tell a spike from a new level."""

Listener = Callable[[Alert], None]

Answer = asyncio.Future[tuple[Alert, ...]]


@runtime_checkable
class KnowsFacts(Protocol):
    """A source whose readings show some things by themselves, with nothing learned (`chimera.system.ray_source`)."""

    def facts(self) -> list[AnomalyDetected]:
        """Those of the batches since the last call."""
        ...

    def echoes(self, fact: AnomalyDetected) -> Iterable[str]:
        """The metrics in which detectors will see the same as this fact."""
        ...


class _Batch(NamedTuple):
    """Readings that are worked on, and what came with them: facts, and since when which metrics show them too."""

    answers: Sequence[Answer]
    facts: Sequence[AnomalyDetected] = ()
    echoes: Sequence[tuple[str, float]] = ()
    readings: Sequence[Reading] = ()


@dataclass(slots=True)
class _Told:
    """A fact, as one metric shows it. `until` is when a detector will have seen it, known when that time has come."""

    since: float
    left: int = ECHO
    until: float = math.inf


class _Facts:
    """What facts have told, so that detectors do not tell it again."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def learn(self, batch: _Batch) -> None:
        for metric, since in batch.echoes:
            self._told.pop(metric, None)
            self._told[metric] = _Told(since)
        while len(self._told) > MAX_KNOWN:
            del self._told[next(iter(self._told))]
        if not any(known.left for known in self._told.values()):
            return
        for reading in batch.readings:
            with contextlib.suppress(Exception):  # some may be none, which the engine refuses
                if (known := self._told.get(reading[0])) and known.left and reading[1] > known.since:
                    known.left -= 1
                    known.until = math.inf if known.left else reading[1]

    def has(self, alert: Alert) -> bool:
        """Whether this was told: there was a fact since the alert's anomaly began, or ECHO readings before or less."""
        known = self._told.get(alert.metric)
        if known is None or not isinstance(alert, AnomalyDetected) or alert.timestamp < known.since:
            return False
        return alert.since <= known.since or alert.timestamp <= known.until


class WatchStatus(Frozen):
    """How a watch is. `engine` adds up its shards. `deaths` are processes of shards that were replaced; `lost` readings
    could not be made good then, for no snapshot of them could be written before. `waiting` batches are on their way."""

    engine: EngineStatus
    shards: int
    waiting: int = 0
    deaths: int = 0
    snapshots: int = 0
    snapshots_failed: int = 0
    lost: int = 0


class Watching(ABC):
    """What every watch does. Used within `async with`, on one event loop."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *exc: object) -> None: ...

    @abstractmethod
    async def views(self, metrics: str | None = None, *, bands: bool = False) -> list[MetricView]:
        """See `AnomalyDetectionEngine.views`."""

    @abstractmethod
    async def view(self, metric: str, *, band: bool = False) -> MetricView:
        """See `AnomalyDetectionEngine.view`."""

    @abstractmethod
    async def history(self, metric: str) -> History:
        """See `AnomalyDetectionEngine.history`."""

    @abstractmethod
    async def status(self) -> WatchStatus:
        """How it is."""

    def on_alert(self, listener: Listener) -> None:
        """Have `listener` called with every alert, before whoever iterates gets it. What it raises is logged."""
        self._listeners.append(listener)

    async def push(self, readings: Iterable[Reading]) -> list[Alert]:
        """Take in what can be taken, and tell what it shows, by time.

        Never raises for a reading's sake. Raises ClusterError when a shard dies over and over.
        """
        given = readings if isinstance(readings, list) else list(readings)
        alerts: list[Alert] = []
        for start in range(0, len(given), MAX_BATCH):
            alerts += await _answered(await self._submit(given[start : start + MAX_BATCH]))
        self._tell(alerts)
        return alerts

    async def watch(self, source: Source) -> AsyncIterator[Alert]:
        """What the readings of a source show, as soon as it is known, until the source ends. Raises what it raises."""
        queue: asyncio.Queue[_Batch | None] = asyncio.Queue(IN_FLIGHT)
        known = _Facts()
        reading = asyncio.create_task(self._read(source, queue))
        try:
            while (batch := await queue.get()) is not None:
                known.learn(batch)
                alerts = [*batch.facts, *(alert for alert in await _answered(batch.answers) if not known.has(alert))]
                self._tell(alerts)
                for alert in alerts:
                    yield alert
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @abstractmethod
    async def _submit(self, readings: Readings) -> Sequence[Answer]:
        """Begin to work on these (MAX_BATCH at most), after all that were submitted before."""

    async def _read(self, source: Source, queue: asyncio.Queue[_Batch | None]) -> None:
        try:
            async with source:
                async for batch in source.batches():
                    if not isinstance(source, KnowsFacts):
                        await queue.put(_Batch(await self._submit(batch)))
                        continue
                    facts = source.facts()
                    echoes = [(metric, fact.timestamp) for fact in facts for metric in source.echoes(fact)]
                    await queue.put(_Batch(await self._submit(batch), facts, echoes, batch))
        except Exception as error:
            failed: Answer = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            await queue.put(_Batch((failed,)))
        else:
            await queue.put(None)

    def _tell(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            for listener in self._listeners:
                try:
                    listener(alert)
                except Exception:  # one listener's fault is no reason to be silent to the others
                    log.exception("a listener failed")


class LocalWatch(Watching):
    """A watch in this process, without Ray."""

    def __init__(
        self, *, options: WatchOptions | None = None, limits: Sequence[Limit] = (), clock: Clock | None = None
    ) -> None:
        """Raises DetectorError for an unknown or broken detector, InputError for too many limits."""
        super().__init__()
        self.engine = AnomalyDetectionEngine(options=options, limits=limits, clock=clock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.aclose()

    async def views(self, metrics: str | None = None, *, bands: bool = False) -> list[MetricView]:
        return self.engine.views(metrics, bands=bands)

    async def view(self, metric: str, *, band: bool = False) -> MetricView:
        return self.engine.view(metric, band=band)

    async def history(self, metric: str) -> History:
        return self.engine.history(metric)

    async def status(self) -> WatchStatus:
        return WatchStatus(engine=self.engine.status(), shards=1)

    async def _submit(self, readings: Readings) -> Sequence[Answer]:
        answered: Answer = asyncio.get_running_loop().create_future()
        answered.set_result(tuple(await self.engine.push(readings)))
        return (answered,)


async def _answered(answers: Sequence[Answer]) -> list[Alert]:
    """What all shards say, by time."""
    alerts = [alert for part in [await answer for answer in answers] for alert in part]
    return sorted(alerts, key=lambda alert: alert.timestamp)
