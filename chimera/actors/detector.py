"""The detector actor: the watch over one shard of the metrics, in a process of its own.

It keeps nothing outside its memory. Whoever sends it readings numbers the batches, keeps its snapshots, and the batches
since the last of them; a process that was started anew is told where to begin, and takes in again what came after
(`chimera.system.shard_stream`). So a shard needs no disk that it would find again on another node.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import Readings
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import NotBegun
from chimera.core.watching import Alert

History = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Timestamps and values (n,), oldest first."""


class Columns(NamedTuple):
    """Readings by column, which takes a quarter of the memory and of the time to send."""

    metrics: list[str]
    timestamps: array[float]
    values: array[float]

    def readings(self) -> Readings:
        """Plain tuples, which are all that a reading is."""
        return cast("Readings", list(zip(*self, strict=True)))


@dataclass(frozen=True, slots=True)
class Pushed:
    """What batch `number` showed."""

    number: int
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a shard knows after batch `taken`, as its engine writes it."""

    taken: int
    state: bytes


class DetectorShard:
    """Hosts one `AnomalyDetectionEngine`. Batches come in by their numbers, without a gap, each of them once.

    Every method but `begin` raises NotBegun in a process that has not been told yet where it stands.
    """

    def __init__(
        self, *, named: str, options: WatchOptions, limits: tuple[Limit, ...] = (), clock: Clock | None = None
    ) -> None:
        self._named = named
        self._options = options
        self._limits = limits
        self._clock = clock or SystemClock()
        self._begun: AnomalyDetectionEngine | None = None
        self._last = Pushed(0, ())
        self._turn = asyncio.Lock()

    async def begin(self, taken: int, state: bytes) -> None:
        """Go on after batch `taken`, knowing `state` (of a `Kept`), or nothing where that is empty.

        Raises StorageError for a state that cannot be used, DetectorError and InputError for options that cannot.
        """
        async with self._turn:
            engine = AnomalyDetectionEngine(options=self._options, limits=self._limits, clock=self._clock)
            if state:
                engine.restore(state)
            if self._begun is not None:
                await self._begun.aclose()
            self._begun, self._last = engine, Pushed(taken, ())

    async def push(self, number: int, batch: Columns) -> Pushed:
        """Take in batch `number`, and tell what it shows. The last one may be sent again: it is told again, no more.

        Raises NotBegun for any other than the next or the last.
        """
        async with self._turn:
            engine = self._engine
            if number == self._last.number + 1:
                self._last = Pushed(number, tuple(await engine.push(batch.readings())))
            elif number != self._last.number:
                raise NotBegun(f"{self._named} has taken in batch {self._last.number}: {number} is not its next")
            return self._last

    async def snapshot(self) -> Kept:
        """What to keep, so that another process can go on from here. Batches wait while it is written."""
        async with self._turn:
            return Kept(self._last.number, self._engine.snapshot())

    async def views(self, metrics: str | None, bands: bool) -> list[MetricView]:
        """See `AnomalyDetectionEngine.views`."""
        return self._engine.views(metrics, bands=bands)

    async def view(self, metric: str, band: bool) -> MetricView:
        """See `AnomalyDetectionEngine.view`."""
        return self._engine.view(metric, band=band)

    async def history(self, metric: str) -> History:
        """See `AnomalyDetectionEngine.history`."""
        return self._engine.history(metric)

    async def status(self) -> EngineStatus:
        """See `AnomalyDetectionEngine.status`."""
        return self._engine.status()

    async def close(self) -> None:
        """End background learning."""
        if self._begun is not None:
            await self._begun.aclose()

    def __repr__(self) -> str:  # the dashboard shows it
        return f"DetectorShard[{self._named}]"

    @property
    def _engine(self) -> AnomalyDetectionEngine:
        if self._begun is None:
            raise NotBegun(f"{self._named} was started anew, and knows nothing yet")
        return self._begun
