"""Auto-order ARIMA, for the background: a second opinion that takes seconds, and is used for nothing inline. An engine
has it from `background.py`.

The order is found step by step (Hyndman and Khandakar, 2008): differences until a KPSS test finds the rest
stationary, then from a few starting orders to the best neighbour by AICc, while there is a better one. Fits, iterations
of a fit and the history are all limited, and a search can be stopped at any iteration.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from chimera.anomaly.forecast.engine import LARGEST, MAX_HISTORY, Forecast, ForecastEngine
from chimera.anomaly.forecast.ridge import Floats
from chimera.core.errors import InputError, MissingExtra

Order = tuple[int, int, int]

MAX_DIFFERENCES = 2

SHORTEST = 30
"""With less history no order can be told from another."""

STARTS = ((2, 2), (0, 0), (1, 0), (0, 1))


class ArimaForecast(NamedTuple):
    """What comes next, by the `order` (p, d, q) with the least AICc among `fits` that were tried.

    `order` is None where no fit was possible: the forecast is `ForecastEngine`'s then, and `aicc` infinite.
    """

    order: Order | None
    aicc: float
    fits: int
    forecast: Forecast


def auto_arima(
    history: ArrayLike,
    horizon: int,
    *,
    level: float = 0.9,
    max_order: int = 3,
    max_fits: int = 20,
    max_iterations: int = 50,
    stop: Callable[[], bool] = lambda: False,
) -> ArimaForecast:
    """The next `horizon` values after `history` (n,), with a band that holds `level` of them if the model is right.

    Non-finite points are missing ones, which the model bridges itself. Once `stop`, asked at every iteration, says so,
    the best order so far is it. Raises InputError for limits out of range, and MissingExtra without statsmodels.
    """
    if not (1 <= max_order <= 5 and 1 <= max_fits <= 100 and 1 <= max_iterations <= 500):
        raise InputError("max_order must be in 1..5, max_fits in 1..100 and max_iterations in 1..500")
    plain = ForecastEngine(level=level).forecast(history, horizon)
    known = np.asarray(history, dtype=np.float64).ravel()[-MAX_HISTORY:]
    known = np.where(np.isfinite(known), known, np.nan)
    there = known[np.isfinite(known)]
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.std(there)) if there.size else 0.0
    search = _Search(max_fits=max_fits, max_iterations=max_iterations, max_order=max_order, stop=stop)
    if there.size < SHORTEST or not 0.0 < spread < 1e100:
        return ArimaForecast(None, np.inf, 0, plain)
    centre = float(np.median(there))
    with warnings.catch_warnings(), search.one_thread():
        warnings.simplefilter("ignore")  # a fit that has not converged is one more candidate, which AICc judges
        best = search.run((known - centre) / spread)
        if best is None:
            return ArimaForecast(None, np.inf, search.fits, plain)
        order, aicc, model = best
        ahead = model.get_forecast(horizon)
        mean, edges = np.asarray(ahead.predicted_mean), np.asarray(ahead.conf_int(alpha=1.0 - level))
    parts = (np.clip(part * spread + centre, -LARGEST, LARGEST) for part in (mean, edges[:, 0], edges[:, 1]))
    found = Forecast(*parts)
    if not all(np.isfinite(part).all() for part in found):
        return ArimaForecast(None, np.inf, search.fits, plain)
    return ArimaForecast(order, aicc, search.fits, found)


class _Stopped(Exception):
    """The search is to end, in the middle of a fit."""


class _Search:
    """One search for an order."""

    def __init__(self, *, max_fits: int, max_iterations: int, max_order: int, stop: Callable[[], bool]) -> None:
        try:
            from statsmodels.tsa.arima.model import ARIMA
            from statsmodels.tsa.stattools import kpss
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise MissingExtra("statsmodels", "anomaly") from error
        self._arima, self._kpss, self._threads = ARIMA, kpss, threadpool_limits
        self._max_fits = max_fits
        self._max_iterations = max_iterations
        self._max_order = max_order
        self._stop = stop
        self.fits = 0

    def one_thread(self) -> AbstractContextManager[Any]:
        """Matrices of this size gain nothing from more, and on a busy machine the threads wait for one another."""
        context: AbstractContextManager[Any] = self._threads(1)
        return context

    def run(self, series: Floats) -> tuple[Order, float, Any] | None:
        """The best order for `series`, its AICc and the fitted model; None where nothing can be fitted."""
        d = self._differences(series[np.isfinite(series)])
        tried: set[tuple[int, int]] = set()
        best: tuple[Order, float, Any] | None = None
        candidates = [pair for pair in STARTS if max(pair) <= self._max_order]
        while candidates:
            improved = False
            for p, q in candidates:
                if (p, q) in tried or self.fits >= self._max_fits or self._stop():
                    continue
                tried.add((p, q))
                fitted = self._fit(series, (p, d, q))
                if fitted is not None and (best is None or fitted[0] < best[1]):
                    best, improved = ((p, d, q), *fitted), True
            candidates = list(self._neighbours(best[0])) if best is not None and improved else []
        return best

    def _neighbours(self, order: Order) -> Iterator[tuple[int, int]]:
        p, _, q = order
        for pair in ((p - 1, q), (p + 1, q), (p, q - 1), (p, q + 1), (p - 1, q - 1), (p + 1, q + 1)):
            if min(pair) >= 0 and max(pair) <= self._max_order:
                yield pair

    def _fit(self, series: Floats, order: Order) -> tuple[float, Any] | None:
        self.fits += 1
        how = {"maxiter": self._max_iterations, "disp": 0, "callback": self._go_on}
        try:
            model = self._arima(series, order=order, trend="n" if order[1] else "c")
            fitted = model.fit(method_kwargs=how)
            aicc = float(fitted.aicc)
        except (_Stopped, ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
        return (aicc, fitted) if np.isfinite(aicc) else None

    def _go_on(self, _parameters: Floats) -> None:
        if self._stop():
            raise _Stopped

    def _differences(self, series: Floats) -> int:
        """How often to difference, by KPSS at 5 %."""
        for d in range(MAX_DIFFERENCES):
            if np.std(series) < 1e-9:
                return d
            try:
                if self._kpss(series, regression="c", nlags="auto")[1] > 0.05:
                    return d
            except (ValueError, OverflowError):
                return d
            series = np.diff(series)
        return MAX_DIFFERENCES
