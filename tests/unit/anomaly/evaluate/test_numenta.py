"""NAB's score: by hand, at its ends, and its best threshold against a try of every threshold."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.evaluate import Series, Window
from chimera.anomaly.evaluate.numenta import best_score, own_score, weigh

POINTS = 300


def series(*windows: Window, probation: int = 40) -> Series:
    at = np.arange(POINTS, dtype=float)
    return Series("made", "nab", "made", at, at, windows, probation)


ONE = series(Window(100, 149, 110), Window(220, 239, 230))


def own(made: Series, *at: int) -> float:
    return own_score([weigh(made)], [np.array(at, dtype=np.int64) - made.probation])


def test_nothing_is_0_and_the_first_point_of_each_window_is_100() -> None:
    assert own(ONE) == 0.0
    assert own(ONE, 100, 220) == pytest.approx(100.0)
    assert own(ONE, 100) == pytest.approx(50.0)


def test_a_false_alarm_costs_a_ninth_and_less_just_after_a_window() -> None:
    assert own(ONE, 50) == pytest.approx(100 * -0.11 / 4)
    assert own(ONE, 219) == pytest.approx(100 * 0.11 * (2 / (1 + math.exp(5 * 70 / 49)) - 1) / 4)
    assert own(ONE, 150) > own(ONE, 160) > own(ONE, 50)
    assert own(ONE, 299) == pytest.approx(own(ONE, 50))  # more than three lengths after the second window


def test_only_the_earliest_alert_of_a_window_counts_and_later_is_less() -> None:
    assert own(ONE, 120, 130) == pytest.approx(own(ONE, 120))
    assert own(ONE, 100) > own(ONE, 120) > own(ONE, 149) > 0
    middle = (2 / (1 + math.exp(-5 * 30 / 50)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    assert own(ONE, 120) == pytest.approx(100 * (1 + middle) / 4)


def test_a_window_within_the_probation_is_lost_to_everyone() -> None:
    made = series(Window(10, 30, 20), Window(100, 149, 110))
    assert own(made) == 0.0
    assert own(made, 100) == pytest.approx(100 * 2 / 3)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=2 * POINTS, max_size=2 * POINTS))
def test_the_best_threshold_is_the_best_of_all(drawn: list[int]) -> None:
    both = [ONE, series(Window(60, 62, 61), probation=10)]
    scores = [np.array(drawn[:POINTS], dtype=float)[40:], np.array(drawn[POINTS:], dtype=float)[10:]]
    weighed = [weigh(each) for each in both]
    tried = {
        threshold: own_score(weighed, [np.flatnonzero(each >= threshold) for each in scores])
        for threshold in (*range(10), np.inf)
    }
    best, threshold = best_score(weighed, scores)
    assert best == pytest.approx(max(tried.values()))
    assert best == pytest.approx(tried[threshold])


def test_a_window_of_one_point_overflows_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert own(series(Window(50, 50, 50)), 50) == pytest.approx(100.0)


def test_series_without_windows_have_no_score() -> None:
    assert math.isnan(own(series()))
