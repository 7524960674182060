"""Whether a patch helped."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from chimera.core.watching import AnomalyDetected, AnomalyKind
from chimera.healing.probation import Outcome, Probation, ProbationOptions

RNG = random.Random(5)
BEFORE = [RNG.gauss(20.0, 2.0) for _ in range(200)]
DURING = [RNG.gauss(60.0, 3.0) for _ in range(15)]


def outcome(after: list[float], during: list[float] | None = None) -> tuple[Outcome | None, int]:
    """What was decided, and after how many readings."""
    probation = Probation(BEFORE, DURING if during is None else during)
    for number, value in enumerate(after, 1):
        if decided := probation.take(value):
            return decided, number
    return None, len(after)


def test_a_metric_that_is_well_again_or_clearly_better_keeps_the_patch() -> None:
    assert outcome([RNG.gauss(20.0, 2.0) for _ in range(30)]) == ("kept", 20)
    assert outcome([RNG.gauss(36.0, 1.0) for _ in range(30)]) == ("kept", 20)


def test_a_metric_that_is_as_before_the_patch_is_no_reason_to_keep_it() -> None:
    assert outcome([RNG.gauss(60.0, 3.0) for _ in range(30)]) == ("useless", 20)


def test_a_metric_that_gets_worse_ends_it_early_on_either_side() -> None:
    assert outcome([140.0] * 30) == ("worse", 5)
    assert outcome([-90.0] * 30) == ("worse", 5)


def test_one_wild_reading_decides_nothing() -> None:
    assert outcome([1e6] + [RNG.gauss(20.0, 2.0) for _ in range(30)]) == ("kept", 20)
    assert outcome([20.0] * 4) == (None, 4)


def test_where_nothing_was_seen_of_the_trouble_the_usual_is_what_counts() -> None:
    assert outcome([20.0] * 20, during=[]) == ("kept", 20)
    assert outcome([40.0] * 20, during=[]) == ("worse", 5)


def test_an_alert_says_since_when_it_is_trouble() -> None:
    readings = [(float(at), value) for at, value in enumerate([*BEFORE, *DURING])]
    alert = AnomalyDetected(
        metric="m", timestamp=205.0, value=60.0, kind=AnomalyKind.TREND, score=9.0, since=200.0, expected=20.0
    )
    probation = Probation.of(alert, readings, options=ProbationOptions(readings=6))
    assert [probation.take(20.0) for _ in range(6)] == [None] * 5 + ["kept"]


@given(
    st.lists(st.floats(-1e9, 1e9), max_size=50),
    st.lists(st.floats(-1e9, 1e9), max_size=20),
    st.lists(st.floats(-1e9, 1e9), min_size=20, max_size=20),
)
def test_it_is_always_decided_in_time(before: list[float], during: list[float], after: list[float]) -> None:
    probation = Probation(before, during)
    decided = [found for value in after if (found := probation.take(value))]
    assert decided
