"""A slot keeps the quiet hours, the gap and the caps, whatever is planned already."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.content.publish.scheduler import DAY_S, HOUR_S, next_slot, quiet_until
from chimera.core.errors import Overloaded
from tests.unit.content.publish_house import START_S, account

NIGHT = {"begins": "22:00", "ends": "07:00"}


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2027-01-10T20:59:59", "2027-01-10T20:59:59"),
        ("2027-01-10T21:00:00", "2027-01-11T06:00:00"),
        ("2027-01-11T03:00:00", "2027-01-11T06:00:00"),
        ("2027-03-27T23:00:00", "2027-03-28T05:00:00"),  # the night is an hour shorter
        ("2027-10-30T23:00:00", "2027-10-31T06:00:00"),  # and an hour longer
    ],
)
def test_quiet_hours_are_those_on_the_wall(at: str, until: str) -> None:
    one = account(quiet=NIGHT, time_zone="Europe/Berlin")
    assert quiet_until(one, stamp(at)) == stamp(until)


@settings(max_examples=60)
@given(
    wanted=st.lists(st.floats(0, 2 * DAY_S), min_size=1, max_size=25),
    hour=st.integers(1, 4),
    day=st.integers(4, 9),
    gap_s=st.sampled_from([0.0, 60.0, 2_000.0]),
)
def test_every_window_keeps_the_caps(wanted: list[float], hour: int, day: int, gap_s: float) -> None:
    one = account(quiet=NIGHT, caps={"per_hour": hour, "per_day": day, "gap_s": gap_s})
    taken: list[float] = []
    for more_s in wanted:
        at_s = next_slot(one, START_S + more_s, taken)
        assert at_s >= START_S + more_s and quiet_until(one, at_s) == at_s
        assert all(abs(at_s - other) >= gap_s for other in taken)
        taken.append(at_s)
    for cap, window_s in ((hour, HOUR_S), (day, DAY_S)):
        assert all(sum(end - window_s < one <= end for one in taken) <= cap for end in taken)


def test_what_never_fits_is_said() -> None:
    with pytest.raises(Overloaded):
        next_slot(account(caps={"per_hour": 1, "per_day": 1, "gap_s": 0.0}), START_S, (), count=2)
