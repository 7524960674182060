"""The trend that a series is in now: where it began, how steep it is, and whether it is over.

How far back a straight line holds is not known, so lines over more and more of the recent past are compared. The
longest is taken whose slope is within the errors of all shorter ones (intersection of confidence intervals;
Goldenshluger and Nemirovski, 1997). So a steady ramp is measured over its whole length, a ramp that got steeper over
its last part, and one that ended over the plateau, as soon as the plateau is longer than chance allows.

A slope counts only far outside its own error, which is wider for a series whose errors last (autocorrelation): a random
walk always looks as if it were going somewhere. What counts is damped over the horizon (Gardner and McKenzie, 1985).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chimera.anomaly.forecast.ridge import Floats

NDArrayInt = NDArray[np.int64]

SHORTEST = 12

GROWTH = 1.25
"""Each window is longer than the one before by this."""

AGREE = 1.8
"""Standard errors by which slopes over different windows may differ."""

CERTAIN = 6.0
"""Standard errors by which a slope must differ from none."""

BENDING = 3.0
"""Standard errors by which a trend's curvature must differ from none."""

KINK = 1.05
"""How much worse than a kink a parabola may fit and still be taken: the later warning costs more than an early one."""

LOOK_BACK = 2
"""The curvature is sought in this many times the length over which the trend is straight: within it, there is none."""

TINY = 1e-12

DAMPING = 0.997
"""What is left of a slope after one step."""


class Trend(NamedTuple):
    """A line through the last `length` points: its `slope` a step, with the standard `error`. NONE has length 0."""

    slope: float
    error: float
    length: int


NONE = Trend(0.0, 0.0, 0)


def find_trend(series: Floats) -> Trend:
    """The trend at the end of `series` (n,), finite, of about unit scale, without its season. NONE if there is none."""
    n = series.size
    lengths = window_lengths(n)
    if lengths.size == 0:
        return NONE
    slopes, errors = _lines(series, lengths)
    low = np.maximum.accumulate(slopes - AGREE * errors)
    high = np.minimum.accumulate(slopes + AGREE * errors)
    agree = low <= high
    longest = int(np.argmin(agree)) - 1 if not agree.all() else lengths.size - 1
    slope, error = float(slopes[longest]), float(errors[longest])
    if abs(slope) <= CERTAIN * error:
        return NONE
    return Trend(slope, error, int(lengths[longest]))


def follow(series: Floats, now: Trend) -> tuple[Floats, float]:
    """The trend's own course over its `length` points (length,), and its slope at the end, of a `series` (n,) as above.

    A line over a trend that gets steeper lags behind, so a parabola over twice its length is taken instead, if it bends
    away beyond doubt and fits about as well as a kink (where a straight ramp began). One that bends back is not
    believed: that the trend fades is what damping says already.
    """
    long = min(LOOK_BACK * now.length, series.size)
    place = np.arange(long) - (long - 1) / 2.0
    bow = place * place - (long * long - 1.0) / 12.0
    part = series[-long:]
    slope, curve = float(place @ part / (place @ place)), float(bow @ part / (bow @ bow))
    course = part.mean() + slope * place + curve * bow
    rest = part - course
    power = float(rest @ rest)
    doubt = np.sqrt(power / (long - 3) / float(bow @ bow))
    kinked = float(part @ part) - long * part.mean() ** 2 - float(bend(part) @ part) ** 2
    if curve * now.slope > 0.0 and abs(curve) > BENDING * doubt and power < KINK * kinked:
        return course[-now.length :], slope + curve * (long - 1.0)
    straight = now.slope * (np.arange(now.length) - (now.length - 1) / 2.0)
    return straight + series[-now.length :].mean(), now.slope


def window_lengths(n: int) -> NDArrayInt:
    """The windows that are compared for a history of `n` points, shortest first."""
    if n < 2 * SHORTEST:
        return np.empty(0, dtype=np.int64)
    count = int(np.log(n / SHORTEST) / np.log(GROWTH)) + 1
    return np.unique((SHORTEST * GROWTH ** np.arange(count)).astype(np.int64))


def damped_steps(horizon: int) -> Floats:
    """How many steps of an undamped slope the next 1..`horizon` steps are worth (h,)."""
    return np.asarray(np.cumsum(DAMPING ** np.arange(1, horizon + 1)))


def _lines(series: Floats, lengths: NDArrayInt) -> tuple[Floats, Floats]:
    """Least-squares slopes over the last `lengths` points, and their errors, widened for autocorrelated residuals.

    All by running sums. The autocorrelation is 1 - DW / 2, by Durbin and Watson's ratio.
    """
    back = series[::-1] - series[-1]
    last = lengths - 1
    total, moment = np.cumsum(back)[last], np.cumsum(np.arange(back.size) * back)[last]
    moves = np.diff(back)
    spread = lengths * (lengths * lengths - 1.0) / 12.0
    slopes = (moment - last / 2.0 * total) / spread
    power = np.cumsum(back * back)[last] - total * total / lengths - slopes * slopes * spread
    power = np.maximum(power, TINY)
    jumps = np.cumsum(moves * moves)[last - 1] - slopes * (2.0 * back[last] - last * slopes)
    memory = np.clip(1.0 - jumps / (2.0 * power) + 2.0 / lengths, 0.0, 0.98)
    return -slopes, np.sqrt(power / (lengths - 2) / spread * (1.0 + memory) / (1.0 - memory))


def bend(series: Floats) -> Floats:
    """Level, then a slope up to the end: the curve (n,) of mean 0 and length 1 that explains most of `series` (n,)."""
    bends = _bends(series.size)
    if bends.size == 0:
        return np.zeros(series.size)
    return np.asarray(bends[int(np.argmax(np.abs(bends @ series)))])


@lru_cache(maxsize=64)
def _bends(n: int) -> Floats:
    """Level-then-slope curves (k, n), one for each window, with mean 0 and length 1."""
    rise = np.maximum(np.arange(n) - (n - 1 - window_lengths(n))[:, None], 0.0)
    rise -= rise.mean(axis=1, keepdims=True)
    return np.asarray(rise / np.linalg.norm(rise, axis=1, keepdims=True))
