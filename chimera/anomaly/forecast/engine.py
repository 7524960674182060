"""The next values of a metric with a 90 % band, for every metric and at any time: about a millisecond.

The history is cleaned (missing points filled, far points drawn in), brought to unit scale, and taken apart: the trend
that it is in now (`trend.py`) if any, its season, and an autoregression (`ridge.py`). What comes next is put together
from the same parts, and the band is made of the errors that they would have made (`conformal.py`).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from chimera.anomaly.forecast import conformal, ridge, season, trend
from chimera.anomaly.forecast.ridge import Floats
from chimera.core.errors import InputError

MAX_HORIZON = 1_000

MAX_HISTORY = 1_000

SHORTEST_FIT = 12
"""With less, the last value is the forecast."""

SPREADS = 3.5
"""Standard deviations, of a normal series, between its 4 % and 96 % quantiles."""

LARGEST = float(np.finfo(np.float64).max)


class Forecast(NamedTuple):
    """What comes next, a value a step: the `mean` and the edges `low` and `high` of the band, each (h,), all finite."""

    mean: Floats
    low: Floats
    high: Floats


class ForecastEngine:
    """Forecasts of single metrics. It has no state: the same history gives the same forecast."""

    def __init__(
        self, *, level: float = 0.9, lags: int = 24, penalty: float = 2.0, window: int = 600, trimmed: float = 0.04
    ) -> None:
        """`level` of the truth lies in the band. Only the last `window` points are read. The share `trimmed` of them at
        either end is drawn in to the nearest that is kept."""
        if not 0.5 <= level <= 0.99:
            raise InputError(f"level must be in 0.5..0.99, not {level}")
        if not 1 <= lags <= 100:
            raise InputError(f"lags must be in 1..100, not {lags}")
        if not 0.0 < penalty <= 1e6:
            raise InputError(f"penalty must be over 0 and at most 1e6, not {penalty}")
        if not SHORTEST_FIT <= window <= MAX_HISTORY:
            raise InputError(f"window must be in {SHORTEST_FIT}..{MAX_HISTORY}, not {window}")
        if not 0.0 <= trimmed <= 0.25:
            raise InputError(f"trimmed must be in 0..0.25, not {trimmed}")
        self._level = level
        self._errors = NormalDist().inv_cdf((1.0 + level) / 2.0)
        self._lags = lags
        self._penalty = penalty
        self._window = window
        self._trimmed = trimmed

    def forecast(self, history: ArrayLike, horizon: int) -> Forecast:
        """The next `horizon` (1..1000) values after `history` (n,), oldest first, evenly spaced.

        Any history will do. NaN and infinities are missing points, drawn straight between their neighbours. With fewer
        than two points the band is all there is, and with none the mean is 0. Raises InputError for a horizon out of
        range.
        """
        if not 1 <= horizon <= MAX_HORIZON:
            raise InputError(f"horizon must be in 1..{MAX_HORIZON}, not {horizon}")
        known = np.asarray(history, dtype=np.float64).ravel()[-self._window :]
        there = np.flatnonzero(np.isfinite(known))
        if there.size < 2:
            mean = np.full(horizon, known[there[0]] if there.size else 0.0)
            return Forecast(mean, np.full(horizon, -LARGEST), np.full(horizon, LARGEST))
        far = max(1.0, float(np.abs(known[there]).max()) / 1e100)  # squares of the largest floats do not exist
        known = np.interp(np.arange(there[0], known.size), there, known[there] / far)
        centre, low, high = self._extent(known)
        size = 1e-9 * max(abs(float(known.min())), abs(float(known.max())))
        scale = (high - low) / SPREADS
        if scale <= size:
            scale = float(np.std(known))
        if scale <= size:
            mean = np.full(horizon, known[-1] * far)
            return Forecast(mean, mean.copy(), mean.copy())
        edges = ((low - centre) / scale, (high - centre) / scale)
        mean, below, above = self._unit((known - centre) / scale, edges, horizon)
        with np.errstate(over="ignore"):
            parts = ((part * scale + centre) * far for part in (mean, mean + below, mean + above))
            return Forecast(*(np.clip(part, -LARGEST, LARGEST) for part in parts))

    def _unit(self, series: Floats, edges: tuple[float, float], horizon: int) -> tuple[Floats, Floats, Floats]:
        """The mean of what follows `series` (n,), most of which is within `edges`, and the band relative to it."""
        n = series.size
        if n < SHORTEST_FIT:
            low, high = conformal.band(np.diff(series), np.ones(horizon), horizon, self._level)
            return np.full(horizon, series[-1]), low, high
        bend = trend.bend(series)
        period = season.find_period(series - bend * (bend @ series))
        wave = season.wave(series, period, horizon)
        now = trend.find_trend(series - wave[:n])
        if now.length and period and not _grows(series, now, period):
            now = trend.NONE
        if now.length:
            return self._climbing(series - wave[:n], now, wave[n:])
        seen, series = series, np.clip(series, *edges)
        lags = min(self._lags, n // 4)
        period = season.find_period(series)
        model = ridge.fit(series, lags=lags, penalty=self._penalty, period=period if period < n - 2 * lags - 8 else 0)
        path = np.clip(model.extend(series, horizon), *edges)
        beyond = (seen - series)[n - model.errors.size :]
        return path, *conformal.band(model.errors, model.response(horizon), horizon, self._level, beyond)

    def _climbing(self, series: Floats, now: trend.Trend, wave: Floats) -> tuple[Floats, Floats, Floats]:
        """As `_unit`, for a `series` without its season that has a trend: `wave` (h,) is the season that follows."""
        horizon, length = wave.size, now.length
        line, slope = trend.follow(series, now)
        rest = series[-length:] - line
        ahead = trend.damped_steps(horizon)
        lags = min(self._lags, 1 + length // 12)
        model = ridge.fit(rest, lags=lags, penalty=self._penalty)
        path = line[-1] + slope * ahead + wave + np.clip(model.extend(rest, horizon), rest.min(), rest.max())
        low, high = conformal.band(model.errors, model.response(horizon), horizon, self._level)
        doubt = self._errors * now.error * (ahead + length / 2.0)
        return path, -np.hypot(low, doubt), np.hypot(high, doubt)

    def _extent(self, known: Floats) -> tuple[float, float, float]:
        """The median of `known` (n,), and the edges within which all lie but its extremes.

        Extremes at the very end that agree are a new level, and within.
        """
        ordered = np.sort(known)
        cut = round(self._trimmed * (known.size - 1))
        lately = float(np.sort(known[-5:])[min(known.size, 5) // 2])
        low, high = min(float(ordered[cut]), lately), max(float(ordered[-1 - cut]), lately)
        centre = 0.5 * float(ordered[(known.size - 1) // 2]) + 0.5 * float(ordered[known.size // 2])
        return centre, low, high


def _grows(series: Floats, now: trend.Trend, period: int) -> bool:
    """Whether the trend is also there against one `period` ago, where a season of any shape falls away.

    There a young trend still climbs, and one that is older than the period stands as high as it climbs in a period.
    """
    since = series[period:] - series[:-period]
    stands = float(since[-now.length :].mean()) / (now.slope * period)
    return stands >= 0.5 or trend.find_trend(since).slope * now.slope > 0.0


_DEFAULT = ForecastEngine()


def forecast(history: ArrayLike, horizon: int) -> tuple[Floats, Floats, Floats]:
    """`ForecastEngine().forecast` as a plain function: the mean, the low and the high edge, each (h,)."""
    return _DEFAULT.forecast(history, horizon)
