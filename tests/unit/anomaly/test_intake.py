"""What happens to readings before a detector sees them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.intake import LATE_IN_A_ROW, MOST_MISSING, Intake
from chimera.core.errors import ReadingRefused, StorageError
from chimera.core.watching import Reading


def intake(**changes: Any) -> Intake:
    return Intake(**({"max_metrics": 100, "idle_s": 60.0} | changes))


def fed(into: Intake, metric: str, points: list[tuple[float, float]], now: float = 0.0) -> list[tuple[float, float]]:
    """Take in the points one by one; the times and values that came through."""
    came = []
    for time, value in points:
        for each in into.take([Reading(metric, time, value)], now):
            came += list(zip(each.times.tolist(), each.values.tolist(), strict=True))
    return came


def gaps(into: Intake, metric: str, times: list[float]) -> list[int]:
    return [
        int(missing)
        for time in times
        for each in into.take([Reading(metric, time, 1.0)], 0.0)
        for missing in each.missing
    ]


def test_readings_of_many_metrics_are_one_round() -> None:
    into = intake()
    rounds = list(into.take([Reading(f"m{number}", 10.0, number) for number in range(5)], 0.0))
    assert len(rounds) == 1
    assert [into.name(slot) for slot in rounds[0].slots.tolist()] == [f"m{number}" for number in range(5)]
    assert rounds[0].values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_a_metric_is_once_in_a_round_and_its_readings_keep_their_order(metrics: list[str]) -> None:
    into = intake()
    readings = [Reading(metric, float(number), float(number)) for number, metric in enumerate(metrics)]
    came: dict[str, list[float]] = {}
    for each in into.take(readings, 0.0):
        assert len(set(each.slots.tolist())) == len(each.slots)
        for slot, value in zip(each.slots.tolist(), each.values.tolist(), strict=True):
            came.setdefault(into.name(slot), []).append(value)
    assert came == {
        metric: [float(number) for number, name in enumerate(metrics) if name == metric] for metric in set(metrics)
    }
    assert into.taken == len(metrics)


def test_late_and_repeated_readings_are_refused_and_counted() -> None:
    into = intake()
    points = [(10.0, 1.0), (20.0, 2.0), (20.0, 3.0), (15.0, 4.0), (30.0, 5.0)]
    assert fed(into, "m", points) == [(10.0, 1.0), (20.0, 2.0), (30.0, 5.0)]
    assert into.refused == {"timestamp": 2}
    assert into.about(0)["refused"] == 2


def test_a_clock_that_was_set_back_is_believed_after_a_few() -> None:
    into = intake()
    fed(into, "m", [(1000.0 + number, 0.0) for number in range(5)])
    late = [(10.0 + number, float(number)) for number in range(LATE_IN_A_ROW + 3)]
    assert fed(into, "m", late) == late[LATE_IN_A_ROW:]
    assert (into.refused["timestamp"], into.resets) == (LATE_IN_A_ROW, 1)


def test_one_reading_from_the_future_stops_a_metric_only_for_a_few() -> None:
    into = intake()
    fed(into, "m", [(10.0, 0.0), (9e9, 0.0)])
    came = fed(into, "m", [(20.0 + 10 * number, 0.0) for number in range(20)])
    assert len(came) == 20 - LATE_IN_A_ROW


def test_readings_in_the_wrong_order_are_no_clock_set_back() -> None:
    into = intake()
    fed(into, "m", [(1000.0, 0.0)])
    assert fed(into, "m", [(500.0 - number, 0.0) for number in range(50)]) == []
    mixed = [point for number in range(20) for point in ((1001.0 + number, 0.0), (300.0 + number, 0.0))]
    assert len(fed(into, "m", mixed)) == 20
    assert into.resets == 0


def test_what_does_not_come_is_counted_once_the_interval_is_known() -> None:
    into = intake()
    assert gaps(into, "m", [0.0, 10.0, 20.0, 30.0, 60.0, 70.0]) == [0, 0, 0, 0, 2, 0]
    assert into.about(0)["interval"] == 10.0
    assert gaps(into, "m", [1e8]) == [MOST_MISSING]


def test_nan_is_a_reading_that_is_missing() -> None:
    into = intake()
    fed(into, "m", [(float(time), 1.0) for time in range(5)])
    assert fed(into, "m", [(5.0, math.nan), (6.0, math.nan)]) == []
    assert gaps(into, "m", [7.0]) == [2]
    assert fed(into, "m", [(6.5, 1.0)]) == []
    assert into.refused == {"timestamp": 1}


def test_a_metric_that_has_only_been_missing_takes_no_place() -> None:
    into = intake()
    assert fed(into, "m", [(1.0, math.nan)]) == []
    assert len(into) == 0


def test_another_rate_of_sampling_is_learned() -> None:
    into = intake()
    gaps(into, "m", [10.0 * number for number in range(20)])
    told = gaps(into, "m", [190.0 + 60.0 * number for number in range(1, 12)])
    assert told == [5] * 5 + [0] * 6
    assert into.about(0)["interval"] == 60.0


def test_jitter_is_no_gap() -> None:
    rng = np.random.default_rng(100)
    into = intake()
    assert sum(gaps(into, "m", (10.0 * np.arange(300) + rng.uniform(-1, 1, 300) + 5.0).tolist())) == 0


@pytest.mark.parametrize("metric", ["http_requests_total", 'x_bucket{le="1"}', "process.count", "rpc_count"])
def test_a_counter_becomes_a_rate(metric: str) -> None:
    came = fed(intake(), metric, [(0.0, 100.0), (10.0, 150.0), (20.0, 150.0), (40.0, 250.0)])
    assert came == [(10.0, 5.0), (20.0, 0.0), (40.0, 5.0)]


def test_a_counter_that_was_reset_has_counted_from_0() -> None:
    came = fed(intake(), "x_total", [(0.0, 1000.0), (10.0, 1100.0), (20.0, 30.0), (30.0, 130.0)])
    assert [value for _, value in came] == [10.0, 3.0, 10.0]


def test_a_gauge_with_a_counters_name_is_found_out() -> None:
    into = intake()
    came = fed(into, "thread_count", [(0.0, 10.0), (10.0, 20.0), (20.0, 18.0), (30.0, 19.0)])
    assert came == [(10.0, 1.0), (20.0, 18.0), (30.0, 19.0)]
    assert into.fresh().tolist() == [0]
    assert into.times.history(0).tolist() == [20.0, 30.0]


def test_a_counter_that_was_declared_stays_one() -> None:
    into = intake(counters=("ops*",))
    came = fed(into, "ops.done", [(0.0, 10.0), (10.0, 20.0), (20.0, 18.0), (30.0, -5.0)])
    assert [value for _, value in came] == [1.0, 1.8, 0.0]
    assert not len(into.fresh())


def test_a_counter_whose_clock_was_set_back_starts_over() -> None:
    into = intake()
    fed(into, "x_total", [(1000.0 + number, float(number)) for number in range(5)])
    came = fed(into, "x_total", [(10.0 + number, 100.0 * number) for number in range(LATE_IN_A_ROW + 3)])
    assert came == [(10.0 + LATE_IN_A_ROW + 1, 100.0), (10.0 + LATE_IN_A_ROW + 2, 100.0)]


BAD: list[tuple[Any, str]] = [
    (("", 1.0, 1.0), "name"),
    (("x" * 10_000, 1.0, 1.0), "name"),
    (("a\nb", 1.0, 1.0), "name"),
    (("\ud800", 1.0, 1.0), "name"),
    ((None, 1.0, 1.0), "name"),
    (([], 1.0, 1.0), "name"),
    (("new", math.nan, 1.0), "timestamp"),
    (("new", math.inf, 1.0), "timestamp"),
    (("new", -1.0, 1.0), "timestamp"),
    (("new", 1.7e12, 1.0), "timestamp"),
    (("new", 10**400, 1.0), "timestamp"),
    (("new", "1", 1.0), "timestamp"),
    (("new", 1.0, math.inf), "value"),
    (("new", 1.0, -math.inf), "value"),
    (("new", 1.0, 1e308), "value"),
    (("new", 1.0, None), "value"),
    (("new", 1.0, "1"), "value"),
    (("full", 1.0, 1.0), "metrics"),
    (("known", 5.0, 1.0), "timestamp"),
    (("known", 4.0, 1.0), "timestamp"),
]


@pytest.mark.parametrize(("given_reading", "reason"), BAD, ids=lambda value: repr(value)[:30])
def test_what_is_refused_is_counted_and_check_says_so(given_reading: Any, reason: str) -> None:
    into = intake(max_metrics=1 if reason == "metrics" else 2)
    fed(into, "known", [(5.0, 1.0)])
    reading = Reading(*given_reading)
    with pytest.raises(ReadingRefused) as refused:
        into.check(reading, 0.0)
    assert refused.value.reason == reason
    assert not into.refused
    good = Reading("known", 6.0, 2.0)
    rounds = list(into.take([reading, good], 0.0))
    assert into.refused == {reason: 1}
    assert [each.values.tolist() for each in rounds if len(each.values)] == [[2.0]]
    assert len(into) == 1


@pytest.mark.parametrize("junk", [None, 5, (), ("a", 1.0), {"metric": "a"}, "abc"])
def test_what_is_no_reading_is_refused(junk: Any) -> None:
    into = intake()
    rounds = list(into.take([junk, Reading("m", 1.0, 1.0)], 0.0))
    assert into.refused["name"] + into.refused["timestamp"] == 1
    assert [each.values.tolist() for each in rounds] == [[1.0]]


class Unsure:
    """A number that cannot say which."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def __float__(self) -> float:
        raise self._error("on purpose")


ODD: list[tuple[Any, str]] = [
    (["listed", 1.0, 1.0], "name"),
    (("four", 1.0, 1.0, 1.0), "name"),
    ((b"bytes", math.nan, 1.0), "name"),
    (("raises", 1.0, Unsure(RuntimeError)), "value"),
    (("raises", Unsure(MemoryError), 1.0), "timestamp"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("beside", [[], [Reading("m", 1.0, 1.0)], [None, Reading("m", 1.0, 1.0)]], ids=len)
def test_a_reading_is_judged_alone_whatever_stands_beside_it(odd: Any, reason: str, beside: list[Any]) -> None:
    into = intake()
    with pytest.raises(ReadingRefused) as refused:
        into.check(odd, 0.0)
    assert refused.value.reason == reason
    list(into.take([*beside, odd], 0.0))
    assert into.refused == Counter([reason]) + Counter(["name"] if None in beside else [])
    assert [metric for metric, _ in into.metrics()] == (["m"] if beside else [])


def test_names_and_numbers_of_other_types_are_taken_as_what_they_are() -> None:
    into = intake()
    odd: Any = (np.str_("m"), np.int64(1), True)
    list(into.take([odd], 0.0))
    assert dict(into.metrics()) == {"m": 0} and not into.refused
    into.check(("m", np.float32(2.0), 1), 0.0)  # type: ignore[arg-type]


times = st.sampled_from([*map(float, range(12)), -1.0, math.nan, 1e12])
values = st.sampled_from([0.0, 1.0, 5.0, -2.0, math.nan, math.inf, 1e300])


@given(st.lists(st.builds(Reading, st.sampled_from(["a", "b_total", "c", "d", ""]), times, values), max_size=60))
def test_check_foretells_what_take_refuses(readings: list[Reading]) -> None:
    into = intake(max_metrics=3)
    for reading in readings:
        before = into.refused.copy()
        try:
            into.check(reading, 0.0)
            expected = before
        except ReadingRefused as refused:
            expected = before + type(before)([refused.reason])
        list(into.take([reading], 0.0))
        assert into.refused == expected


def test_a_silent_metrics_place_is_given_to_a_new_one() -> None:
    into = intake(max_metrics=2)
    fed(into, "old", [(1.0, 1.0)], now=0.0)
    fed(into, "newer", [(1.0, 1.0)], now=30.0)
    assert fed(into, "third", [(1.0, 1.0)], now=59.0) == []
    assert into.refused == {"metrics": 1}
    assert fed(into, "third", [(1.0, 1.0)], now=60.0) == [(1.0, 1.0)]
    assert dict(into.metrics()) == {"newer": 1, "third": 0}
    assert into.fresh().tolist() == [0]
    assert into.times.history(0).tolist() == [1.0]
    assert into.about(0)["refused"] == 0


def test_who_is_heard_of_in_the_same_batch_keeps_its_place() -> None:
    into = intake(max_metrics=2)
    fed(into, "a", [(1.0, 1.0)], now=0.0)
    fed(into, "b", [(1.0, 1.0)], now=1.0)
    list(into.take([Reading("new", 9.0, 1.0), Reading("a", 9.0, 1.0)], 100.0))
    assert set(dict(into.metrics())) == {"a", "new"}


def test_a_restored_intake_goes_on_as_the_first() -> None:
    first = intake(max_metrics=2, idle_s=60.0)
    fed(first, "a_total", [(float(time), 2.0 * time) for time in range(10)], now=100.0)
    fed(first, "b", [(1.0, 1.0), (0.5, 1.0)], now=130.0)
    second = intake(max_metrics=2, idle_s=60.0)
    told, arrays = first.snapshot(130.0)
    second.restore(told, arrays, 1000.0)  # another process, whose clock began elsewhere
    assert (second.refused, second.taken) == (first.refused, first.taken)
    for into, later in ((first, 0.0), (second, 870.0)):
        assert fed(into, "a_total", [(10.0, 30.0)], now=140.0 + later) == [(10.0, 12.0)]
        assert fed(into, "c", [(1.0, 1.0)], now=189.0 + later) == []
        assert fed(into, "c", [(1.0, 1.0)], now=190.0 + later) == [(1.0, 1.0)]
        assert set(dict(into.metrics())) == {"a_total", "c"}


def test_a_snapshot_of_more_metrics_than_there_may_be_is_refused() -> None:
    first = intake()
    fed(first, "a", [(1.0, 1.0)])
    fed(first, "b", [(1.0, 1.0)])
    second = intake(max_metrics=1)
    fed(second, "mine", [(1.0, 1.0)])
    with pytest.raises(StorageError, match="max_metrics is 1"):
        second.restore(*first.snapshot(0.0), 0.0)
    assert dict(second.metrics()) == {"mine": 0}
