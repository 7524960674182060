"""Auto-order ARIMA while readings go on: in one thread, one metric after the other, each with a time limit.

Those who ask for a metric whose fit is under way share it. A thread cannot be killed, so the search is told to stop:
when its time is over (the best order so far is the answer then), and when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from chimera.anomaly.forecast.arima import SHORTEST, ArimaForecast, auto_arima
from chimera.anomaly.forecast.engine import MAX_HORIZON, Forecast, ForecastEngine
from chimera.anomaly.forecast.ridge import Floats
from chimera.core.clock import Clock
from chimera.core.errors import InputError, Overloaded

LIMIT_S = 30.0
"""For one metric. Of 1,000 points an order is usually found in one to five seconds."""

MAX_METRICS = 16
"""Whose fits run or wait. One thread is enough: a fit holds the interpreter for most of its time."""


class _Fit:
    """A fit that runs or waits its turn."""

    def __init__(self, history: Floats) -> None:
        self.history = history
        self.waiting = 0
        self.stopped = threading.Event()
        self.found: asyncio.Future[ArimaForecast]


class BackgroundArima:
    """ARIMA forecasts of metrics by name. To be used on one event loop, which never waits for a fit."""

    def __init__(self, *, clock: Clock, limit_s: float = LIMIT_S) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._fits: dict[tuple[int, str], _Fit] = {}
        self._age = 0
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    async def forecast(self, metric: str, history: Floats, horizon: int) -> ArimaForecast:
        """The next `horizon` (1..1000) values after `history` (n,), or after that of the fit which is under way.

        Raises InputError for a horizon out of range, fewer than 30 finite points, and after `aclose`; Overloaded where
        too many metrics wait; MissingExtra without statsmodels.
        """
        there = int(np.isfinite(history).sum())
        if not 1 <= horizon <= MAX_HORIZON:
            raise InputError(f"horizon must be in 1..{MAX_HORIZON}, not {horizon}")
        if there < SHORTEST:
            raise InputError(f"an ARIMA needs {SHORTEST} readings, and {metric!r} has {there}: take the fast forecast")
        key = (self._age, metric)
        fit = self._fits.get(key) or self._begun(key, history)
        fit.waiting += 1
        try:
            await asyncio.wait((fit.found,))  # and not the future itself, which others wait for too
        finally:
            fit.waiting -= 1
            if not fit.waiting:
                fit.stopped.set()
                fit.found.cancel()
                del self._fits[key]
        if self._closed:
            raise InputError(_CLOSED)
        found = fit.found.result()
        if found.order is None:
            return found._replace(forecast=ForecastEngine().forecast(fit.history, horizon))
        return found._replace(forecast=Forecast(*(part[:horizon] for part in found.forecast)))

    def forget(self) -> None:
        """Share nothing that is under way with who asks from now on: histories are others."""
        self._age += 1

    async def aclose(self) -> None:
        """End all fits, and wait for the thread, which needs an iteration for it."""
        self._closed = True
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _begun(self, key: tuple[int, str], history: Floats) -> _Fit:
        if self._closed:
            raise InputError(_CLOSED)
        if len(self._fits) >= MAX_METRICS:
            raise Overloaded(f"{MAX_METRICS} metrics wait for their ARIMA already", self._limit_s)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="chimera-arima")
        fit = self._fits[key] = _Fit(history)
        fit.found = asyncio.wrap_future(self._thread.submit(self._found, fit))
        return fit

    def _found(self, fit: _Fit) -> ArimaForecast:
        """In the thread. All steps at once, so that whoever shares the fit may have as many as he likes."""
        until = self._clock.monotonic() + self._limit_s

        def over() -> bool:
            return self._closed or fit.stopped.is_set() or self._clock.monotonic() >= until

        return auto_arima(fit.history, MAX_HORIZON, stop=over)


_CLOSED = "the engine has been closed: no ARIMA is fitted any more"
