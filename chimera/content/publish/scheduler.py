"""When a post may go out: not in the quiet hours, not too close to another, never above the caps. Pure functions."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Final

from chimera.content.accounts import Account
from chimera.core.errors import Overloaded

HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
MAX_AHEAD_S: Final = 90 * DAY_S
"""How far ahead a post is planned at most."""


def quiet_until(account: Account, at_s: float) -> float:
    """When the quiet hours that `at_s` lies in are over; `at_s` itself where it lies in none.

    Hours are the clock's on the wall of the account's time zone, across its changes to summer time and back.
    """
    if account.quiet is None:
        return at_s
    begins, ends = time.fromisoformat(account.quiet.begins), time.fromisoformat(account.quiet.ends)
    local = datetime.fromtimestamp(at_s, UTC).astimezone(account.zone)
    now = local.time().replace(tzinfo=None)
    overnight = ends < begins
    if not (now >= begins or now < ends if overnight else begins <= now < ends):
        return at_s
    day = local.date() + timedelta(days=1) if overnight and now >= begins else local.date()
    over = datetime.combine(day, ends, account.zone).timestamp()
    # In the hour that autumn repeats, the wall's clock passes the end twice: the second time counts.
    return over if over > at_s else datetime.combine(day, ends.replace(fold=1), account.zone).timestamp()


def next_slot(account: Account, wanted_s: float, taken: Iterable[float], count: int = 1) -> float:
    """The first time from `wanted_s` on at which `count` more posts fit between those at `taken` times.

    Keeps the quiet hours, the gap to the nearest post on both sides, and in every window of an hour and of a day the
    caps. Raises Overloaded if there is none within 90 days.
    """
    times = sorted(taken)
    at_s = wanted_s
    while at_s <= wanted_s + MAX_AHEAD_S:
        later = quiet_until(account, at_s)
        later = max(later, _apart(account, later, times))
        later = max(later, _uncapped(account, later, times, count))
        if later == at_s:
            return at_s
        at_s = later
    raise Overloaded(f"{account.name} is planned full for {MAX_AHEAD_S / DAY_S:.0f} days: hand it in later", DAY_S)


def _apart(account: Account, at_s: float, times: list[float]) -> float:
    """From `at_s` on, the first time that is no closer to any other than the gap."""
    gap_s = account.caps.gap_s
    for other in times[bisect_right(times, at_s - gap_s) :]:
        if other >= at_s + gap_s:
            break
        at_s = other + gap_s
    return at_s


def _uncapped(account: Account, at_s: float, times: list[float], count: int) -> float:
    """`at_s`, or if a window around it would pass a cap, the time at which the oldest post of that window leaves it."""
    merged = list(times)
    for _ in range(count):
        insort(merged, at_s)
    for cap, window_s in ((account.caps.per_hour, HOUR_S), (account.caps.per_day, DAY_S)):
        for end in (at_s, *(other for other in times if at_s < other < at_s + window_s)):
            within = merged[bisect_right(merged, end - window_s) : bisect_right(merged, end)]
            if len(within) > cap:
                own = next((one for one in within if one != at_s), None)
                return (own if own is not None and own < at_s else end) + window_s
    return at_s
