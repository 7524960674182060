"""A series with labels, and a detector run over it: one point at a time, so that nothing can look ahead."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chimera.core.errors import DetectorError, InputError
from chimera.core.watching import AnomalyKind

Floats = NDArray[np.float64]

Flags = NDArray[np.bool_]

Ints = NDArray[np.int64]

Point = tuple[float, float]
"""Unix seconds and a value."""

Result = tuple[float, bool, AnomalyKind | str | None]
"""Score (higher is more anomalous, comparable between series), alert, and what kind the detector takes it for."""

StreamDetector = Callable[[Iterator[Point]], Generator[Result, None, None]]
"""Called once a series. It must yield one result for each point, before it asks for the next point."""

MAX_POINTS = 1_000_000

HUGE = 1e12
"""What an infinite score counts as, so that sums stay finite."""


@dataclass(frozen=True)
class Window:
    """A labelled anomaly: the first and last point at which an alert finds it, and the point where it begins.

    NAB's windows open before the anomaly begins, so that `instant` may lie anywhere within.
    """

    first: int
    last: int
    instant: int
    kind: AnomalyKind | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """One metric with its labels. `corpus` is whose rules count: which tolerance VUS-PR takes, if NAB's score is told.

    `probation` points at the start are for learning: alerts and windows within them do not count. Windows are in order
    and do not overlap.
    """

    name: str
    corpus: Literal["nab", "synthetic"]
    group: str
    timestamps: Floats
    values: Floats
    windows: tuple[Window, ...]
    probation: int

    def __post_init__(self) -> None:
        points = len(self.values)
        if len(self.timestamps) != points or not 0 < points <= MAX_POINTS:
            raise InputError(f"{self.name}: 1..{MAX_POINTS} points, each with a timestamp; not {points}")
        if not 0 <= self.probation < points:
            raise InputError(f"{self.name}: a probation of {self.probation} leaves none of {points} points to score")
        end = -1
        for window in self.windows:
            if not end < window.first <= window.instant <= window.last < points:
                raise InputError(f"{self.name}: windows must be in order and within the series, {window} is not")
            end = window.last

    def inside(self) -> Flags:
        """(points,) whether each point lies in a window."""
        flags = np.zeros(len(self.values), dtype=np.bool_)
        for window in self.windows:
            flags[window.first : window.last + 1] = True
        return flags


@dataclass(frozen=True, eq=False)
class Trace:
    """What a detector said of each point of a series, and the CPU time that each took."""

    scores: Floats
    alerts: Flags
    kinds: tuple[AnomalyKind | None, ...]
    cpu_s: Floats


class _Tap:
    """Hands out the points of a series and counts them."""

    def __init__(self, series: Series) -> None:
        self.read = 0
        self._points = zip(series.timestamps.tolist(), series.values.tolist(), strict=True)

    def __iter__(self) -> Iterator[Point]:
        return self

    def __next__(self) -> Point:
        point = next(self._points)
        self.read += 1
        return point


def run(detector: StreamDetector, series: Series) -> Trace:
    """Run `detector` over `series`, strictly in order.

    CPU time is the calling thread's: the wall clock of a shared machine says nothing.
    Raises DetectorError where the detector reads ahead, ends early, or yields what is no result.
    """
    points = len(series.values)
    scores, alerts, cpu_s = np.zeros(points), np.zeros(points, dtype=np.bool_), np.zeros(points)
    kinds: list[AnomalyKind | None] = []
    tap = _Tap(series)
    results = iter(detector(tap))
    for at in range(points):
        started = time.thread_time()
        result = next(results, None)
        cpu_s[at] = time.thread_time() - started
        if tap.read > at + 1:
            raise DetectorError(
                f"{series.name}: the detector looks ahead, result {at} came after {tap.read} points were read;"
                f" yield a result before you ask for the next point"
            )
        scores[at], alerts[at], kind = _checked(result, series, at)
        kinds.append(kind)
    return Trace(np.nan_to_num(scores, nan=0.0, posinf=HUGE, neginf=-HUGE), alerts, tuple(kinds), cpu_s)


def _checked(result: Any, series: Series, at: int) -> tuple[float, bool, AnomalyKind | None]:
    if result is None:
        raise DetectorError(f"{series.name}: the detector ended after {at} of {len(series.values)} points")
    try:
        score, alert, kind = result
        return float(score), bool(alert), None if kind is None else AnomalyKind(kind)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(AnomalyKind)
        raise DetectorError(
            f"{series.name}: result {at} is {result!r}, not (score, alert, kind) with a kind of {kinds} or None"
        ) from error


def probation(points: int) -> int:
    """NAB's: the first 15 % of a file, at most 750 points."""
    return math.floor(min(0.15 * points, 0.15 * 5_000))
