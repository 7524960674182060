"""Warnings: two in a row, once, on both sides, and again only after the danger has passed or a cooldown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.forecast.engine import Forecast, forecast
from chimera.anomaly.forecast.warning import MAX_LIMITS, FailureWarner, Limit, parse_limit
from chimera.core.errors import InputError
from chimera.core.watching import FailurePredicted

INTERVAL_S = 10.0

STEP_S = 50.0


def rising(cross: int, steps: int = 60, start: float = 50.0, limit: float = 90.0, width: float = 5.0) -> Forecast:
    """A straight line that is at `limit` at step `cross` (from 1), with a band of +- `width`."""
    mean = start + (limit - start) * np.arange(1, steps + 1) / cross
    return Forecast(mean, mean - width, mean + width)


FLAT = Forecast(np.full(60, 50.0), np.full(60, 45.0), np.full(60, 55.0))


class Told:
    """A warner with one metric, told of forecasts at regular times."""

    def __init__(self, limit: Limit | None = None, cooldown_s: float = 1_800.0, soonest_s: float = 0.0) -> None:
        self.warner = FailureWarner(
            [limit or Limit(metric="m", value=90.0)], cooldown_s=cooldown_s, soonest_s=soonest_s
        )
        self.now = 1_000.0

    def __call__(self, told: Forecast, value: float = 50.0, step_s: float = STEP_S) -> tuple[FailurePredicted, ...]:
        self.now += step_s
        return self.warner.learn("m", self.now, value, told, INTERVAL_S)


def test_the_second_crossing_in_a_row_warns_and_no_other() -> None:
    told = Told()
    assert told(rising(50)) == ()
    (warning,) = told(rising(45))
    assert (warning.metric, warning.limit, warning.side, warning.value) == ("m", 90.0, "above", 50.0)
    assert warning.in_s == 450.0 and warning.timestamp == told.now and warning.forecast == pytest.approx(90.0)
    assert warning.earliest_s == 400.0 and warning.latest_s == 510.0
    assert all(told(rising(40 - step)) == () for step in range(30))


def test_a_crossing_between_others_that_do_not_is_noise() -> None:
    told = Told()
    assert all(told(each) == () for _ in range(10) for each in (rising(50), FLAT))


def test_crossings_far_apart_are_not_in_a_row() -> None:
    told = Told()
    told(rising(50))
    assert told(rising(50), step_s=1_000.0) == ()
    assert len(told(rising(50))) == 1


def test_after_the_danger_has_passed_it_warns_again() -> None:
    told = Told()
    told(rising(50))
    assert told(rising(50))
    assert told(FLAT) == () and told(rising(50)) == () and told(rising(50)) == ()  # one is not a retreat
    assert told(FLAT) == () and told(FLAT) == ()
    assert told(rising(50)) == () and len(told(rising(50))) == 1


def test_a_standing_danger_is_told_again_after_the_cooldown() -> None:
    told = Told(cooldown_s=500.0)
    count = sum(len(told(rising(50))) for _ in range(41))
    assert count == 4  # at 100 s, and each 500 s from there to 2050 s


def test_below_is_the_mirror_of_above() -> None:
    told = Told(Limit(metric="m", value=10.0, side="below"))
    falling = rising(50, start=50.0, limit=10.0)
    assert told(falling) == ()
    (warning,) = told(falling)
    assert warning.side == "below" and warning.in_s == 500.0 and warning.earliest_s < 500.0 < (warning.latest_s or 0.0)
    assert Told(Limit(metric="m", value=10.0, side="below"))(rising(50)) == ()


def test_a_metric_past_its_limit_is_no_prediction() -> None:
    told = Told()
    assert all(told(rising(20), value=90.0) == () for _ in range(5))


def test_a_far_edge_that_stays_within_the_limit_is_no_latest() -> None:
    told = Told()
    told(rising(55, width=10.0))
    (warning,) = told(rising(55, width=10.0))
    assert warning.latest_s is None


def test_only_crossings_in_the_window_count() -> None:
    told = Told(soonest_s=300.0)
    assert told(rising(20)) == () and told(rising(20)) == ()
    assert told(rising(40)) == () and len(told(rising(40))) == 1
    late = Told()
    far = rising(61, steps=80)
    assert late(far) == () and late(far) == ()


def test_time_that_stands_or_goes_back_counts_nothing() -> None:
    told = Told()
    told(rising(50))
    assert told(rising(50), step_s=0.0) == () and told(rising(50), step_s=-20.0) == ()
    assert told(rising(50), step_s=math.nan) == ()


def test_values_that_are_no_numbers_say_nothing() -> None:
    told = Told()
    told(rising(50))
    assert told(rising(50), value=math.nan) == () and told(rising(50), value=math.inf) == ()
    assert len(told(rising(50))) == 1


def test_only_metrics_on_their_way_are_remembered() -> None:
    warner = FailureWarner([Limit(metric="*", value=90.0)])
    for at in range(1_000):
        warner.learn(f"m{at}", 1.0, 50.0, FLAT, INTERVAL_S)
    assert not warner._states
    warner.learn("m", 1.0, 50.0, rising(50), INTERVAL_S)
    assert len(warner._states) == 1
    warner.forget("m")
    assert not warner._states


def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.anomaly.forecast.warning.MAX_STATES", 10)
    warner = FailureWarner([Limit(metric="*", value=90.0)])
    for at in range(100):
        warner.learn(f"m{at}", float(at), 50.0, rising(50), INTERVAL_S)
    assert len(warner._states) == 10 and ("m99", 0) in warner._states


def test_metrics_are_apart_and_each_limit_is() -> None:
    warner = FailureWarner([Limit(metric="a*", value=90.0), Limit(metric="ab", value=80.0)])
    assert warner.watches("ab") and warner.watches("ac") and not warner.watches("b")
    warner.learn("ab", 1.0, 50.0, rising(40), INTERVAL_S)
    assert warner.learn("ac", 2.0, 50.0, rising(40), INTERVAL_S) == ()
    assert [each.limit for each in warner.learn("ab", 50.0, 50.0, rising(40), INTERVAL_S)] == [90.0, 80.0]


def test_a_real_ramp_is_told_in_time_and_once() -> None:
    at = np.arange(640)
    values = 45.0 + 0.3 * np.maximum(at - 400, 0) + np.random.default_rng(1).normal(0, 1.5, 640)
    warner, found = FailureWarner([parse_limit("m=90")]), []
    horizon = warner.horizon(INTERVAL_S)
    assert horizon == 60
    for end in range(300, 545, warner.every):
        ahead = Forecast(*forecast(values[:end], horizon))
        found += warner.learn("m", end * INTERVAL_S, float(values[end - 1]), ahead, INTERVAL_S)
    (warning,) = found
    lead_s = (400 + 45.0 / 0.3) * INTERVAL_S - warning.timestamp
    assert 300.0 <= lead_s <= 900.0
    assert warning.earliest_s <= warning.in_s <= 600.0


@pytest.mark.parametrize("interval_s", [0.0, -1.0, math.nan, math.inf])
def test_an_interval_that_is_none_is_refused(interval_s: float) -> None:
    warner = FailureWarner([Limit(metric="m", value=90.0)])
    with pytest.raises(InputError, match="interval"):
        warner.horizon(interval_s)
    with pytest.raises(InputError, match="interval"):
        warner.learn("m", 1.0, 50.0, FLAT, interval_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"soonest_s": 600.0},
        {"latest_s": math.nan},
        {"cooldown_s": 0.0},
        {"every": 0},
        {"limits": [Limit(metric="m", value=0.0)] * (MAX_LIMITS + 1)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        FailureWarner(**{"limits": [], **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "metric", "value", "side"),
    [
        ("m=90", "m", 90.0, "above"),
        ("m>90", "m", 90.0, "above"),
        ("m >= 90 ", "m", 90.0, "above"),
        ("m<10", "m", 10.0, "below"),
        ("m<=-1.5e3", "m", -1500.0, "below"),
        ('cpu{mode="idle",cpu="0"}<10', 'cpu{mode="idle",cpu="0"}', 10.0, "below"),
        ("cpu*=0.9", "cpu*", 0.9, "above"),
        ("a metric=1", "a metric", 1.0, "above"),
    ],
)
def test_limits_are_read(text: str, metric: str, value: float, side: str) -> None:
    assert parse_limit(text) == Limit(metric=metric, value=value, side=side)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "m=",
        "=9",
        "90",
        "m=nan",
        "m=inf",
        "m=9=",
        "m==9",
        "m=<9",
        "m=9 0",
        " = ",
        "m" * 600 + "=1",
        "x" * 10**6,
    ],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_limit(text)


@given(st.text(max_size=40))
def test_any_text_is_a_limit_or_refused(text: str) -> None:
    try:
        found = parse_limit(text)
    except InputError:
        return
    assert math.isfinite(found.value) and found.metric


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", min_size=1, max_size=8))
def test_a_star_is_any_text(pattern: str, metric: str) -> None:
    import re

    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), metric) is not None
    assert Limit(metric=pattern, value=0.0).covers(metric) is expected


def test_what_stands_before_and_after_a_star_does_not_overlap() -> None:
    assert not Limit(metric="ab*ba", value=0.0).covers("aba")
    assert Limit(metric="ab*ba", value=0.0).covers("abba")
