"""Clocks: the machine's own, and one that moves only when told to."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_reads_both_clocks_of_the_machine() -> None:
    clock: Clock = SystemClock()
    before = time.time(), time.monotonic()
    read = clock.now(), clock.monotonic()
    after = time.time(), time.monotonic()
    assert before[0] <= read[0] <= after[0]
    assert before[1] <= read[1] <= after[1]


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=8))
def test_a_manual_clock_moves_by_what_it_is_told(steps: list[float]) -> None:
    clock = ManualClock(start_s=10.0)
    expected = 10.0
    for step in steps:
        clock.advance(step)
        expected += step
        assert clock.now() == clock.monotonic() == expected


def test_a_manual_clock_stands_still_and_does_not_run_backwards() -> None:
    clock: Clock = ManualClock()
    assert [clock.now(), clock.now()] == [0.0, 0.0]
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-0.001)
