"""Auto-order ARIMA: bounded, total, and right about series of known order."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from chimera.anomaly.forecast.arima import auto_arima
from chimera.anomaly.forecast.engine import ForecastEngine
from chimera.core.errors import InputError, MissingExtra


def test_a_random_walk_is_differenced_and_noise_is_not() -> None:
    pytest.importorskip("statsmodels")
    noise = np.random.default_rng(1).normal(size=200)
    level, walk = auto_arima(noise, 5, max_fits=4), auto_arima(np.cumsum(noise), 5, max_fits=4)
    assert level.order is not None and level.order[1] == 0
    assert walk.order is not None and walk.order[1] == 1
    assert np.abs(level.forecast.mean).max() < 0.5
    assert walk.forecast.mean[0] == pytest.approx(np.cumsum(noise)[-1], abs=1.0)
    for found in (level, walk):
        assert 1 <= found.fits <= 4
        assert (found.forecast.low < found.forecast.mean).all() and (found.forecast.mean < found.forecast.high).all()


def test_an_autoregression_is_found() -> None:
    pytest.importorskip("statsmodels")
    values = np.random.default_rng(2).normal(size=200)
    for at in range(1, 200):
        values[at] += 0.5 * values[at - 1]
    found = auto_arima(100.0 + 1e6 * values, 3, max_fits=5)
    assert found.order is not None and found.order[0] + found.order[2] > 0 and np.isfinite(found.aicc)
    assert found.forecast.mean[0] == pytest.approx(100.0 + 0.5e6 * values[-1], abs=4e5)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [1.0],
        [2.0] * 100,
        [np.nan] * 100,
        [1e308, -1e308] * 50,
        [1.0, np.nan, np.inf, 2.0] * 20,
        [0.0] * 99 + [1.0],
        list(np.arange(60.0)),
    ],
)
def test_any_history_has_a_finite_forecast(history: list[float]) -> None:
    pytest.importorskip("statsmodels")
    found = auto_arima(history, 4, max_fits=3, max_iterations=10)
    assert all(np.isfinite(part).all() and part.shape == (4,) for part in found.forecast)
    assert found.fits <= 3


def test_without_statsmodels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.arima.model", None)
    with pytest.raises(MissingExtra, match=r"chimera\[anomaly\]"):
        auto_arima(np.arange(100.0), 3)


@pytest.mark.parametrize(
    "wrong", [{"horizon": 0}, {"max_order": 6}, {"max_fits": 0}, {"max_iterations": 501}, {"level": 2.0}]
)
def test_limits_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        auto_arima(**{"history": np.arange(50.0), "horizon": 3, **wrong})  # type: ignore[arg-type]


def test_a_search_that_is_told_to_stop_keeps_the_best_so_far() -> None:
    pytest.importorskip("statsmodels")
    noise = np.random.default_rng(3).normal(size=200)
    whole = auto_arima(noise, 3)
    begun = itertools.count()
    some = auto_arima(noise, 3, stop=lambda: next(begun) >= 60)
    assert some.order is not None and 1 <= some.fits < whole.fits
    asked = itertools.count()
    at_once = auto_arima(noise, 3, stop=lambda: next(asked) >= 2)  # in the first fit
    assert next(asked) <= 8 and (at_once.order, at_once.fits) == (None, 1)
    assert (at_once.forecast.mean == ForecastEngine().forecast(noise, 3).mean).all()
