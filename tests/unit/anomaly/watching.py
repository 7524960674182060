"""Metrics that behave, and then do not: what the tests of a watch are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.core.watching import Alert, Reading

STEP_S = 10.0


def noise(points: int, metrics: int, seed: int = 100) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(points, metrics) of normal numbers."""
    return np.random.default_rng(seed).normal(size=(points, metrics))


def batches(
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]], names: Sequence[str] = (), start: float = 1e6
) -> Iterator[list[Reading]]:
    """A batch a row: each metric has one reading in it."""
    names = names or [f"m{number}" for number in range(values.shape[1])]
    for number, row in enumerate(values.tolist()):
        yield [Reading(name, start + STEP_S * number, value) for name, value in zip(names, row, strict=True)]


async def fed(engine: AnomalyDetectionEngine, given: Iterable[list[Reading]]) -> list[Alert]:
    return [alert for batch in given for alert in await engine.push(batch)]
