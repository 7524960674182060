"""Spans of a mission: their tree, their times, and ids that outlive a coordinator."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import JsonValue

from chimera.core.events import Event, EventKind
from chimera.swarm.trace import ENDS, MAX_TEXT, Span, spans, without_content

START_S = 1_000.0


def mission(*, mission_id: str = "mission-1", failure: str = "") -> list[Event]:
    """A task whose first replica is tried twice and whose second agrees at once."""
    numbers = itertools.count(1)

    def event(kind: EventKind, at_s: float, task_id: str = "", **data: Any) -> Event:
        number = next(numbers)
        return Event(
            mission_id=mission_id, seq=number, kind=kind, at_s=START_S + at_s, task_id=task_id, swarm="s-1", data=data
        )

    def told(replica: int, number: int, agent: str, elapsed_s: float) -> dict[str, Any]:
        attempt = f"{mission_id}/t/{replica}/{number}"
        return {"attempt": attempt, "replica": replica, "agent": agent, "policy": "p", "elapsed_s": elapsed_s}

    reply = {"value": "secret"}
    ended: dict[str, str] = {"state": "failed", "explanation": failure} if failure else {"state": "answered"}
    return [
        event(EventKind.MISSION_ADMITTED, 0.0, graph={"nodes": []}, deadline_s=60.0),
        event(EventKind.TASK_STARTED, 0.5, "t", role="worker", replicas=2),
        event(EventKind.ATTEMPT_FAILED, 1.5, "t", **told(0, 1, "w-1", 0.75), failure="raised", detail="no"),
        event(EventKind.ATTEMPT_STARTED, 1.5, "t", replicas=[0], again=True),
        event(EventKind.REPLY_ACCEPTED, 2.0, "t", **told(1, 1, "w-2", 1.0), reply=reply),
        event(EventKind.REPLY_ACCEPTED, 2.5, "t", **told(0, 2, "w-3", 0.5), reply=reply, spent={"usd": 0.25}),
        event(EventKind.TASK_DECIDED, 2.5, "t", outcome="agreed", value="secret", support=1.0),
        event(EventKind.MISSION_ENDED, 3.0, attempts=3, **ended),
    ]


def by_name(found: list[Span], name: str) -> list[Span]:
    return [span for span in found if span.name == name]


def test_attempts_hang_under_their_task_and_tasks_under_their_mission() -> None:
    found = spans(mission())
    [root], [task], attempts = (by_name(found, name) for name in ("mission", "task", "attempt"))
    assert (root.parent_id, task.parent_id) == (None, root.span_id)
    assert {attempt.parent_id for attempt in attempts} == {task.span_id}
    assert len({span.span_id for span in found}) == len(found) == 5
    assert {span.trace_id for span in found} == {root.trace_id}
    assert 0 < root.trace_id < 2**128 and all(0 < span.span_id < 2**64 for span in found)
    assert (root.start_s, root.end_s) == (START_S, START_S + 3.0)
    assert (task.start_s, task.end_s) == (START_S + 0.5, START_S + 2.5)
    assert [(a.start_s - START_S, a.end_s - START_S) for a in attempts] == [(0.75, 1.5), (1.0, 2.0), (2.0, 2.5)]


def test_a_span_says_who_did_what_and_not_what_was_replied() -> None:
    found = spans(mission())
    failed, other, again = by_name(found, "attempt")
    assert failed.error == "raised: no"
    assert (other.error, again.error) == ("", "")
    said = [a.attributes["chimera.attempt"] for a in (failed, other, again)]
    assert said == ["mission-1/t/0/1", "mission-1/t/1/1", "mission-1/t/0/2"]
    assert again.attributes["chimera.agent"] == "w-3" and again.attributes["chimera.usd"] == 0.25
    assert failed.attributes["chimera.replica"] == 0 and failed.attributes["chimera.failure"] == "raised"
    [task] = by_name(found, "task")
    assert task.attributes["chimera.role"] == "worker" and task.attributes["chimera.outcome"] == "agreed"
    assert all(span.attributes["chimera.mission_id"] == "mission-1" for span in found)
    assert "secret" not in repr(found)


def test_a_mission_that_failed_is_an_error_with_its_reason_cut_to_size() -> None:
    [root] = by_name(spans(mission(failure="x" * 5_000)), "mission")
    assert root.error == "x" * MAX_TEXT
    assert by_name(spans(mission()), "mission")[0].error == ""


def test_what_was_cancelled_is_no_error() -> None:
    events = [e.model_copy(update={"data": {**e.data, "state": "cancelled"}}) for e in mission()]
    events = [
        e.model_copy(update={"data": {**e.data, "failure": "cancelled"}}) if e.kind == "attempt_failed" else e
        for e in events
    ]
    assert {span.error for span in spans(events)} == {""}


def test_without_content_the_spans_are_the_same_and_the_events_small() -> None:
    huge = [e.model_copy(update={"data": {**e.data, "detail": "x" * 10_000}}) for e in mission()]
    assert spans([without_content(event) for event in huge]) == spans(huge)
    for event in (*mission(), *huge):
        brief = without_content(event).model_dump_json()
        assert "secret" not in brief and "graph" not in brief and len(brief) < 2_000


def test_every_event_that_ends_something_is_one_span_and_no_other_is() -> None:
    events = mission()
    for cut in range(len(events) + 1):
        assert len(spans(events[:cut])) == sum(event.kind in ENDS for event in events[:cut])


def test_a_mission_that_was_resumed_elsewhere_is_the_same_trace() -> None:
    before, whole = spans(mission()[:4]), spans(mission())
    assert before == whole[:1]
    later = [event.model_copy(update={"seq": event.seq + 1}) for event in mission()]
    assert [span.span_id for span in spans(later)] == [span.span_id for span in whole]
    other = spans(mission(mission_id="mission-2"))
    assert not {span.span_id for span in whole} & {span.span_id for span in other}
    assert whole[0].trace_id != other[0].trace_id


def test_missions_may_be_mixed() -> None:
    mixed = [e for pair in zip(mission(), mission(mission_id="mission-2"), strict=True) for e in pair]
    apart = spans(mission()) + spans(mission(mission_id="mission-2"))
    assert sorted(spans(mixed), key=repr) == sorted(apart, key=repr)


def test_ids_are_the_same_in_every_process() -> None:
    program = "from tests.unit.swarm.test_trace import *; print([(s.trace_id, s.span_id) for s in spans(mission())])"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{[(span.trace_id, span.span_id) for span in spans(mission())]}\n"}


@pytest.mark.parametrize("data", [{}, {"attempt": 1, "elapsed_s": "y", "spent": 3}, {"attempt": None, "elapsed_s": -5}])
def test_an_event_of_another_shape_is_a_span_all_the_same(data: dict[str, JsonValue]) -> None:
    event = Event(mission_id="m", seq=1, kind=EventKind.REPLY_ACCEPTED, at_s=5.0, task_id="t", data=data)
    [span] = spans([event])
    assert (span.start_s, span.end_s, span.error) == (5.0, 5.0, "")
