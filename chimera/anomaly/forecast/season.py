"""Seasons: their period, by autocorrelation, and a smooth curve of it. The autoregression learns any other shape."""

from __future__ import annotations

import numpy as np

from chimera.anomaly.forecast import trend
from chimera.anomaly.forecast.ridge import Floats

SHORTEST = 8

LONGEST_SHARE = 0.62
"""The longest period that is looked for, in shares of the history: what was seen once and a half may be a season."""

AS_GOOD = 0.9
"""Of periods with this share of the best one's autocorrelation the first is taken: the others are its multiples."""

FLAT = 1e-9
"""A variance, at about unit scale, that is none."""

NEAR = 1.06
"""By what factor the period may be off that autocorrelation finds."""

STRENGTH = 0.5
"""The autocorrelation that a season must have one period on."""


def find_period(series: Floats) -> int:
    """The period in points of `series` (n,), or 0 for none.

    The largest autocorrelation after the first lag where it is negative: before that lag it is high because neighbours
    are alike, which is no season.
    """
    n = series.size
    longest = int(n * LONGEST_SHARE)
    if longest <= SHORTEST + 2:
        return 0
    centred = series - series.mean()
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    sums = np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:longest]
    if sums[0] <= FLAT * n:
        return 0
    likeness = sums * (n / (sums[0] * (n - np.arange(longest))))
    below = np.flatnonzero(likeness < 0.0)
    if below.size == 0 or below[0] >= longest - 2:
        return 0
    start = max(SHORTEST, int(below[0]))
    best = start + int(np.argmax(likeness[start:]))
    if best >= longest - 1 or likeness[best] < STRENGTH:
        return 0
    first = start + int(np.argmax(likeness[start:] >= AS_GOOD * likeness[best]))
    return first + int(np.argmax(likeness[first : first + max(2, (first - start) // 4)]))


def wave(series: Floats, period: int, ahead: int) -> Floats:
    """A smooth season of about `period` (0: none) in `series` (n,), and its next `ahead` values: (n + ahead,).

    Two harmonics, fitted beside the bend that explains most of the series and its square, with the period refined
    between the whole numbers, because an error of a point adds up over the periods.
    """
    n = series.size
    if not period:
        return np.zeros(n + ahead)
    bend = trend.bend(series)
    rise = (bend - bend[0]) / max(float(np.ptp(bend)), FLAT)
    drift = np.stack([np.ones(n), rise, rise * rise])
    flat = series - _weights(drift, series) @ drift
    angle = 2.0 * np.pi * _frequency(flat, period) * np.arange(n + ahead)
    cosine, sine = np.cos(angle), np.sin(angle)
    terms = np.stack([cosine, sine, 2.0 * cosine * cosine - 1.0, 2.0 * cosine * sine])
    known = np.vstack([terms[:, :n], drift])
    weights = _weights(known, series)
    return np.asarray(weights[:4] @ terms)


def _frequency(series: Floats, period: int) -> float:
    """The frequency, in turns a point, that is strongest in `series` (n,) near that of `period`.

    The spectrum of the series with zeros behind it, eight times as long, and a parabola through its peak.
    """
    size = 1 << (8 * series.size - 1).bit_length()
    low, high = int(size / period / NEAR), int(size / period * NEAR) + 2
    spectrum = np.fft.rfft(series, size)[low - 1 : high + 1]
    power = spectrum.real**2 + spectrum.imag**2
    best = 1 + int(np.argmax(power[1:-1]))
    before, peak, after = (float(each) for each in power[best - 1 : best + 2])
    curve = before - 2.0 * peak + after
    shift = 0.5 * (before - after) / curve if curve < 0.0 else 0.0
    return (low - 1 + best + min(max(shift, -0.5), 0.5)) / size


def _weights(terms: Floats, series: Floats) -> Floats:
    """The least-squares weights of `terms` (k, n), with a trace of ridge for terms that are alike."""
    return np.asarray(np.linalg.solve(terms @ terms.T + 1e-6 * series.size * np.eye(len(terms)), terms @ series))
