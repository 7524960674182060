"""Robust statistics of the last readings: how far a reading is from their median, and how steep they have become.

Median and quartiles do not move for a few wild readings. They are taken anew every 25 readings, which costs a
25th of doing so every time, and is late by a tenth of the ring. The trend is the slope of a straight line through the
last 48 readings, held against the slopes that such lines had before.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, Columns, Slots, TimeSeriesBuffer
from chimera.anomaly.detectors.base import Adopt, SlotDetector, Study, Values, in_units

RING = 250

REFRESH_EVERY = 25

LINE = 48

SLOPES = 32

SLOPE_EVERY = 12
"""Readings between two slopes that are kept, so that SLOPES of them reach 384 readings back."""

OVERLAPPING = LINE // SLOPE_EVERY
"""How many of the kept slopes share readings with the present one. They are not held against it."""

FEWEST_SLOPES = 8

SIGMA_OF_IQR = 0.7413
"""The standard deviation of normal numbers is their interquartile range by this."""

_STEPS = np.arange(LINE) - (LINE - 1) / 2.0

_WEIGHTS = _STEPS / np.sum(_STEPS**2)


class StatisticalDetector(SlotDetector):
    """Scores are robust standard deviations: the larger of the reading's and the slope's distance from usual."""

    name: ClassVar[str] = "statistical"
    unit: ClassVar[str] = "sigma"
    scale_free: ClassVar[bool] = True

    def __init__(self, metrics: int = 1) -> None:
        columns: Columns = {
            "median": (np.float64, (), 0.0),
            "sigma": (np.float64, (), -1.0),
            "usual_slope": (np.float64, (), 0.0),
            "slope_sigma": (np.float64, (), -1.0),
            "slopes": (np.float32, (SLOPES,), np.nan),
        }
        super().__init__(metrics, columns)
        self._ring = TimeSeriesBuffer(metrics, RING)

    def _score(self, values: Values, at: Slots) -> Values:
        sigma = self._rows["sigma"][at]
        alone = in_units(np.abs(values - self._rows["median"][at]), sigma)
        scores = np.where(sigma < 0.0, 0.0, alone)
        steep = np.flatnonzero(self._rows["slope_sigma"][at] >= 0.0)
        if len(steep):
            which = at[steep]
            usual, spread = self._rows["usual_slope"][which], self._rows["slope_sigma"][which]
            slopes = self._slope(np.column_stack([self._ring.last(LINE - 1, which), values[steep]]))
            scores[steep] = np.maximum(scores[steep], in_units(np.abs(slopes - usual), spread))
        return scores

    def _learn(self, values: Values, at: Slots) -> None:
        self._ring.append(values, at)
        taken = self._ring.taken[at]
        kept = at[(taken >= LINE) & (taken % SLOPE_EVERY == 0)]
        if len(kept):
            place = self._ring.taken[kept] // SLOPE_EVERY % SLOPES
            self._rows["slopes"][kept, place] = self._slope(self._ring.last(LINE, kept))
        due = at[taken % REFRESH_EVERY == 0]
        if len(due):
            ring, slopes = self._held(due)
            self._rebase(due, _spread(ring), _spread(slopes))

    def study(self, at: Slots | None = None) -> Study | None:
        """Take median and quartiles of the slots anew at once, instead of with the next 25th reading."""
        at = np.arange(self.metrics) if at is None else at
        at = at[self._ring.taken[at] >= REFRESH_EVERY]
        if not len(at):
            return None
        taken = self._ring.taken[at].copy()
        ring, slopes = self._held(at)

        def learn() -> Adopt:
            usual = _spread(ring), _spread(slopes)

            def adopt() -> None:
                same = np.flatnonzero(at < self.metrics)
                same = same[self._ring.taken[at[same]] >= taken[same]]  # no slot that is another metric's by now
                self._rebase(at[same], *((middle[same], sigma[same]) for middle, sigma in usual))

            return adopt

        return learn

    def resize(self, metrics: int) -> None:
        super().resize(metrics)
        self._ring.resize(metrics)

    def forget(self, at: Slots) -> None:
        super().forget(at)
        self._ring.forget(at)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return {**super().snapshot(), **self._ring.snapshot()}

    def restore(self, state: Arrays) -> None:
        ring = TimeSeriesBuffer(0, RING)
        ring.restore(state)
        super().restore(state)
        self._ring = ring

    def state_bytes(self) -> int:
        return super().state_bytes() + self._ring.state_bytes()

    @staticmethod
    def _slope(lines: npt.NDArray[np.floating[Any]]) -> Values:
        """The slopes (n,) of straight lines through `lines` (n, LINE), a reading."""
        wide = lines.astype(np.float64)
        # a sum in fixed order: a matrix product may come out differently for another number of rows
        slopes: Values = np.einsum("ij,j->i", wide - wide[:, :1], _WEIGHTS)
        return slopes

    def _held(self, at: Slots) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Copies of the readings, and of the slopes that no longer share readings with the present."""
        slopes = self._rows["slopes"][at]
        newest = self._ring.taken[at] // SLOPE_EVERY
        recent = (newest[:, None] - np.arange(OVERLAPPING)) % SLOPES
        slopes[np.arange(len(at))[:, None], recent] = np.nan
        return self._ring.last(RING, at).copy(), slopes

    def _rebase(self, at: Slots, readings: tuple[Values, ...], slopes: tuple[Values, ...]) -> None:
        self._rows["median"][at], self._rows["sigma"][at] = readings
        known = np.count_nonzero(~np.isnan(self._rows["slopes"][at]), axis=1) >= FEWEST_SLOPES + OVERLAPPING
        self._rows["usual_slope"][at] = np.where(known, slopes[0], 0.0)
        self._rows["slope_sigma"][at] = np.where(known, slopes[1], -1.0)


def _spread(lines: npt.NDArray[np.floating[Any]]) -> tuple[Values, Values]:
    """Median and robust sigma of each row of `lines` (n, k), without its NaNs; 0 and 0 for a row of nothing else.

    Where half of the readings are equal, so that the quartiles are, sigma is the standard deviation.
    """
    ordered = np.sort(lines.astype(np.float64), axis=1)  # NaN last
    count = np.count_nonzero(~np.isnan(ordered), axis=1)
    rows = np.arange(len(ordered))
    low, middle, high = (
        np.where(count > 0, ordered[rows, (share * np.maximum(count - 1, 0)).astype(np.int64)], 0.0)
        for share in (0.25, 0.5, 0.75)
    )
    sigma = (high - low) * SIGMA_OF_IQR
    flat = np.flatnonzero((sigma == 0.0) & (count > 1))
    if len(flat):
        sigma[flat] = np.nanstd(ordered[flat], axis=1)
    return middle, sigma
