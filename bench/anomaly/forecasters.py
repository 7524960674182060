"""The forecasters that Chimera's is measured beside: the last value again, and statsforecast's automatic models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from chimera.anomaly.evaluate import Forecaster
from chimera.anomaly.evaluate.series import Floats


@dataclass(frozen=True)
class Rival:
    """`make` raises ModuleNotFoundError where its library is not installed.

    `slow` ones are asked for no warnings, which take 3,000 forecasts.
    """

    name: str
    make: Callable[[], Forecaster]
    slow: bool = False


def chimera() -> Forecaster:
    """Chimera's own, as `chimera anomaly evaluate` takes it."""
    forecaster: Forecaster = import_module("chimera.anomaly.evaluation").forecast
    return forecaster


def naive() -> Forecaster:
    """The last value, and a band as wide as a random walk of the same steps needs."""

    def forecast(history: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
        mean = np.full(horizon, history[-1])
        wide = 1.645 * np.diff(history).std() * np.sqrt(np.arange(1, horizon + 1))
        return mean, mean - wide, mean + wide

    return forecast


def statsforecast(model: str) -> Callable[[], Forecaster]:
    """One of statsforecast's models, fitted anew for each forecast, with its own 90 % band."""

    def make() -> Forecaster:
        kind = getattr(import_module("statsforecast.models"), model)

        def forecast(history: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
            said = kind().forecast(history, horizon, level=[90])
            return said["mean"], said["lo-90"], said["hi-90"]

        return forecast

    return make


RIVALS = (
    Rival("chimera", chimera),
    Rival("naive", naive),
    Rival("statsforecast AutoETS", statsforecast("AutoETS")),
    Rival("statsforecast DynamicOptimizedTheta", statsforecast("DynamicOptimizedTheta")),
    Rival("statsforecast AutoARIMA", statsforecast("AutoARIMA"), slow=True),
)
