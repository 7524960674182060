"""Forecasts against what came, and warnings of failures that are known to come, or not to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chimera.anomaly.evaluate.series import Floats, Series
from chimera.core.errors import DetectorError, InputError
from chimera.core.types import Frozen

Forecaster = Callable[[Floats, int], tuple[Floats, Floats | None, Floats | None]]
"""History (points,) and horizon in points -> mean, and the lower and upper end of its 90 % band, (horizon,) each."""

SEED = 11

HISTORY = 500

HORIZON = 10

CUTS = 6
"""Forecasts asked of each series, at seeded points."""

SOFTENED = 0.1
"""Added to both errors of a ratio, in steps of the naive forecast: a perfect forecast of a constant is no miracle."""

WORST = 20.0

STEP_S = 10.0

LIMIT = 90.0

WARN_HORIZON = 60

WARN_EVERY = 5

WARN_FROM = 300

CASES = 60

CASE_POINTS = 700


class ForecastScores(Frozen):
    """`relative_mae` is the geometric mean of errors to those of the naive forecast, the last value: under 1 is better.

    `mase` is the error in units of the history's mean step, at most 20 a forecast. `coverage` is the share of values
    within the band, None without bands. Milliseconds are CPU time a forecast.
    """

    forecasts: int
    relative_mae: float
    mase_mean: float
    mase_median: float
    naive_mase_mean: float
    naive_mase_median: float
    coverage: float | None
    cpu_p50_ms: float
    cpu_p99_ms: float


class WarningScores(Frozen):
    """What became of series that rise to a limit (`failures`) and of those that stop short of it (`near_misses`).

    A warning is a mean beyond the limit within 10 minutes, in two consecutive forecasts 50 s apart. `in_time` are those
    that came 5 to 15 minutes ahead, `out_of_time` the others.
    """

    failures: int
    in_time: int
    out_of_time: int
    missed: int
    near_misses: int
    false_warnings: int
    lead_median_min: float | None


def forecast_scores(forecaster: Forecaster, series: Sequence[Series]) -> ForecastScores:
    """Ask for `HORIZON` points after `HISTORY` of each series, `CUTS` times.

    Raises InputError where no series is long enough, DetectorError where a forecast is too short.
    """
    rng = np.random.default_rng(SEED)
    errors, covered, cpu_ms = [], [], []
    for history, future in _cuts(series, rng):
        scale = np.abs(np.diff(history)).mean()
        started = time.process_time()
        mean, low, high = _ask(forecaster, history, HORIZON)
        cpu_ms.append(1e3 * (time.process_time() - started))
        naive = np.abs(future - history[-1]).mean() / scale
        errors.append((np.abs(future - mean).mean() / scale, naive))
        if low is not None and high is not None:
            covered.append(np.mean((future >= low) & (future <= high)))
    if not errors:
        raise InputError(f"no series of more than {HISTORY + HORIZON} points that moves: nothing to forecast")
    own, naive = np.array(errors).T
    return ForecastScores(
        forecasts=len(errors),
        relative_mae=float(np.exp(np.mean(np.log((own + SOFTENED) / (naive + SOFTENED))))),
        mase_mean=float(np.minimum(own, WORST).mean()),
        mase_median=float(np.median(own)),
        naive_mase_mean=float(np.minimum(naive, WORST).mean()),
        naive_mase_median=float(np.median(naive)),
        coverage=float(np.mean(covered)) if covered else None,
        cpu_p50_ms=float(np.percentile(cpu_ms, 50)),
        cpu_p99_ms=float(np.percentile(cpu_ms, 99)),
    )


def _cuts(series: Sequence[Series], rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Histories that move at all, each with what came after."""
    for each in series:
        if len(each.values) <= HISTORY + HORIZON + 5:
            continue
        for _ in range(CUTS):
            at = int(rng.integers(0, len(each.values) - HISTORY - HORIZON)) + HISTORY
            history = each.values[at - HISTORY : at]
            if np.abs(np.diff(history)).mean() >= 1e-9:
                yield history, each.values[at : at + HORIZON]


def _ask(forecaster: Forecaster, history: Floats, horizon: int) -> tuple[Floats, Floats | None, Floats | None]:
    mean, low, high = (
        None if part is None else np.asarray(part, dtype=float)[:horizon]
        for part in forecaster(history.copy(), horizon)
    )
    if mean is None or any(part is not None and len(part) < horizon for part in (mean, low, high)):
        raise DetectorError(f"a forecast of {horizon} points must give that many")
    return mean, low, high


@dataclass(frozen=True, eq=False)
class Case:
    """A series, one point each 10 s, and the point at which it reaches the limit; None for one that never does."""

    values: Floats
    crosses: int | None


def failure_case(number: int, seed: int = SEED) -> Case:
    """By `number` modulo 3: a straight rise, one that gets steeper, and a rise as fast that stops well below."""
    rng = np.random.default_rng([seed, 5, number])
    at = np.arange(CASE_POINTS)
    noise = rng.normal(0, 1.5, CASE_POINTS)
    base = 45 + 4 * np.sin(2 * np.pi * at / 120 + rng.uniform(0, 6)) * (number % 2)
    start = int(rng.integers(350, 450))
    if number % 3 == 2:
        height = rng.uniform(17, 27)
        return Case(base + noise + height * np.clip((at - start) / rng.uniform(80, 140), 0, 1), None)
    length = int(rng.integers(120, 240))
    rise = 60.0 * np.clip((at - start) / length, 0, None) ** (1.0 if number % 3 == 0 else 1.6)
    beyond = np.flatnonzero(base + rise >= LIMIT)
    return Case(base + noise + rise, int(beyond[0]) if len(beyond) else None)


def warning_scores(forecaster: Forecaster, cases: int = CASES, seed: int = SEED) -> WarningScores:
    """Watch `cases` series, a third of which never reach the limit. Raises DetectorError if a forecast is too short."""
    leads, missed, near, false = [], 0, 0, 0
    for case in (failure_case(number, seed) for number in range(cases)):
        warned = _warned(forecaster, case)
        if case.crosses is None:
            near, false = near + 1, false + (warned is not None)
        elif warned is None:
            missed += 1
        else:
            leads.append((case.crosses - warned) * STEP_S / 60)
    in_time = sum(5 <= lead <= 15 for lead in leads)
    return WarningScores(
        failures=len(leads) + missed,
        in_time=in_time,
        out_of_time=len(leads) - in_time,
        missed=missed,
        near_misses=near,
        false_warnings=false,
        lead_median_min=float(np.median(leads)) if leads else None,
    )


def _warned(forecaster: Forecaster, case: Case) -> int | None:
    """The point at which the second forecast in a row crosses the limit."""
    before = False
    for at in range(WARN_FROM, CASE_POINTS - 1 if case.crosses is None else case.crosses, WARN_EVERY):
        mean, _, _ = _ask(forecaster, case.values[max(0, at - HISTORY) : at], WARN_HORIZON)
        now = bool((mean >= LIMIT).any())
        if now and before:
            return at
        before = now
    return None
