"""What has been spent lately: sums over moving and calendar windows, exact at every moment (pure).

A rolling window holds what is younger than its length; a calendar one what was spent in the same day, ISO week or month
of UTC. Each sum has a pointer at the oldest spend in it, which only moves on: a step costs O(1) on average.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chimera.treasury.types import DAY_US, Window

LENGTHS: Mapping[Window, int] = {
    Window.LAST_DAY: DAY_US,
    Window.LAST_WEEK: 7 * DAY_US,
    Window.LAST_MONTH: 30 * DAY_US,
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def begins(window: Window, at: int) -> int:
    """The first microsecond of the window that ends at `at`."""
    if window in LENGTHS:
        return at - LENGTHS[window] + 1
    moment = (EPOCH + timedelta(microseconds=at)).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.WEEK:
        moment -= timedelta(days=moment.weekday())
    elif window is Window.MONTH:
        moment = moment.replace(day=1)
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass
class Spent:
    """What counts of one transfer: when it was set aside, and what of it was not let go."""

    at: int
    amount: int


class Sum:
    """The sum over one window of the spends that are added, in the order of their times."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._spends: list[Spent] = []
        self._first = 0
        self._used = 0

    def add(self, spent: Spent) -> None:
        """`spent` is shared: whoever lets go of some of it says so with `release`."""
        self._spends.append(spent)
        self._used += spent.amount

    def used(self, at: int) -> int:
        """What lies in the window that ends at `at`, which is never before that of an earlier call."""
        first = bisect_right(self._spends, begins(self._window, at) - 1, lo=self._first, key=lambda spent: spent.at)
        self._used -= sum(spent.amount for spent in self._spends[self._first : first])
        self._first = first
        return self._used

    def release(self, spent: Spent, amount: int) -> None:
        """`amount` of `spent` counts no more; to be called before `spent.amount` is changed, for each of its sums."""
        if self._first < len(self._spends) and self._spends[self._first].at <= spent.at:
            self._used -= amount
