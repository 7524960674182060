"""How many calls at a time: up by one, down by half, never below one or above the most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.llm.concurrency import MAX_CONCURRENT, Concurrency


def rounds_of(places: Concurrency, now: float, good: bool = True, took_s: float = 1.0) -> int:
    """Fill all places, and end all calls a second later. How many there were."""
    count = 0
    while places.begin():
        count += 1
    for _ in range(count):
        places.end(now, now + 1.0, good, took_s)
    return count


def test_it_doubles_until_the_first_cut_then_grows_by_about_one_a_round_trip() -> None:
    places = Concurrency(most=1_000, start=4)
    assert rounds_of(places, 0.0) == 4
    assert places.limit >= 6
    while places.limit < 100:
        rounds_of(places, 1.0)
    before = places.limit
    rounds_of(places, 10.0, good=False)
    assert places.limit == before // 2, "one cut for all the calls that were on their way"
    after = places.limit
    for trip in range(1, 6):
        rounds_of(places, 20.0 + 2 * trip)
    assert after + 2 <= places.limit <= after + 5


def test_slow_answers_cut_it_too_and_those_that_were_given_up_say_nothing() -> None:
    places = Concurrency(most=64, start=16, slow_s=5.0)
    places.begin()
    places.end(0.0, 6.0, True, 6.0)
    assert places.limit == 8
    places.begin()
    places.end(7.0, 20.0, None, 13.0)
    assert places.limit == 8 and places.in_flight == 0


def test_one_call_is_always_allowed() -> None:
    places = Concurrency(most=4, start=4)
    for now in range(9):
        assert places.begin()
        places.end(float(now), float(now), False, 0.0)
    assert places.limit == 1


def test_calls_that_fail_in_the_moment_they_began_are_cut_for_once() -> None:
    places = Concurrency(most=8, start=8)
    assert places.begin() and places.begin()
    places.end(0.0, 0.0, False, 0.0)
    places.end(0.0, 0.0, False, 0.0)
    assert places.limit == 4


def test_what_is_not_used_does_not_grow() -> None:
    places = Concurrency(most=64, start=16)
    for now in range(100):
        places.begin()
        places.end(float(now), now + 1.0, True, 1.0)
    assert places.limit == 16


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "slow", "gone"]), st.floats(0.0, 3.0)), max_size=200),
)
def test_its_limits_hold_whatever_happens(most: int, start: int, steps: list[tuple[str, float]]) -> None:
    places, now, running = Concurrency(most=most, start=start, slow_s=5.0), 0.0, list[float]()
    for what, later in steps:
        now += later
        limit = places.limit
        if what == "begin":
            assert places.begin() == (len(running) < limit)
            if len(running) < limit:
                running.append(now)
        elif running:
            began = running.pop(0)
            good = {"good": True, "slow": True, "bad": False, "gone": None}[what]
            places.end(began, now, good, 9.0 if what == "slow" else 1.0)
            if what in ("good", "gone"):
                assert limit <= places.limit <= limit + 1
            else:
                assert max(1, limit // 2) <= places.limit <= limit
        assert 1 <= places.limit <= most
        assert places.in_flight == len(running)


@pytest.mark.parametrize("bad", [{"most": 0}, {"most": MAX_CONCURRENT + 1}, {"start": 0}, {"slow_s": 0.0}])
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at a time"):
        Concurrency(**bad)  # type: ignore[arg-type]
