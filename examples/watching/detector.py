"""A detector of one's own: how far a reading is from the one before it, in steps as they usually are."""

from __future__ import annotations

import numpy as np

from chimera.anomaly.buffer import Slots
from chimera.anomaly.detectors.base import SlotDetector, Values, in_units

MEMORY = 100
"""Steps over which the usual one is known."""

WARM = 20
"""Readings before it says anything."""

MOST = 1_000.0
"""No step counts for more than this many usual ones, or it would be remembered for ever."""


class StepDetector(SlotDetector):
    """Sees jumps, whatever the level. Its state is three numbers a metric."""

    name = "step"
    unit = "steps"
    scale_free = True

    def __init__(self, metrics: int) -> None:
        columns = {"last": (np.float64, (), np.nan), "step": (np.float64, (), 0.0), "taken": (np.int64, (), 0)}
        super().__init__(metrics, columns)

    def _score(self, values: Values, at: Slots) -> Values:
        rows = self._rows
        scores = in_units(np.abs(values - rows["last"][at]), rows["step"][at])
        return np.where(rows["taken"][at] >= WARM, scores, 0.0)

    def _learn(self, values: Values, at: Slots) -> None:
        rows = self._rows
        taken, usual = rows["taken"][at], rows["step"][at]
        step = np.nan_to_num(np.abs(values - rows["last"][at]))
        step = np.where(usual > 0.0, np.minimum(step, MOST * usual), step)
        rows["step"][at] = usual + (step - usual) / np.clip(taken, 1, MEMORY)
        rows["last"][at] = values
        rows["taken"][at] = taken + 1
