"""How rarely each channel says what it says: streaming generalised-Pareto tails, one a metric and channel.

Raw scores mean something else on every metric (21 sigma is usual on one, 4 sigma is not on another). So what counts is
-log10 of the share of a metric's own past that went as far: beyond a threshold that 2 % pass, excesses are fitted by
a generalised Pareto distribution with the method of moments (Hosking and Wallis, Technometrics 29, 1987; for streams
Siffer et al., KDD 2017), and the threshold follows by stochastic approximation of the quantile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, SlotTable

Numbers = npt.NDArray[np.floating[Any]]
Marks = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64] | slice
Places = npt.NDArray[np.int64]

TAIL = 0.02
"""The share of scores beyond the threshold."""

WARM = 40
"""Scores that a tail is first set by: mean and spread, as if they were normal."""

STEADY = 400.0
"""Scores over which a threshold moves by the order of its mean excess."""

REMEMBERED = 60.0
"""Excesses over which their moments are taken."""

PRIOR = 20.0
"""Excesses' worth of belief in an exponential tail, the shape 0."""

FARTHEST = 5.0
"""Mean excesses that one score may count as when it is learned: no outlier makes all others usual."""

SHAPES = (-0.2, 0.4)
"""The lightest and the heaviest tail that is believed in."""

LARGEST = 1e9
"""Scores beyond this say no more, and can still be squared."""

LEAST = np.float32(1e-12)

_MOMENTS = ("threshold", "mean", "square", "excesses")


class Tails:
    """The tails of `channels` for each of `metrics` slots. 20 bytes each.

    Few scores are beyond their threshold, and few tails are young, so each of these is worked on alone: a score is
    one comparison for most.
    """

    def __init__(self, metrics: int, floors: Numbers) -> None:
        """`floors` (channels,): the least mean excess of each, in its own unit, for metrics that stand still."""
        self.floors = np.asarray(floors, np.float32)
        shape = (len(self.floors),)
        columns = dict.fromkeys(("mean", "square", "excesses", "learned"), (np.float32, shape, 0.0))
        self.rows = SlotTable(metrics, {"threshold": (np.float32, shape, np.inf), **columns})

    def score(self, raw: Numbers, at: Rows) -> Numbers:
        """-log10 of how rarely `raw` (n, channels) is passed; 0 below the threshold, and while a tail is not warm."""
        scores: Numbers = np.zeros(raw.shape, np.float32)
        cells = (raw > self.rows["threshold"][at]).reshape(-1).nonzero()[0]  # infinite until it is warm
        if len(cells):
            floors = np.maximum(self.floors, LEAST)[cells % len(self.floors)]
            scores.reshape(-1)[cells] = self._rarity(_taken(raw, cells), self._places(cells, at), floors)
        return scores

    def _rarity(self, raw: Numbers, places: Places, floors: Numbers) -> Numbers:
        """-log10 of how rarely `raw` (k,), all beyond their thresholds, are passed. `floors` (k,) of their means."""
        threshold, mean, square, spare = (self._column(name)[places] for name in _MOMENTS)
        mean = np.maximum(mean, LEAST)
        variance = np.maximum(square - mean * mean, LEAST * mean * mean)
        shape = np.clip(0.5 * (1.0 - mean * mean / variance), *SHAPES) * spare / (spare + PRIOR)
        over = (raw - threshold) / (np.maximum(mean, floors) * (1.0 - shape))
        shape = np.where(np.abs(shape) < 1e-3, np.float32(1e-3), shape)  # 1e-3 is as good as an exponential
        rarity: Numbers = np.log10(np.maximum(1.0 + shape * over, 1e-9)) / shape - np.log10(TAIL)
        return rarity

    def learn(self, raw: Numbers, at: Rows, wanted: Marks) -> None:
        """Take in those of `raw` (n, channels) that are `wanted` (n, channels) and finite."""
        cells = (wanted & np.isfinite(raw)).reshape(-1).nonzero()[0]
        places = self._places(cells, at)
        x, counts = _taken(raw, cells), self._column("learned")
        count = counts[places]
        counts[places] = np.minimum(count + 1.0, 1e6)
        young = count < WARM
        if not young.any():
            self._follow(x, places, count)
        elif young.all():
            self._begin(x, places, count)
        else:
            for learned, some in ((self._begin, young), (self._follow, ~young)):
                learned(x[some], places[some], count[some])

    def _follow(self, x: Numbers, places: Places, count: Numbers) -> None:
        """Warm tails: the threshold steps towards the quantile, the moments towards the excess."""
        thresholds, means, squares, excesses = (self._column(name) for name in _MOMENTS)
        threshold, mean = thresholds[places], means[places]
        step = (3.0 * mean) * np.maximum(2.0 / (count + 1.0), 1.0 / STEADY)
        moved = threshold - TAIL * step
        thresholds[places] = moved
        up = (x > threshold).nonzero()[0]
        if not len(up):
            return
        places, mean = places[up], mean[up]
        moved = moved[up] + step[up]
        thresholds[places] = moved
        excess = np.clip(x[up] - moved, 0.0, FARTHEST * mean)
        hit = excess > 0.0
        places, mean, excess = places[hit], mean[hit], excess[hit]
        seen, square = excesses[places] + 1.0, squares[places]
        gain = 1.0 / np.minimum(seen, REMEMBERED)
        means[places] = mean + gain * (excess - mean)
        squares[places] = square + gain * (excess * excess - square)
        excesses[places] = seen

    def _begin(self, x: Numbers, places: Places, count: Numbers) -> None:
        """Young tails: Welford's mean and squares, until they become the first threshold and moments."""
        thresholds, means, squares, excesses = (self._column(name) for name in _MOMENTS)
        mean, square = means[places], squares[places]
        far = 6.0 * np.sqrt(square)
        off = np.where(count >= 8.0, np.clip(x - mean, -far, far), x - mean)
        share = 1.0 / (count + 1.0)
        mean = mean + share * off
        square = square + share * (off * off * (1.0 - share) - square)
        ripe = count + 1.0 >= WARM
        spread = np.sqrt(np.maximum(square, 0.0))
        start = np.maximum(0.45 * spread, 1e-6 * np.abs(mean) + 1e-9)
        thresholds[places[ripe]] = (mean + 2.05 * spread)[ripe]
        excesses[places[ripe]] = PRIOR
        means[places] = np.where(ripe, start, mean)
        squares[places] = np.where(ripe, 2.0 * start * start, square)

    def _column(self, name: str) -> npt.NDArray[np.float32]:
        """A column as one line, to be read and written to."""
        line: npt.NDArray[np.float32] = self.rows[name].reshape(-1)
        return line

    def _places(self, cells: Places, at: Rows) -> Places:
        """Where the `cells` of rows `at`, counted row by row, are in a column."""
        if isinstance(at, slice):
            if at == slice(None):
                return cells
            at = np.arange(len(self.rows))[at]
        rows, channels = np.divmod(cells, len(self.floors))
        return at[rows] * len(self.floors) + channels

    def resize(self, metrics: int) -> None:
        self.rows.resize(metrics)

    def forget(self, at: npt.NDArray[np.int64]) -> None:
        self.rows.forget(at)

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return self.rows.snapshot()

    def restore(self, state: Arrays) -> None:
        self.rows.restore(state)

    def state_bytes(self) -> int:
        return self.rows.state_bytes()


def _taken(raw: Numbers, cells: Places) -> npt.NDArray[np.float32]:
    """Those `cells` of `raw`, counted row by row, kept within what can be squared."""
    tame: npt.NDArray[np.float32] = np.maximum(np.minimum(raw.reshape(-1)[cells], LARGEST), -LARGEST).astype(np.float32)
    return tame
