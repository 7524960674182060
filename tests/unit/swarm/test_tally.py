"""What a swarm is told of itself: rates and percentiles against plain sums and sorted lists."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chimera.core.types import FailureKind, MissionState, Outcome, Spend
from chimera.swarm.status import ManagerStatus, RoleStatus, SwarmStatus
from chimera.swarm.tally import RATE_S, WINDOW_S, Histogram, Tally

GAPS_S = st.floats(0.0, 15.0)
DURATIONS_S = st.floats(1e-5, 86_399.0)


@example(0.5, [(0.1, 3)], 0.6)
@example(0.0, [(1.0, 3)] * 30, 1.0)
@given(st.floats(0.0, 1e6), st.lists(st.tuples(GAPS_S, st.integers(1, 50)), max_size=60), GAPS_S)
def test_a_rate_is_what_happened_in_the_last_ten_whole_seconds(
    started: float, happened: list[tuple[float, int]], wait_s: float
) -> None:
    tally, now, told = Tally(started), started, []
    for gap_s, events in happened:
        now += gap_s
        tally.journaled(now, events)
        told.append((int(now), events))
    now += wait_s
    within = range(int(now) - RATE_S, int(now))
    expected = sum(events for second, events in told if second in within)
    span_s = max(1.0, min(RATE_S, int(now) - started))
    activity = tally.snapshot(now)
    assert activity.rates.journal_events_per_s == pytest.approx(expected / span_s, abs=0.005)
    assert activity.journal.events == sum(events for _, events in told)
    assert activity.journal.appends == len(told)


@given(st.lists(DURATIONS_S, min_size=1, max_size=300))
def test_percentiles_are_those_of_the_sorted_values_within_five_percent(durations_s: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations_s:
        histogram.add(seconds)
    found = histogram.percentiles()
    ordered = sorted(durations_s)
    assert found.count == len(ordered)
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        assert value == pytest.approx(1_000 * ordered[math.ceil(share * len(ordered)) - 1], rel=0.05)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, math.nan])
def test_what_is_too_short_or_no_number_counts_as_the_shortest(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert (histogram.percentiles().count, histogram.percentiles().p99) == (1, 0.01)


@pytest.mark.parametrize("seconds", [86_400.0, 1e12, math.inf])
def test_what_is_too_long_counts_as_a_day(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    assert histogram.percentiles().p50 == pytest.approx(86_400_000, rel=0.05)


def test_percentiles_forget_what_is_older_than_two_windows() -> None:
    tally = Tally(0.0)
    tally.task_decided(1.0, Outcome.AGREED, 5.0)
    assert tally.snapshot(WINDOW_S - 1).latencies.decision_ms.p50 == pytest.approx(5_000, rel=0.05)
    tally.task_decided(WINDOW_S + 1, Outcome.AGREED, 0.5)
    assert tally.snapshot(2 * WINDOW_S - 1).latencies.decision_ms.count == 2
    assert tally.snapshot(2 * WINDOW_S + 1).latencies.decision_ms.p99 == pytest.approx(500, rel=0.05)
    assert tally.snapshot(9 * WINDOW_S).latencies.decision_ms.count == 0
    tally.task_decided(9 * WINDOW_S, Outcome.AGREED, 5.0)
    assert tally.snapshot(11 * WINDOW_S).latencies.decision_ms.count == 0, "also when nobody looked for two windows"
    assert tally.snapshot(11 * WINDOW_S).consensus[Outcome.AGREED] == 3, "counts are for ever"


def test_everything_is_counted_where_it_belongs() -> None:
    tally = Tally(100.0)
    tally.admitted(3)
    tally.resumed(2)
    tally.refused()
    tally.dispatched(9)
    tally.attempt_ended(100.1, None, 0.2, 0.001)
    tally.attempt_ended(100.2, FailureKind.TIMEOUT, 1.0)
    tally.task_decided(100.3, Outcome.TIE, 0.3, saved=4)
    tally.mission_ended(100.4, MissionState.UNDECIDED, 0.4)
    tally.spent(Spend(usd=0.5, tokens=10, calls=1, seconds=2.0))
    tally.spent(Spend(tokens=5))
    tally.quarantined()
    activity = tally.snapshot(102.0, running=4, queued=7, reserved=Spend(calls=3), scheme="memory")
    assert activity.uptime_s == 2.0
    counts = activity.missions
    assert (counts.running, counts.queued, counts.admitted, counts.resumed, counts.refused) == (4, 7, 5, 2, 1)
    assert counts.ended == {s: int(s == "undecided") for s in MissionState if s.ended}
    assert activity.consensus == {o: int(o == "tie") for o in Outcome}
    assert activity.failures == {k: int(k == "timeout") for k in FailureKind}
    assert (activity.calls.made, activity.calls.saved, activity.quarantined) == (9, 4, 1)
    assert activity.budget.spent == Spend(usd=0.5, tokens=15, calls=1, seconds=2.0)
    assert activity.budget.reserved == Spend(calls=3)
    assert activity.journal.scheme == "memory"
    rates = activity.rates
    assert (rates.missions_per_s, rates.tasks_per_s, rates.attempts_per_s, rates.failures_per_s) == (0.5, 0.5, 1.0, 0.5)
    assert (activity.latencies.attempt_ms.count, activity.latencies.overhead_ms.count) == (2, 1)
    assert activity.latencies.mission_ms.p50 == pytest.approx(400, rel=0.05)


def test_a_status_adds_up_and_pickles() -> None:
    managers = (
        ManagerStatus(name="Manager[0]", pid=1, agents=5, busy=2, waiting=3, cells={"Cell[0]": 11, "Cell[1]": None}),
        ManagerStatus(name="Manager[1]", state="restarting", agents=4, busy=1, waiting=1, cells={"Cell[2]": 12}),
    )
    status = SwarmStatus(
        **dict(Tally(0.0).snapshot(1.0, running=2)),
        swarm="swarm-1",
        pid=7,
        managers=managers,
        agents_by_role={"worker": RoleStatus(agents=9, busy=3, waiting=4)},
    )
    assert (status.agents, status.busy, status.waiting, status.cells, status.cells_up) == (9, 3, 4, 3, 2)
    assert status.missions.running == 2
    assert pickle.loads(pickle.dumps(status)) == status
    assert SwarmStatus.model_validate_json(status.model_dump_json()) == status
