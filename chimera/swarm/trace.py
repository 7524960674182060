"""A mission's events as the spans of a trace: mission -> task -> attempt.

Ids are digests of what a span is about: a mission that another coordinator goes on with stays one trace, and what is
exported twice is the same twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from chimera.core.events import Event, EventKind
from chimera.core.hashing import digest

MAX_TEXT = 1_000
"""Characters of one attribute."""

ENDS = frozenset({EventKind.REPLY_ACCEPTED, EventKind.ATTEMPT_FAILED, EventKind.TASK_DECIDED, EventKind.MISSION_ENDED})
"""The events that end a span, each one."""

_GOOD_ENDS = ("answered", "undecided", "cancelled")

_TOLD = frozenset(
    "role replicas outcome method support counted state attempts explanation attempt replica agent policy failure "
    "detail elapsed_s spent".split()
)

AttributeValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """Something that began and ended, in wall-clock seconds since the epoch.

    `trace_id` has 128 bits, `span_id` and `parent_id` 64; a mission has no parent. `error` says what went wrong.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    start_s: float
    end_s: float
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    error: str = ""


@dataclass(slots=True)
class _Started:
    at_s: float
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


def without_content(event: Event) -> Event:
    """The event with only what a span tells of it: what was asked and replied may be megabytes, and is not traced."""
    told = {k: v[:MAX_TEXT] if isinstance(v, str) else v for k, v in event.data.items() if k in _TOLD}
    return event if told == event.data else event.model_copy(update={"data": told})


def spans(events: Iterable[Event]) -> list[Span]:
    """The spans that ended in `events`, which are a mission's from its first on, in the order in which they ended.

    A mission or a task that goes on has none yet, and neither has an attempt that nobody heard of again.
    """
    missions: dict[str, _Started] = {}
    tasks: dict[tuple[str, str], _Started] = {}
    found = []
    for event in events:
        mission = missions.setdefault(event.mission_id, _Started(event.at_s))
        task = tasks.setdefault((event.mission_id, event.task_id), _Started(event.at_s)) if event.task_id else mission
        match event.kind:
            case EventKind.TASK_STARTED:
                task.attributes |= _chosen(event.data, "role", "replicas")
            case EventKind.TASK_HELD:
                task.attributes["chimera.held"] = True
            case EventKind.TASK_QUARANTINED:
                task.attributes["chimera.quarantined"] = True
            case EventKind.MISSION_RESUMED:
                mission.attributes["chimera.resumed"] = True
            case EventKind.REPLY_ACCEPTED | EventKind.ATTEMPT_FAILED:
                found.append(_attempt(event))
            case EventKind.TASK_DECIDED:
                found.append(_task(event, task))
            case EventKind.MISSION_ENDED:
                found.append(_mission(event, mission))
    return found


def _mission(event: Event, started: _Started) -> Span:
    state = event.data.get("state")
    attributes = {**_common(event), **started.attributes, **_chosen(event.data, "state", "attempts")}
    return Span(
        "mission",
        _trace_id(event),
        _span_id(event.mission_id),
        None,
        started.at_s,
        max(started.at_s, event.at_s),
        attributes,
        "" if state in _GOOD_ENDS else _text(event.data.get("explanation")) or _text(state) or "failed",
    )


def _task(event: Event, started: _Started) -> Span:
    chosen = _chosen(event.data, "outcome", "method", "support", "counted")
    return Span(
        "task",
        _trace_id(event),
        _span_id(event.mission_id, event.task_id),
        _span_id(event.mission_id),
        started.at_s,
        max(started.at_s, event.at_s),
        {**_common(event), **started.attributes, **chosen},
        "" if event.data.get("outcome") == "agreed" else _text(event.data.get("explanation")) or "not agreed",
    )


def _attempt(event: Event) -> Span:
    data = event.data
    attempt = _text(data.get("attempt")) or str(event.seq)
    elapsed = data.get("elapsed_s")
    elapsed_s = max(0.0, elapsed) if isinstance(elapsed, int | float) else 0.0
    spent = data.get("spent")
    failure = _text(data.get("failure"))
    return Span(
        "attempt",
        _trace_id(event),
        _span_id(event.mission_id, event.task_id, attempt),
        _span_id(event.mission_id, event.task_id),
        event.at_s - elapsed_s,
        event.at_s,
        {
            **_common(event),
            **_chosen(data, "attempt", "replica", "agent", "policy", "failure"),
            **(_chosen(spent, "usd", "tokens", "calls") if isinstance(spent, dict) else {}),
        },
        f"{failure}: {_text(data.get('detail'))}" if failure and failure != "cancelled" else "",
    )


def _common(event: Event) -> dict[str, AttributeValue]:
    named = {
        "chimera.mission_id": event.mission_id,
        "chimera.task_id": event.task_id,
        "chimera.swarm": event.swarm,
    }
    return {name: value for name, value in named.items() if value}


def _chosen(data: Mapping[str, JsonValue], *names: str) -> dict[str, AttributeValue]:
    values = {name: data.get(name) for name in names}
    return {
        f"chimera.{name}": _text(value) if isinstance(value, str) else value
        for name, value in values.items()
        if isinstance(value, str | int | float) and value != ""
    }


def _text(value: JsonValue) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _trace_id(event: Event) -> int:
    return int(digest(["trace", event.mission_id]), 16) or 1


def _span_id(*about: JsonValue) -> int:
    return int(digest(list(about), 8), 16) or 1
