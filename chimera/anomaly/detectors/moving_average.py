"""A control chart: how far a reading, and the mean of the last few, are from a slow moving average.

The chart of exponentially weighted means is Roberts's (Technometrics 1, 1959): with weight w a mean of independent
readings has the variance w / (2 - w) of theirs. A reading far away is drawn in before it is learned, so that one spike
neither moves the limits nor widens them much.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from chimera.anomaly.buffer import Slots
from chimera.anomaly.detectors.base import SlotDetector, Values, in_units
from chimera.core.errors import InputError

DRAWN_IN_AT = 4.0
"""Sigmas beyond which a reading is learned as if it were this far."""

TRUSTING = 5
"""Readings at the start that are learned as they are."""

WARM = 30
"""Readings before the first score."""


class MovingAverageDetector(SlotDetector):
    """Scores are sigmas: the larger of the reading's and the fast mean's distance from the slow mean."""

    name: ClassVar[str] = "moving_average"
    unit: ClassVar[str] = "sigma"
    scale_free: ClassVar[bool] = True

    def __init__(self, metrics: int = 1, *, slow: float = 0.02, fast: float = 0.2) -> None:
        """`slow` and `fast` are weights of a new reading, 0 < slow < fast <= 1."""
        if not 0.0 < slow < fast <= 1.0:
            raise InputError(f"weights must be 0 < slow < fast <= 1, not {slow} and {fast}")
        fields = ("mean", "variance", "fast", "before")
        super().__init__(metrics, {"taken": (np.int64, (), 0)} | dict.fromkeys(fields, (np.float64, (), 0.0)))
        self._slow, self._fast = slow, fast

    def limits(self, sigmas: float = 3.0) -> tuple[Values, Values]:
        """The control limits of single readings, low and high, each (metrics,)."""
        spread = sigmas * np.sqrt(self._rows["variance"])
        return self._rows["mean"] - spread, self._rows["mean"] + spread

    def _score(self, values: Values, at: Slots) -> Values:
        mean, sigma = self._rows["mean"][at], np.sqrt(self._rows["variance"][at])
        fast = self._rows["fast"][at]
        lately = fast + self._fast * (values - fast) - mean
        alone = in_units(np.abs(values - mean), sigma)
        together = in_units(np.abs(lately), sigma * np.sqrt(self._fast / (2.0 - self._fast)))
        return np.where(self._rows["taken"][at] < WARM, 0.0, np.maximum(alone, together))

    def _learn(self, values: Values, at: Slots) -> None:
        rows = self._rows
        taken, mean, variance = rows["taken"][at], rows["mean"][at], rows["variance"][at]
        away, before = values - mean, rows["before"][at]
        # while nothing has moved no distance is known to be far: what two readings agree on is learned
        agreed = np.where(away * before > 0.0, np.minimum(np.abs(away), np.abs(before)), 0.0)
        reach = np.where(variance > 0.0, DRAWN_IN_AT * np.sqrt(variance), agreed)
        reach = np.where(taken < TRUSTING, np.abs(away), reach)
        learned = np.where(taken == 0, 0.0, np.clip(away, -reach, reach))
        weight = np.maximum(self._slow, 1.0 / (taken + 1.0))
        first = np.where(taken == 0, values, mean)
        rows["mean"][at] = first + weight * learned
        rows["variance"][at] = (1.0 - weight) * (variance + weight * learned * learned)
        fast = np.where(taken == 0, values, rows["fast"][at])
        rows["fast"][at] = fast + self._fast * (first + learned - fast)
        rows["before"][at] = np.where(taken == 0, 0.0, away)
        rows["taken"][at] = taken + 1
