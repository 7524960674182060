"""Alerts against labelled windows: what was found, what was a false alarm, and what chance alone would have found.

Counting points instead flatters: a detector that never alerts is right at nine points of ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chimera.anomaly.evaluate.series import Flags, Ints, Series

REFRACTORY = 30
"""Points after an alert in which further ones are the same alert: an alarm that never stops pays once each 30."""

SHIFTS = 50
"""Random shifts of the alerts that chance is estimated from."""

SHIFT_SEED = 7

NOT_FOUND = -1


@dataclass(frozen=True)
class Counts:
    """Windows found, windows that count, and alerts outside of any window."""

    found: int = 0
    windows: int = 0
    false_alarms: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.found + other.found, self.windows + other.windows, self.false_alarms + other.false_alarms)

    @property
    def precision(self) -> float:
        """Windows found to windows found and false alarms; 0 without alerts."""
        return self.found / max(1, self.found + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.found / max(1, self.windows)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.found / max(1, self.found + self.false_alarms + self.windows)


class Events:
    """The alerts of one series that count, against its windows.

    `kept` are the alerts' points: after probation, thinned by the refractory. `firsts` is where each window was found
    first, NOT_FOUND if it was not or ends within the probation.
    """

    def __init__(self, series: Series, alerts: Flags) -> None:
        self._start, self._inside = series.probation, series.inside()
        first = np.array([window.first for window in series.windows], dtype=np.int64)
        last = np.array([window.last for window in series.windows], dtype=np.int64)
        self.counting = last >= self._start
        self._first, self._last = np.maximum(first, self._start)[self.counting], last[self.counting]
        self.normal_points = int((~self._inside[self._start :]).sum())
        self.kept = thin(np.flatnonzero(alerts[self._start :]) + self._start)
        self.counts = self._count(self.kept)
        self.firsts = np.full(len(first), NOT_FOUND, dtype=np.int64)
        self.firsts[self.counting] = self._find(self.kept)

    def shifted(self, by: int) -> Counts:
        """The counts if every alert had come `by` points later, around the end."""
        scored = len(self._inside) - self._start
        return self._count(np.sort((self.kept - self._start + by) % scored + self._start))

    @property
    def scored_points(self) -> int:
        return len(self._inside) - self._start

    def _count(self, kept: Ints) -> Counts:
        found = int((self._find(kept) != NOT_FOUND).sum())
        return Counts(found, len(self._first), int((~self._inside[kept]).sum()))

    def _find(self, kept: Ints) -> Ints:
        """The first of `kept` (sorted) within each window that counts."""
        if not len(kept):
            return np.full(len(self._first), NOT_FOUND, dtype=np.int64)
        after = np.searchsorted(kept, self._first)
        first = kept[np.minimum(after, len(kept) - 1)]
        within = (after < len(kept)) & (first <= self._last)
        return np.where(within, first, NOT_FOUND)


def thin(alerts: Ints, refractory: int = REFRACTORY) -> Ints:
    """Of the sorted points `alerts` the first, and each that comes `refractory` or more after the one kept last."""
    kept, at = [], 0
    while at < len(alerts):
        kept.append(int(alerts[at]))
        at = int(np.searchsorted(alerts, kept[-1] + refractory))
    return np.array(kept, dtype=np.int64)


def chance_f1(events: Sequence[Events]) -> float:
    """The F1 that blind alerts of the same number and spacing get: the mean over seeded circular shifts.

    NAB's windows are wide (a tenth of each file), so that raw F1 says little.
    """
    rng = np.random.default_rng(SHIFT_SEED)
    drawn = [
        sum((each.shifted(int(rng.integers(0, each.scored_points))) for each in events), Counts()).f1
        for _ in range(SHIFTS)
    ]
    return float(np.mean(drawn))


def skill(f1: float, chance: float) -> float:
    """F1 above chance, as a share of what there was to gain."""
    return (f1 - chance) / (1 - chance) if chance < 1 else 0.0
