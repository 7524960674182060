"""The circuit breaker: when it opens, and that exactly one probe is let through when it is half open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.llm.breaker import Breaker


def opened(now: float = 0.0, **limits: float) -> Breaker:
    breaker = Breaker(**{"failures": 3, "open_s": 10.0, **limits})  # type: ignore[arg-type]
    for _ in range(3):
        permit = breaker.begin(now)
        assert permit is not None
        breaker.end(permit, now, False)
    return breaker


def test_it_opens_after_failures_in_a_row_and_lets_nothing_through() -> None:
    breaker = opened()
    assert breaker.state(0.0) == "open"
    assert [breaker.begin(now) for now in (0.0, 5.0, 9.99)] == [None] * 3
    assert breaker.back_in_s(4.0) == 6.0


def test_a_good_call_between_begins_the_row_again() -> None:
    breaker = Breaker(failures=3)
    for good in (False, False, True, False, False):
        breaker.end(breaker.begin(0.0) or 0, 0.0, good)
    assert breaker.state(0.0) == "closed"


def test_a_share_of_failures_opens_it_though_they_never_come_in_a_row() -> None:
    breaker, told = Breaker(failures=3, share=0.5, window=10), []
    for n in range(10):
        told.append(breaker.state(0.0))
        breaker.end(breaker.begin(0.0) or 0, 0.0, n % 2 == 0)
    assert told == ["closed"] * 10
    assert breaker.state(0.0) == "open"


@pytest.mark.parametrize(("good", "state"), [(True, "closed"), (False, "open"), (None, "half open")])
def test_the_probe_decides(good: bool | None, state: str) -> None:
    breaker = opened()
    probe = breaker.begin(10.0)
    assert probe is not None and breaker.begin(10.0) is None and breaker.begin(99.0) is None
    breaker.end(probe, 11.0, good)
    assert breaker.state(11.0) == state
    assert (breaker.begin(11.0) is None) == (good is False)


def test_once_closed_again_what_was_before_is_forgotten() -> None:
    breaker = opened(window=4)
    breaker.end(breaker.begin(10.0) or 0, 10.0, True)
    for good in (False, True, False):
        breaker.end(breaker.begin(10.0) or 0, 10.0, good)
    assert breaker.state(10.0) == "closed"


def test_answers_from_before_it_opened_are_not_taken_for_the_probes() -> None:
    breaker = Breaker(failures=1, open_s=10.0)
    late_good, late_bad, fatal = (breaker.begin(0.0) for _ in range(3))
    assert None not in (late_good, late_bad, fatal)
    breaker.end(fatal or 0, 0.0, False)
    breaker.end(late_good or 0, 5.0, True)
    assert breaker.state(5.0) == "open"
    probe = breaker.begin(10.0)
    breaker.end(late_bad or 0, 10.0, False)
    assert breaker.begin(10.0) is None, "the probe is still on its way"
    breaker.end(probe or 0, 10.0, True)
    assert breaker.state(10.0) == "closed"


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "good", "bad", "gone"]), st.integers(0, 30), st.floats(0.0, 12.0)), max_size=80
)


@given(STEPS, st.integers(1, 4))
def test_whatever_happens_one_probe_at_a_time_and_none_while_open(
    steps: list[tuple[str, int, float]], failures: int
) -> None:
    breaker, now = Breaker(failures=failures, share=0.6, window=5, open_s=10.0), 0.0
    running: list[tuple[int, bool]] = []
    for what, which, later in steps:
        now += later
        before = breaker.state(now)
        if what == "begin":
            expected = before == "closed" or (before == "half open" and not any(probe for _, probe in running))
            assert breaker.lets_through(now) == expected
            permit = breaker.begin(now)
            assert (permit is not None) == expected
            if permit is not None:
                running.append((permit, before == "half open"))
        elif running:
            permit, probe = running.pop(which % len(running))
            breaker.end(permit, now, {"good": True, "bad": False, "gone": None}[what])
            if before == "half open":
                after = {"good": "closed", "bad": "open", "gone": "half open"}[what] if probe else "half open"
                assert breaker.state(now) == after
            elif before == "open":
                assert breaker.state(now) == "open"


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_it_opens_when_it_should_and_not_before(results: list[bool], failures: int) -> None:
    breaker, window = Breaker(failures=failures, share=0.5, window=8), list[bool]()
    for good in results:
        breaker.end(breaker.begin(0.0) or 0, 0.0, good)
        window = [*window, good][-8:]
        row = len(window) >= failures and not any(window[-failures:])
        share = len(window) == 8 and window.count(False) >= 4 and not good
        assert (breaker.state(0.0) == "open") == (row or share)
        if row or share:
            return


@pytest.mark.parametrize(
    "bad", [{"failures": 0}, {"share": 0.0}, {"share": 1.1}, {"window": 0}, {"open_s": -1.0}, {"open_s": float("inf")}]
)
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="breaker"):
        Breaker(**bad)  # type: ignore[arg-type]
