"""Whether a patch helped: its metric after it, beside the same metric before it and before the trouble began. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from pydantic import Field

from chimera.core.types import Frozen
from chimera.core.watching import Alert, AnomalyDetected

NORMAL = 1.4826
"""The spread of a normal distribution over its median distance from the median."""


class ProbationOptions(Frozen):
    """When a patch has proved itself, or not. Distances are in spreads of the metric as it used to be."""

    least: int = Field(default=5, ge=1, le=1_000)
    """Readings after the patch before it can be called worse."""
    readings: int = Field(default=20, ge=1, le=10_000)
    """Readings after which it is decided."""
    usual: float = Field(default=3.0, gt=0.0, allow_inf_nan=False)
    """A metric that is no farther than this from where it used to be is well again."""
    worse: float = Field(default=1.5, gt=1.0, allow_inf_nan=False)
    """So many times as far as without the patch is worse."""
    better: float = Field(default=0.5, gt=0.0, lt=1.0)
    """So much of the distance without the patch is better."""


Outcome = Literal["kept", "worse", "useless"]


class Probation:
    """One patch on probation. `before` are readings from before the trouble, `during` those since, oldest first.

    `take` the readings that come after the patch, in order; it says so once it is decided. A patch is kept when the
    metric is well again or clearly better, and worse or useless else: then it is rolled back.
    """

    def __init__(
        self, before: Sequence[float], during: Sequence[float], *, options: ProbationOptions | None = None
    ) -> None:
        self._options = options or ProbationOptions()
        usual = before or during or (0.0,)
        self._centre = median(usual)
        spread = NORMAL * median([abs(value - self._centre) for value in usual])
        self._spread = max(spread, 1e-3 * abs(self._centre), 1e-9)
        self._without = median([self._distance(value) for value in during]) if during else 0.0
        self._after: list[float] = []

    @classmethod
    def of(
        cls, alert: Alert, readings: Sequence[tuple[float, float]], *, options: ProbationOptions | None = None
    ) -> Probation:
        """That of a patch for `alert`, with the `readings` (timestamp, value) of its metric until the patch."""
        since = alert.since if isinstance(alert, AnomalyDetected) else alert.timestamp
        before = [value for at, value in readings if at < since]
        return cls(before, [value for at, value in readings if at >= since], options=options)

    def take(self, value: float) -> Outcome | None:
        """One more reading. None while nothing is decided."""
        self._after.append(self._distance(value))
        distance, without = median(self._after), self._without
        bound = max(self._options.usual, self._options.worse * without)
        if len(self._after) >= self._options.least and distance > bound:
            return "worse"
        if len(self._after) < self._options.readings:
            return None
        well = distance <= self._options.usual or distance <= self._options.better * without
        return "kept" if well else "useless"

    def _distance(self, value: float) -> float:
        return abs(value - self._centre) / self._spread
