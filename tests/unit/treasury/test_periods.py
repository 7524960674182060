"""Sums over windows, against the sum over all spends that lie in the window."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury.periods import Spent, Sum, begins
from chimera.treasury.types import DAY_US, Window

HOUR = DAY_US // 24


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("window", "at", "first"),
    [
        (Window.DAY, "2026-03-01T00:00:00", "2026-03-01T00:00:00"),
        (Window.DAY, "2026-02-28T23:59:59", "2026-02-28T00:00:00"),
        (Window.WEEK, "2026-03-01T12:00:00", "2026-02-23T00:00:00"),  # a Sunday: the week began on Monday
        (Window.WEEK, "2026-12-31T00:00:00", "2026-12-28T00:00:00"),
        (Window.MONTH, "2028-02-29T23:59:59", "2028-02-01T00:00:00"),
        (Window.MONTH, "2027-01-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_a_calendar_window_begins_with_its_day_week_or_month(window: Window, at: str, first: str) -> None:
    assert begins(window, micros(at)) == micros(first)


@pytest.mark.parametrize("window", Window)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 1, HOUR, 5 * HOUR, DAY_US - 1, DAY_US, DAY_US + 1, 3 * DAY_US, 40 * DAY_US]),
            st.integers(0, 100),
            st.integers(0, 20),
            st.integers(0, 100),
        ),
        max_size=60,
    )
)
def test_a_sum_is_what_lies_in_its_window_and_was_not_let_go(
    window: Window, steps: list[tuple[int, int, int, int]]
) -> None:
    sum_, spends, at = Sum(window), list[Spent](), micros("2026-02-27T20:00:00")
    for later, amount, which, freed in steps:
        at += later
        spends.append(Spent(at, amount))
        sum_.add(spends[-1])
        old = spends[-1 - which % len(spends)]
        sum_.release(old, min(freed, old.amount))
        old.amount -= min(freed, old.amount)
        assert sum_.used(at) == sum(spent.amount for spent in spends if begins(window, at) <= spent.at <= at)
