"""Readings of a few metrics with anomalies that no detector misses, and a source of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Self

import numpy as np

from chimera.anomaly.sources.source import Readings
from chimera.core.watching import Alert, Reading


def made_batches(batches: int = 30, *, metrics: int = 3, rounds: int = 10, seed: int = 5) -> list[Readings]:
    """Each batch has `rounds` readings of every metric, 10 s apart. Two in three metrics break in the last third."""
    rng = np.random.default_rng(seed)
    values = rng.normal(50.0, 1.0, (batches * rounds, metrics))
    late = 2 * batches * rounds // 3
    values[late:, 0::3] += 40.0
    values[late + 20 : late + 24, 1::3] -= 45.0
    flat = [
        [Reading(f'load{{host="{m}"}}', 1_000.0 + 10.0 * t, float(values[t, m])) for m in range(metrics)]
        for t in range(batches * rounds)
    ]
    return [[each for row in flat[start : start + rounds] for each in row] for start in range(0, len(flat), rounds)]


def in_order(alerts: Sequence[Alert]) -> list[Alert]:
    return sorted(alerts, key=lambda alert: (alert.timestamp, alert.metric))


class Listed:
    """A source of these batches."""

    name = "listed"

    def __init__(self, batches: Sequence[Readings], *, fault: Exception | None = None) -> None:
        self.refused: dict[str, int] = {}
        self.left = False
        self._batches = batches
        self._fault = fault

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.left = True

    async def batches(self) -> AsyncIterator[Readings]:
        for batch in self._batches:
            yield batch
        if self._fault:
            raise self._fault
