"""The token bucket: in no window does more go through than its rate allows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.llm.rate import Bucket

STEPS = st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 120.0)), min_size=1, max_size=60)


@given(st.floats(1.0, 1e4), st.floats(1.0, 100.0), STEPS)
def test_in_any_window_no_more_goes_through_than_its_rate_allows(
    per_minute: float, burst: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now, through = Bucket(per_minute, now=0.0, burst=burst), 0.0, []
    for later, amount in steps:
        now += later
        if bucket.take(amount, now):
            through.append((now, amount))
    for begin, (since, _) in enumerate(through):
        total = 0.0
        for until, amount in through[begin:]:
            total += amount
            assert total <= burst + per_minute / 60.0 * (until - since) + 1e-6 * (1 + total)


@given(st.floats(1.0, 1e4), STEPS)
def test_who_waits_as_long_as_told_may_take_and_a_moment_earlier_may_not(
    per_minute: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now = Bucket(per_minute, now=0.0, burst=120.0), 0.0
    for later, amount in steps:
        now += later
        wait = bucket.wait_s(amount, now)
        if wait > 0.01:
            assert not bucket.take(amount, now + 0.9 * wait)
        now += wait
        assert bucket.take(amount, now)


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 50.0), st.floats(0.0, 200.0)), max_size=40))
def test_corrected_it_stands_where_the_real_amounts_would_have_left_it(steps: list[tuple[float, float, float]]) -> None:
    estimated, real, now = Bucket(60.0, now=0.0, burst=1_000.0), 1_000.0, 0.0
    for later, guess, used in steps:
        now += later
        real = min(1_000.0, real + later)
        if estimated.take(guess, now):
            estimated.correct(guess - used, now)
            real -= used
        assert math.isclose(estimated.level(now), real, rel_tol=1e-9, abs_tol=1e-6)


def test_a_debt_is_paid_before_anything_goes_through() -> None:
    bucket = Bucket(60.0, now=0.0)
    assert bucket.take(10, 0.0)
    bucket.correct(-100, 0.0)
    assert bucket.level(0.0) == -50.0
    assert bucket.wait_s(1, 0.0) == 51.0
    assert not bucket.take(1, 50.0) and bucket.take(1, 51.0)


def test_what_is_more_than_it_holds_never_goes_through() -> None:
    bucket = Bucket(60.0, now=0.0)
    assert bucket.wait_s(61, 1e9) == math.inf
    assert not bucket.take(61, 1e9)


def test_a_time_that_runs_backwards_gives_nothing() -> None:
    bucket = Bucket(60.0, now=100.0)
    assert bucket.take(60, 100.0)
    assert bucket.level(50.0) == 0.0
    bucket.take(0, 50.0)
    assert bucket.level(101.0) == 1.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_makes_no_sense_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="minute"):
        Bucket(bad, now=0.0)
    with pytest.raises(InputError, match="minute"):
        Bucket(60.0, now=0.0, burst=bad)
