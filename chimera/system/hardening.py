"""The watch over metrics as a detector that the sandbox attacks and hardens: `chimera.anomaly` meets `chimera.sandbox`.

A window of a metric is played to the ensemble after a common past, each window to a metric of its own that has learnt
that past; what the ensemble says of its readings is what the sandbox's head learns from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from chimera.anomaly.ensemble import Ensemble, Verdicts
from chimera.core.errors import InputError
from chimera.sandbox.hardening.detector import batches_of
from chimera.sandbox.schema import Column, Floats, Schema, Table

AT_ONCE = 2_000
"""Windows played at a time: 20 MB of ensemble."""

LEAST_PAST = 200
"""Readings before the ensemble judges all that it can."""

MAX_PAST = 100_000

MAX_LENGTH = 1_024


class EnsembleDetector:
    """`Ensemble` over metric windows. `past` (m,) are clean readings of the same metric, older than any window.

    Raises InputError where the past is too short, or not of finite numbers.
    """

    name = "ensemble"

    def __init__(self, past: Floats, *, length: int) -> None:
        if past.ndim != 1 or not LEAST_PAST <= len(past) <= MAX_PAST or not np.isfinite(past).all():
            raise InputError(f"the past is {LEAST_PAST} to {MAX_PAST} finite readings, oldest first")
        if not 1 <= length <= MAX_LENGTH:
            raise InputError(f"a window has 1 to {MAX_LENGTH} points, not {length}")
        self._length = length
        self._spread = max(float(past.std()), 1e-12)
        warm = Ensemble(1)
        for value in past:
            warm.update(np.array([value]))
        self._warm = warm.snapshot()
        self._last: tuple[bytes, Floats] | None = None

    def evidence(self, batches: Floats) -> Floats:
        """(b, 2 channels + 2) of windows (b, 1, length): the most and the mean that each channel says, and the mean
        distance from what was expected, in spreads of the past: as it is, and without its sign."""
        return self._judged(batches)[:, 1:]

    def score(self, batches: Floats) -> Floats:
        """(b,) the largest score in each window."""
        return self._judged(batches)[:, 0]

    def _judged(self, batches: Floats) -> Floats:
        """(b, 1 + k) score and evidence. The last answer is kept: both are asked for of the same windows."""
        windows = np.ascontiguousarray(batches_of(batches, self._length)[:, 0, :])
        if batches.shape[1] != 1:
            raise InputError(f"a window is a batch of one row, not of {batches.shape[1]}")
        known = windows.tobytes()
        if self._last is None or self._last[0] != known:
            starts = range(0, len(windows), AT_ONCE)
            self._last = known, np.concatenate([self._play(windows[start : start + AT_ONCE]) for start in starts])
        return self._last[1]

    def _play(self, windows: Floats) -> Floats:
        score, residual = np.zeros(len(windows)), np.zeros(len(windows))
        most, total = np.zeros((2, len(windows), len(Ensemble.channels)))
        for values, said in self._heard(windows):
            score = np.maximum(score, said.score)
            most, total = np.maximum(most, said.channel_scores), total + said.channel_scores
            residual += (values - said.expected) / self._spread
        mean = residual[:, None] / self._length
        return np.concatenate([score[:, None], most, total / self._length, mean, np.abs(mean)], axis=1)

    def _heard(self, windows: Floats) -> Iterator[tuple[Floats, Verdicts]]:
        """The values (b,) of each point, and what is said of them by an ensemble whose b metrics all have the past."""
        ensemble = Ensemble(len(windows))
        ensemble.restore({name: array.repeat(len(windows), axis=0) for name, array in self._warm.items()})
        for values in windows.T:
            yield values, ensemble.update(values)


def windows_of(values: Floats, length: int, *, column: Column, every: int = 1) -> Table:
    """Windows of `length` readings of one metric (n,), one beginning at each `every`-th: a table with a column a point.

    `column` says the metric's public range and step; readings are put on its lattice. With `every` below `length`
    windows overlap: part them in order, with a gap of at least `length / every` windows.
    """
    if values.ndim != 1 or not 1 <= length <= min(len(values), MAX_LENGTH) or every < 1:
        raise InputError(f"{values.shape} readings have no windows of {length} points at every {every}-th")
    schema = Schema(columns=tuple(column.model_copy(update={"name": f"t{point}"}) for point in range(length)))
    windows = np.lib.stride_tricks.sliding_window_view(values, length)[::every]
    return Table(schema, schema.snap(windows))
