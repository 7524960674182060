"""What is usual of a metric, taken from its history now and then: centre, scale, season, autoregression, block spreads.

Everything here is a function of histories, many at once, and of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.anomaly.patterns import products

Floats = npt.NDArray[np.floating[Any]]

ORDER = 16
"""Lags of the autoregression."""

BLOCK = 48
"""Readings whose mean is a level. Two neighbouring blocks tell a change of it."""

BRIEF = 24
"""Readings over which spread and roughness are taken."""

FAR = 12.0
"""Scaled values are kept within this."""

SEASONAL = 0.35
"""The autocorrelation from which a lag is a season."""

SHORTEST_SEASON = 16

EVERY = 4
"""Of the means of 24 and 48 neighbours, one in so many is looked at: they hardly differ."""

CHUNK = 64
"""Metrics at a time: their arrays stay in the processor's cache."""


@dataclass(frozen=True)
class Baseline:
    """Of m metrics. Everything but `centre` and `scale` is in scaled units: (value - centre) / scale."""

    centre: Floats
    """(m,) median."""
    scale: Floats
    """(m,) as of a normal distribution, from the quartiles."""
    period: npt.NDArray[np.int64]
    """(m,) readings in a season; 0 where there is none."""
    weights: Floats
    """(m, ORDER) of the autoregression, the newest lag first."""
    noise: Floats
    """(m,) spread of its residuals."""
    usual: Floats
    """(m, 8) centre and spread of: step between blocks, level, log power of residuals, log roughness."""
    adjusted: Floats
    """(m, 2 * BLOCK) the last of the history in scaled units, less its season."""
    residuals: Floats
    """(m, BRIEF) the last, in units of `noise`."""
    steps: Floats
    """(m, BRIEF) the last absolute differences in scaled units."""


def scaled(values: Floats, centre: Floats, scale: Floats, far: float = FAR) -> Floats:
    """(value - centre) / scale, kept within `far`. `values`: (m,), or (m, n) in their own type; the others (m,)."""
    if values.ndim == 1:
        return np.clip((values - centre) / scale, -far, far)
    with np.errstate(over="ignore"):  # what is too far is brought back
        found = values - centre[:, None].astype(values.dtype)
        found /= scale[:, None].astype(values.dtype)
    return np.clip(found, -far, far, out=found)


def fit(histories: Floats) -> Baseline:
    """The baseline of `histories` (m, n): finite, oldest first, n of at least 2 * BLOCK."""
    parts = [_fit(histories[i : i + CHUNK]) for i in range(0, len(histories), CHUNK)]
    if len(parts) == 1:
        return parts[0]
    return Baseline(*(np.concatenate([getattr(part, name) for part in parts]) for name in Baseline.__annotations__))


def _fit(histories: Floats) -> Baseline:
    values = histories.astype(np.float32, copy=False)
    centre, scale = _centre_and_scale(values)
    z = scaled(values, centre, scale, far=6.0)
    period = _period(z)
    adjusted = _adjusted(z, period)
    weights = _autoregression(adjusted)
    residuals, noise = _residuals(adjusted, weights, period)
    steps = np.abs(z[:, 1:] - z[:, :-1])
    usual = _usual(adjusted, residuals, steps, noise)
    lasts = (adjusted[:, -2 * BLOCK :].copy(), residuals[:, -BRIEF:].copy(), steps[:, -BRIEF:].copy())
    return Baseline(centre, scale, period, weights, noise, usual, *lasts)


def _centre_and_scale(values: Floats) -> tuple[Floats, Floats]:
    ordered = np.sort(values, axis=1)
    low, centre, high = _quantiles(ordered, (0.25, 0.5, 0.75))
    scale = (high - low) / 1.349
    farthest = np.maximum(ordered[:, -1] - centre, centre - ordered[:, 0])
    wild = np.flatnonzero(0.1 * farthest > scale)  # only where so far is the standard deviation what matters
    if len(wild):
        few = 1 + values.shape[1] // 200  # but for the farthest, that none makes all others small
        middle = ordered[wild, few:-few]
        scale[wild] = np.maximum(scale[wild], 0.1 * middle.std(axis=1, dtype=np.float64))
    return centre, np.maximum(scale, 1e-6 * np.abs(centre) + 1e-9)


def _quantiles(ordered: Floats, shares: tuple[float, ...]) -> Floats:
    """Of each row (shares, m), in between where they fall between two."""
    places = np.array(shares) * (ordered.shape[1] - 1)
    below = places.astype(np.int64)
    lower, upper = ordered.T[below].astype(np.float64), ordered.T[below + 1]
    found: Floats = lower + (places - below)[:, None] * (upper - lower)
    return found


def _period(z: Floats) -> npt.NDArray[np.int64]:
    """The lag of the highest autocorrelation after it first fell under 0.1; 0 where that is too low."""
    from scipy.fft import irfft, rfft  # unlike numpy's, at home in float32

    n = z.shape[1]
    longest = int(n / 2.2)
    found = np.zeros(len(z), np.int64)
    if longest <= SHORTEST_SEASON + 2:
        return found
    size = 1 << (n + longest - 1).bit_length()
    size = size if 3 * size // 4 < n + longest else 3 * size // 4
    spectrum = rfft(z - z.mean(axis=1, keepdims=True), size, axis=1, overwrite_x=True)
    spectrum *= spectrum.conj()
    power = irfft(spectrum, size, axis=1, overwrite_x=True)[:, :longest]
    lags = np.arange(longest)
    correlation = power / np.maximum(power[:, :1], 1e-9)
    correlation *= (n / (n - lags)).astype(np.float32)
    fell = correlation < 0.1
    first = np.where(fell.any(axis=1), fell.argmax(axis=1), longest)
    correlation[lags < np.maximum(first, SHORTEST_SEASON)[:, None]] = -1.0
    best = correlation.argmax(axis=1)
    good = (correlation[np.arange(len(z)), best] > SEASONAL) & (best < longest - 1)
    return np.where(good, best, found)


def median_of_three(a: Floats, b: Floats, c: Floats) -> Floats:
    """Element by element."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _adjusted(z: Floats, period: npt.NDArray[np.int64]) -> Floats:
    """`z` less the median of the same place in up to three seasons before; 0 in the first season."""
    seasonal = np.flatnonzero(period)
    if not len(seasonal):
        return z
    adjusted = z.copy()
    n = z.shape[1]
    for row in seasonal:
        lag = int(period[row])
        one = z[row, : n - lag]
        reference = one.copy()
        if 2 * lag < n:
            two = z[row, : n - 2 * lag]
            reference[lag:] = (one[lag:] + two) / 2
            if 3 * lag < n:
                three = z[row, : n - 3 * lag]
                reference[2 * lag :] = median_of_three(one[2 * lag :], two[lag:], three)
        adjusted[row, lag:] -= reference
        adjusted[row, :lag] = 0.0
    return adjusted


def _autoregression(series: Floats) -> Floats:
    """Yule-Walker weights (m, ORDER) of `series` (m, n), with 1 % more variance on the diagonal."""
    tame = np.clip(series, -6.0, 6.0)
    n = tame.shape[1]
    covariance = np.stack(
        [np.einsum("ij,ij->i", tame[:, lag:], tame[:, : n - lag]) for lag in range(ORDER + 1)], axis=1
    )
    correlation = covariance / np.maximum(covariance[:, :1], 1e-9)
    correlation[:, 0] = 1.01
    places = np.abs(np.arange(ORDER)[:, None] - np.arange(ORDER)[None, :])
    weights: Floats = np.linalg.solve(correlation[:, places], correlation[:, 1:, None])[:, :, 0]
    return weights


def _residuals(series: Floats, weights: Floats, period: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """What the autoregression leaves over of `series` (m, n), from its place ORDER on, and its spread (m,).

    The former is in units of the latter. Nothing is known of the first season.
    """
    residuals = series[:, ORDER:] - products(series[:, :-1], weights[:, ::-1])
    every = 1 + residuals.shape[1] // 500  # few hundred are enough, and quickly put in order
    sizes = np.abs(residuals[:, ::every])
    known = np.full(len(sizes), sizes.shape[1])
    if period.any():
        unknown = -(-np.maximum(period - ORDER, 0) // every)
        known -= unknown
        sizes[np.arange(sizes.shape[1]) < unknown[:, None]] = np.inf
    sizes.sort(axis=1)
    rows = np.arange(len(sizes))
    middle = (sizes[rows, (known - 1) // 2] + sizes[rows, known // 2]) / 2
    mean = np.where(np.isinf(sizes), 0.0, sizes).sum(axis=1) / known
    noise = np.maximum(1.4826 * middle, 0.05 * mean + 1e-3).astype(np.float32)
    residuals /= noise[:, None]
    return np.clip(residuals, -5.0, 5.0, out=residuals), noise


def _usual(adjusted: Floats, residuals: Floats, steps: Floats, noise: Floats) -> Floats:
    """Centre and spread (m, 8) of what the slow channels look at."""
    level = _means(adjusted, BLOCK)
    floor = 0.15 * noise
    moves = level[:, BLOCK // EVERY :] - level[:, : -BLOCK // EVERY]
    power = np.log(_means(residuals * residuals, BRIEF) + POWER_FLOOR)
    rough = np.log(_means(steps, BRIEF) + ROUGH_FLOOR)
    columns = [*_robust(moves, floor), *_robust(level, floor), *_robust(power, 0.08), *_robust(rough, 0.08)]
    return np.stack(columns, axis=1)


POWER_FLOOR, ROUGH_FLOOR = 0.05, 0.02


def _means(series: Floats, width: int) -> Floats:
    """The mean of every `width` neighbours that begin at every fourth place. `width` is three times a power of two."""
    series = series[:, series.shape[1] % 4 :]
    sums = series[:, ::4] + series[:, 1::4] + series[:, 2::4] + series[:, 3::4]
    one = sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]
    step = 3
    while 4 * step < width:
        one = one[:, :-step] + one[:, step:]
        step *= 2
    return one / np.float32(width)


def _robust(values: Floats, floor: Floats | float) -> tuple[Floats, Floats]:
    """Median and normal spread by the median distance from it."""
    centre = _median(values)
    return centre, np.maximum(1.4826 * _median(np.abs(values - centre[:, None])), floor)


def _median(values: Floats) -> Floats:
    """Of each row. For a few hundred numbers, to put all in order is the quickest way."""
    ordered, half = np.sort(values, axis=1), values.shape[1] // 2
    middle: Floats = (ordered[:, half] + ordered[:, -1 - half]) / 2
    return middle
