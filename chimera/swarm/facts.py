"""The data of a mission's events: what the journal keeps of each happening, and how a replay reads it back."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import JsonValue

from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, Decision, FailureKind, Reply, Spend, TaskResult
from chimera.swarm.attempt import Report
from chimera.swarm.graph import TaskGraph
from chimera.swarm.held import NOBODY, Holding, Review

Data = dict[str, JsonValue]


def admitted(graph: TaskGraph, deadline_s: float, budget: Budget | None) -> Data:
    told: Data = {"graph": graph.model_dump(mode="json", exclude_defaults=True), "deadline_s": deadline_s}
    if budget is not None:
        told["budget"] = budget.model_dump(mode="json", exclude_none=True)
    return told


def admission(event: Event) -> tuple[TaskGraph, float, Budget]:
    """The graph, deadline and budget of an admission. Raises KeyError, ValueError or GraphError if it is none."""
    graph = TaskGraph.model_validate(event.data["graph"])
    return graph, float(str(event.data["deadline_s"])), Budget.model_validate(event.data.get("budget", {}))


def accepted(replica: int, report: Report, reply: Reply) -> Data:
    return {**_told(replica, report), "reply": reply.model_dump(mode="json", exclude_defaults=True)}


def failed(replica: int, report: Report, *, late: bool = False) -> Data:
    """`late`: nobody waited for it any more; it is kept for what it spent."""
    told = _told(replica, report)
    told["failure"] = (report.failure or FailureKind.CANCELLED).value
    told["detail"] = report.detail
    if report.input_error:
        told["input_error"] = report.input_error
    if report.alone:
        told["alone"] = True
    if late:
        told["late"] = True
    return told


def late(report: Report) -> tuple[str, Data]:
    """Of an attempt that nobody waited for any more: its task, and what is kept of it."""
    task_key, replica, _ = report.attempt_id.rsplit("/", 2)
    return task_key.removeprefix(f"{report.mission_id}/"), failed(int(replica), report, late=True)


def report(event: Event) -> Report:
    """The report that an accepted reply or a failed attempt came from. Raises KeyError, TypeError or ValueError."""
    data = event.data
    failure = data.get("failure")
    return Report(
        str(data["attempt"]),
        event.mission_id,
        agent=str(data["agent"]),
        policy=str(data["policy"]),
        reply=None if failure else json.dumps(data["reply"]).encode(),
        failure=FailureKind(str(failure)) if failure else None,
        detail=str(data.get("detail", "")),
        input_error=str(data.get("input_error", "")),
        elapsed_s=float(str(data["elapsed_s"])),
        spent=Spend.model_validate(data.get("spent", {})),
        alone=bool(data.get("alone", False)),
    )


def decided(decision: Decision, after_s: float, saved: int) -> Data:
    """`after_s` is since the task's start; `saved` replicas were not needed any more."""
    return {
        "outcome": decision.outcome.value,
        "method": decision.method.value,
        "value": decision.value,
        "support": decision.support,
        "electorate": decision.electorate,
        "counted": decision.counted,
        "explanation": decision.explanation,
        "after_s": after_s,
        "saved": saved,
    }


def held(holding: Holding) -> Data:
    """The decision that is proposed, how sure the swarm is of it, and until when somebody may answer."""
    proposed = decided(holding.proposed.decision, holding.after_s, holding.saved)
    return {**proposed, "confidence": holding.proposed.confidence, "until_s": holding.until_s}


def reviewed(review: Review | None) -> Data:
    """None: nobody has answered in time."""
    if review is None:
        return {"verdict": "reject", "by": "", "reason": NOBODY}
    told: Data = {"verdict": review.verdict, "by": review.by, "reason": review.reason}
    return {**told, "value": review.value} if review.verdict == "edit" else told


def review(event: Event) -> Review | None:
    """What `reviewed` told. Raises ValueError."""
    return Review.model_validate(event.data) if event.data.get("by") else None


def held_in(events: Iterable[Event]) -> list[str]:
    """The tasks that wait for a person, as far as these events of a mission tell."""
    waiting: dict[str, None] = {}
    for event in events:
        if event.kind is EventKind.TASK_HELD:
            waiting[event.task_id] = None
        elif event.kind in (EventKind.TASK_REVIEWED, EventKind.TASK_DECIDED):
            waiting.pop(event.task_id, None)
    return list(waiting)


def ended(result: TaskResult) -> Data:
    told: Data = {"state": result.state.value, "explanation": result.explanation}
    if result.error is not None:
        told["error"] = {str(name): text for name, text in result.error.items()}
    return {**told, "elapsed_s": result.elapsed_s, "attempts": result.attempts}


def _told(replica: int, report: Report) -> Data:
    told: Data = {
        "attempt": report.attempt_id,
        "replica": replica,
        "agent": report.agent,
        "policy": report.policy,
        "elapsed_s": report.elapsed_s,
    }
    spent = report.spent
    if spent.usd or spent.tokens or spent.calls:
        told["spent"] = {"usd": spent.usd, "tokens": spent.tokens, "calls": spent.calls}
    return told
