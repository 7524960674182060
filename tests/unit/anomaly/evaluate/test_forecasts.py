"""Forecasts and warnings: of forecasters whose figures are known, and of one that was scored independently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chimera.anomaly.evaluate import Series, forecast_scores, load_nab, warning_scores
from chimera.anomaly.evaluate.forecasts import LIMIT, Forecaster, failure_case
from chimera.anomaly.evaluate.series import Floats
from chimera.core.errors import DetectorError, InputError
from tests.unit.anomaly.evaluate.judged import drift

NAB = load_nab(Path(__file__).parents[3] / "data" / "nab")


def flat(history: Floats, horizon: int) -> tuple[Floats, None, None]:
    return np.full(horizon, history[-1]), None, None


def always(value: float) -> Forecaster:
    return lambda _, horizon: (np.full(horizon, value), np.full(horizon, -1e9), np.full(horizon, 1e9))


def test_the_last_value_is_as_good_as_itself() -> None:
    scores = forecast_scores(flat, NAB)
    assert scores.forecasts == 24
    assert scores.relative_mae == pytest.approx(1.0)
    assert scores.mase_mean == scores.naive_mase_mean
    assert scores.coverage is None


def test_one_that_knows_what_comes_has_no_error() -> None:
    def knows(history: Floats, horizon: int) -> tuple[Floats, Floats, Floats]:
        for series in NAB:
            starts = np.flatnonzero(series.values[: -len(history)] == history[0])
            for start in starts:
                after = series.values[start + len(history) : start + len(history) + horizon]
                if np.array_equal(series.values[start : start + len(history)], history) and len(after) == horizon:
                    return after, after, after
        raise AssertionError("no such history")

    scores = forecast_scores(knows, NAB)
    assert scores.mase_mean == 0.0 and scores.relative_mae < 0.2 and scores.coverage == 1.0


def test_the_figures_of_an_independent_scorer() -> None:
    """`drift` over these very series, scored by a separate program with the same definitions."""
    scores, warned = forecast_scores(drift, NAB), warning_scores(drift)
    assert scores.forecasts == 24
    assert scores.relative_mae == pytest.approx(1.1915420754506785)
    assert (scores.mase_mean, scores.mase_median) == pytest.approx((1.5742763670456756, 1.4139489181269496))
    assert (scores.naive_mase_mean, scores.naive_mase_median) == pytest.approx((2.3157793423080206, 1.393396828365183))
    assert scores.coverage == pytest.approx(0.9833333333333334)
    assert (warned.failures, warned.in_time, warned.out_of_time, warned.missed) == (40, 26, 14, 0)
    assert (warned.near_misses, warned.false_warnings) == (20, 7)
    assert warned.lead_median_min == pytest.approx(6.666666666666667)


def test_one_that_always_warns_is_early_and_false_and_one_that_never_does_misses_all() -> None:
    eager, mute = warning_scores(always(LIMIT)), warning_scores(always(0.0))
    assert (eager.in_time, eager.out_of_time, eager.missed, eager.false_warnings) == (0, 40, 0, 20)
    assert (mute.in_time, mute.out_of_time, mute.missed, mute.false_warnings) == (0, 0, 40, 0)
    assert mute.lead_median_min is None


def test_two_forecasts_in_a_row_make_a_warning() -> None:
    asked = 0

    def every_other(history: Floats, horizon: int) -> tuple[Floats, None, None]:
        nonlocal asked
        asked += 1
        return np.full(horizon, LIMIT * (asked % 2)), None, None

    assert warning_scores(every_other, cases=6).missed == 4


def test_failures_reach_the_limit_and_near_misses_do_not() -> None:
    for number in range(60):
        case = failure_case(number)
        if number % 3 == 2:
            assert case.crosses is None and case.values.max() < LIMIT
        else:
            assert case.crosses is not None and case.values[case.crosses - 40 : case.crosses].max() < LIMIT + 6
            assert case.values[case.crosses :].mean() > LIMIT


def test_a_forecaster_sees_nothing_but_the_past_and_cannot_change_it() -> None:
    def spoils(history: Floats, horizon: int) -> tuple[Floats, None, None]:
        mean = np.full(horizon, history[-1])
        history[:] = 0.0
        return mean, None, None

    before = [series.values.copy() for series in NAB]
    assert forecast_scores(spoils, NAB).relative_mae == pytest.approx(1.0)
    assert all(np.array_equal(series.values, kept) for series, kept in zip(NAB, before, strict=True))
    assert warning_scores(spoils).missed == warning_scores(flat).missed


def test_a_short_forecast_and_nothing_to_forecast_are_refused() -> None:
    with pytest.raises(DetectorError, match="a forecast of 10 points"):
        forecast_scores(lambda history, horizon: (history[:3], None, None), NAB)
    still = np.ones(1_000)
    constant = Series("still", "nab", "still", np.arange(1_000.0), still, (), 100)
    with pytest.raises(InputError, match="nothing to forecast"):
        forecast_scores(flat, [constant])
