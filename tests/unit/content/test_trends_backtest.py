"""A stream played again: what counts as an alarm, as right and as found."""

from __future__ import annotations

import numpy as np
import pytest

from bench.trends import made_stream
from chimera.content.trends.backtest import (
    Alarm,
    Known,
    ThreeSigma,
    backtest,
    burst_alarms,
    change_alarms,
    score,
    sigma_alarms,
)
from chimera.content.trends.bursts import BurstOptions
from chimera.content.trends.changepoints import ChangeOptions
from chimera.content.trends.finder import TrendFinder
from chimera.core.errors import InputError

HOUR = 3_600.0


def test_alarms_are_scored_by_name_and_time() -> None:
    times = {"a": 0, "b": 50}
    known = [
        Known(name=name, terms=frozenset([name]), start_s=start, end_s=start + 10) for name, start in times.items()
    ]
    alarms = [Alarm(4, frozenset("a")), Alarm(6, frozenset("ax")), Alarm(20, frozenset("a")), Alarm(55, frozenset("c"))]
    result = score(alarms, known)
    assert (result.alarms, result.right, result.known, result.found, result.delay_s) == (4, 2, 2, 1, 4)
    assert (result.precision, result.recall, result.f1) == (0.5, 0.5, 0.5)
    assert result.precision_interval[0] < 0.5 < result.precision_interval[1]
    none = score([], known)
    assert (none.precision, none.recall, none.f1, none.delay_s) == (0.0, 0.0, 0.0, None)


def test_planted_topics_are_found_and_little_else() -> None:
    items, known = made_stream(3_600, hours=60, topics=3)
    found = backtest(items, known, TrendFinder(), step_s=HOUR, silence_s=24 * HOUR)
    naive = backtest(items, known, ThreeSigma(batch_s=HOUR), step_s=HOUR, silence_s=24 * HOUR)
    assert found.recall > 0.6 and found.precision > 0.6
    assert found.f1 > naive.f1


def test_a_stream_without_items_is_refused() -> None:
    with pytest.raises(InputError, match="items"):
        backtest([], [], TrendFinder(), step_s=1.0, silence_s=1.0)


def test_each_detector_finds_a_planted_rise_of_one_series() -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(20, (200, 8))
    counts[150:160, 1] = rng.poisson(90, 10)
    for found in (
        burst_alarms(counts, BurstOptions(states=2), warm_up=48),
        change_alarms(counts, ChangeOptions(), warm_up=48),
        sigma_alarms(counts, memory=100, warm_up=48),
    ):
        assert set(found[1].tolist()) & {150, 151, 152}
