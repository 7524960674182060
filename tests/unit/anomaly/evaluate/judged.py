"""A simple detector and a simple forecaster, whose figures are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

import numpy as np

from chimera.anomaly.evaluate import Point, Result
from chimera.anomaly.evaluate.series import Floats


def distance(stream: Iterator[Point]) -> Generator[Result, None, None]:
    """Distance from the mean of the last 100 values in their standard deviations, to halves, so that scores tie."""
    last: deque[float] = deque(maxlen=100)
    for at, (_, value) in enumerate(stream):
        z = 0.0
        if len(last) > 20:
            known = np.array(last)
            z = float((value - known.mean()) / (known.std() + 1e-9))
        last.append(value)
        kind = "pattern" if at % 3 == 0 else "spike" if z > 0 else "drop"
        yield round(2 * abs(z)) / 2, abs(z) > 3.9, kind


def drift(history: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
    """A line through the means of the last two stretches of 30 points."""
    slope = (history[-30:].mean() - history[-60:-30].mean()) / 30
    mean = history[-30:].mean() + slope * (15 + np.arange(1, horizon + 1))
    wide = 1.6 * np.diff(history).std() * np.sqrt(np.arange(1, horizon + 1))
    return mean, mean - wide, mean + wide
