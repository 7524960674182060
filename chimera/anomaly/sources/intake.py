"""What every source does with what it is sent: names, timestamps and the filter are judged here, in one place."""

from __future__ import annotations

import asyncio
import copy
import fnmatch
import math
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Self

from chimera.anomaly.sources.source import MAX_BATCH, Readings
from chimera.core.errors import SourceError
from chimera.core.watching import MAX_METRIC_CHARS, Reading

Raw = tuple[object, object, object]
"""Metric, timestamp and value, as a stranger sent them."""

MAX_KNOWN = 100_000
"""Names whose verdict is remembered. With more of them all are forgotten: new names cost time, and no memory."""


class Sieve:
    """Makes readings of what came in: refuses (and counts) what is none, and drops what nobody asked for.

    A name has 1 to 512 characters, all of them printable: it will stand in a terminal, a log and a JSON document. A
    timestamp is a finite number. A value is any number at all: NaN, infinities and 1e308 are judged by whoever
    takes the readings.
    """

    def __init__(self, globs: Iterable[str] = ()) -> None:
        self.refused: Counter[str] = Counter()
        self.unwanted = 0
        self._globs = tuple(globs)
        self._pattern = re.compile("|".join(fnmatch.translate(glob) for glob in self._globs))
        self._known: dict[str, str] = {}

    def take(self, metric: object, timestamp: object, value: object) -> Reading | None:
        """A reading, or None for one that is refused or unwanted."""
        if (
            type(value) is float
            and type(timestamp) is float
            and type(metric) is str
            and self._known.get(metric) == ""  # what nearly all of them are, by the million
            and math.isfinite(timestamp)
        ):
            return Reading(metric, timestamp, value)
        fault = self.fault(metric, timestamp, value)
        if fault == "unwanted":
            self.unwanted += 1
        elif fault:
            self.refused[fault] += 1
        else:
            return Reading(metric, float(timestamp), float(value))  # type: ignore[arg-type] # what fault() has checked
        return None

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count what never became a reading. A count of 0 leaves no trace."""
        if count:
            self.refused[reason] += count

    def fault(self, metric: object, timestamp: object, value: object) -> str:
        """What is wrong: `name`, `timestamp`, `value`, `unwanted`, or nothing. Counts nothing."""
        if not isinstance(metric, str):
            return "name"
        verdict = self._known.get(metric)
        if verdict is None:
            verdict = self._judge(metric)
        if verdict:
            return verdict
        if (stamp := _number(timestamp)) is None or not math.isfinite(stamp):
            return "timestamp"
        return "value" if _number(value) is None else ""

    def sift(self, raw: Iterable[Raw]) -> Readings:
        """Those of them that are readings, and wanted. What has not three parts is refused as `field`."""
        readings: Readings = []
        for each in raw:
            try:
                metric, timestamp, value = each
            except (TypeError, ValueError):
                self.refused["field"] += 1
                continue
            if (reading := self.take(metric, timestamp, value)) is not None:
                readings.append(reading)
        return readings

    def apart(self) -> Self:
        """One that judges as this one does and counts for itself: for a thread, and for what may come again."""
        other = copy.copy(self)
        other.refused, other.unwanted = Counter(), 0
        return other

    def add(self, other: Self) -> None:
        """Count what another one has counted."""
        self.refused.update(other.refused)
        self.unwanted += other.unwanted

    def _judge(self, metric: str) -> str:
        if not 0 < len(metric) <= MAX_METRIC_CHARS or not metric.isprintable():
            return "name"
        if self._globs and not (self._matches(metric) or self._matches(metric.partition("{")[0])):
            verdict = "unwanted"
        else:
            verdict = ""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[metric] = verdict
        return verdict

    def _matches(self, name: str) -> bool:
        return name in self._globs or self._pattern.match(name) is not None


def _number(given: object) -> float | None:
    if type(given) is float:
        return given
    if isinstance(given, (str, bytes, bool)):
        return None
    try:
        return float(given)  # type: ignore[arg-type] # numpy's numbers are welcome
    except (TypeError, ValueError, OverflowError):
        return None


def in_batches(readings: Readings) -> Iterator[Readings]:
    """The same readings, at most MAX_BATCH at once."""
    for start in range(0, len(readings), MAX_BATCH):
        yield readings[start : start + MAX_BATCH]


class Inbox:
    """A bounded queue of readings between those who send and the one who iterates."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self._waiting: deque[Reading] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, readings: Sequence[Reading]) -> bool:
        """Take all of them in, or none where they have no room. Raises SourceError when closed."""
        if self.closed:
            raise SourceError("the source is closed: nobody takes its readings any more")
        if len(self._waiting) + len(readings) > self.limit:
            return False
        self._waiting.extend(readings)
        self._filled.set()
        return True

    async def put(self, readings: Sequence[Reading]) -> None:
        """Wait for room. `readings` must not be more than `limit`. Raises SourceError when closed meanwhile."""
        while not self.offer(readings):
            self._emptied.clear()
            await self._emptied.wait()

    def close(self) -> None:
        """Take no more. What is in is still handed out, and then the iteration ends."""
        self.closed = True
        self._filled.set()
        self._emptied.set()

    async def batches(self) -> AsyncIterator[Readings]:
        """What came in, in order, at most MAX_BATCH at once."""
        while True:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                self._emptied.set()
                yield batch
            if self.closed:
                return
            self._filled.clear()
            await self._filled.wait()
