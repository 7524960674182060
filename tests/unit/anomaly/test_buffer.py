"""The rings, against plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.buffer import SlotTable, TimeRing, TimeSeriesBuffer
from chimera.core.errors import InputError, StorageError

SLOTS = 4

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
batches = st.lists(st.dictionaries(st.integers(0, SLOTS - 1), numbers | st.just(float("nan")), min_size=1), max_size=30)


def fed(buffer: TimeSeriesBuffer, given_batches: list[dict[int, float]]) -> list[list[float]]:
    """Append the batches; what each slot should hold."""
    expected: list[list[float]] = [[] for _ in range(SLOTS)]
    for batch in given_batches:
        buffer.append(np.array(list(batch.values())), np.array(list(batch)))
        for slot, value in batch.items():
            if value == value:
                expected[slot].append(value)
    return expected


@given(batches, st.integers(1, 7))
def test_a_ring_holds_the_last_readings_of_each_slot(given_batches: list[dict[int, float]], size: int) -> None:
    buffer = TimeSeriesBuffer(SLOTS, size)
    expected = fed(buffer, given_batches)
    for slot, values in enumerate(expected):
        assert buffer.history(slot).tolist() == values[-size:]
        assert buffer.count[slot] == min(len(values), size)
    for k in range(size + 1):
        last = buffer.last(k)
        for slot, values in enumerate(expected):
            held = values[-size:][-k:] if k else []
            np.testing.assert_array_equal(last[slot], [np.nan] * (k - len(held)) + held)
        which = np.array([2, 0])
        np.testing.assert_array_equal(buffer.last(k, which), last[which])


@given(batches, batches)
def test_a_restored_buffer_goes_on_as_the_first(before: list[dict[int, float]], after: list[dict[int, float]]) -> None:
    first, second = TimeSeriesBuffer(SLOTS, 5), TimeSeriesBuffer(1, 5)
    fed(first, before)
    state = first.snapshot()
    second.restore(state)
    fed(first, after)
    fed(second, after)
    np.testing.assert_array_equal(first.last(5), second.last(5))
    again = TimeSeriesBuffer(0, 5)
    again.restore(state)  # which the first has not written to since
    fed(again, after)
    np.testing.assert_array_equal(first.last(5), again.last(5))


def test_what_a_float32_cannot_hold_is_the_largest_that_it_can() -> None:
    buffer = TimeSeriesBuffer(1)
    buffer.append([1e308])
    assert buffer.history(0).tolist() == [np.finfo(np.float32).max]


def test_resize_keeps_forget_clears() -> None:
    buffer = TimeSeriesBuffer(2, 3)
    buffer.append([1.0, 2.0])
    buffer.resize(3)
    assert [buffer.history(slot).tolist() for slot in range(3)] == [[1.0], [2.0], []]
    buffer.forget(np.array([0]))
    assert [buffer.history(slot).tolist() for slot in range(3)] == [[], [2.0], []]
    buffer.resize(1)
    assert buffer.metrics == 1


@pytest.mark.parametrize("state", [{}, {"rings": np.zeros((2, 4), np.float32)}, {"taken": np.zeros(2, np.int64)}])
def test_what_is_no_snapshot_changes_nothing(
    state: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> None:
    buffer = TimeSeriesBuffer(1, 3)
    buffer.append([7.0])
    with pytest.raises(StorageError):
        buffer.restore(state)
    assert buffer.history(0).tolist() == [7.0]


def test_a_snapshot_that_counts_less_than_nothing_is_refused() -> None:
    state = TimeSeriesBuffer(1, 3).snapshot()
    state["taken"][0] = -1
    with pytest.raises(StorageError):
        TimeSeriesBuffer(1, 3).restore(state)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError):
        TimeSeriesBuffer(-1)
    with pytest.raises(InputError):
        TimeSeriesBuffer(1, 3).last(4)
    with pytest.raises(InputError):
        TimeSeriesBuffer(2).append([1.0])
    with pytest.raises(InputError):
        SlotTable(-1, {"x": (np.float64, (), 0.0)})


@given(
    st.floats(0, 2e9),
    st.lists(st.sampled_from([0.001, 0.1, 1.0, 10.0, 59.7, 300.0, 86_400.0, 1e6]), min_size=1, max_size=40),
)
def test_times_are_kept_to_a_small_part_of_the_time_between_two(start: float, steps: list[float]) -> None:
    times = np.cumsum([start, *steps])
    ring = TimeRing(2, 50)
    for time in times:
        ring.append(np.array([time]), np.array([1]))
    error = np.abs(ring.history(1) - times)
    assert (error <= 0.001 * max(steps) + 1e-6).all()
    assert len(ring.history(0)) == 0
    assert np.isnan(ring.ends(np.array([0])))


@pytest.mark.parametrize("step", [1.0, 10.0, 60.0, 300.0, 3_600.0, 86_400.0])
def test_usual_intervals_are_kept_exactly(step: float) -> None:
    ring = TimeRing(1)
    times = 1.7e9 + step * np.arange(1_500)
    for time in times:
        ring.append(np.array([time]), np.array([0]))
    np.testing.assert_array_equal(ring.history(0), times[-1_000:])


def test_errors_of_times_do_not_add_up() -> None:
    ring = TimeRing(1)
    times = 1.7e9 + 7.7777 * np.arange(1_000)
    for time in times:
        ring.append(np.array([time]), np.array([0]))
    assert np.abs(ring.history(0) - times).max() < 0.005 * 7.7777


def test_a_clock_that_is_set_back_takes_the_past_with_it() -> None:
    ring = TimeRing(1)
    for time in (100.0, 110.0, 50.0, 60.0):
        ring.append(np.array([time]), np.array([0]))
    assert ring.history(0).tolist() == [40.0, 50.0, 50.0, 60.0]


def test_a_gap_of_a_century_does_not_spoil_what_follows() -> None:
    ring = TimeRing(1)
    for time in (0.0, 10.0, 3e9, 3e9 + 10.0, 3e9 + 20.0):
        ring.append(np.array([time]), np.array([0]))
    assert ring.history(0)[2:].tolist() == [3e9, 3e9 + 10.0, 3e9 + 20.0]


@given(st.lists(st.integers(0, 250), min_size=2, max_size=4), st.integers(60, 100))
def test_long_histories_of_slots_at_their_own_pace(counts: list[int], k: int) -> None:
    buffer = TimeSeriesBuffer(len(counts), 100)
    for number in range(250):
        going = np.flatnonzero(np.array(counts) > number)
        buffer.append(1000.0 * going + number, going)
    last = buffer.last(k)
    for slot, count in enumerate(counts):
        held = [1000.0 * slot + number for number in range(max(count - 100, 0), count)][-k:]
        np.testing.assert_array_equal(last[slot], [np.nan] * (k - len(held)) + held)
