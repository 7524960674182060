"""From a journal back to a brain: what happened is told to a new one, which must then say what the journal holds.

A brain is a function of what it was told, so a mission's events are read as what caused them: a reply or failure as
its report, the rest as time that passed. Each event must come out again as it stands in the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from chimera.core.errors import ChimeraError, StorageError
from chimera.core.events import Event, EventKind
from chimera.swarm import facts
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.instructions import (
    Cancelled,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Resumed,
    Reviewed,
    Started,
    Tick,
)

_MUST_AGREE = ("outcome", "value", "state", "tasks", "replica", "attempt", "failure", "verdict", "by")
"""What of an event's data a replay has to come to. Words may differ: another version may explain otherwise."""


def rebuild(
    events: Sequence[Event], *, decomposer: TaskDecomposer, now: float, wall: float
) -> tuple[MissionBrain, list[Instruction]]:
    """The brain that has `events` behind it, and what is left to do of its last step.

    What is left are the records of that step which the journal does not hold yet, and the `Finish` of a mission that
    has ended; `outstanding` says which attempts are in progress. Raises StorageError for what is not a mission's
    journal from its admission on, without a gap, as this version would write it.
    """
    brain = _begin(events, decomposer)
    expected: deque[Event] = deque()
    rest: list[Instruction] = []
    for event in events:
        if not expected:
            rest = _tell(brain, event)
            expected.extend(step.event for step in rest if isinstance(step, Record))
        found = expected.popleft() if expected else None
        if found is None or _essence(found) != _essence(event):
            told = f"{found.kind} ({found.task_id})" if found else "nothing"
            raise StorageError(
                f"mission {brain.mission_id}: event {event.seq} is {event.kind} ({event.task_id}), where this version"
                f" comes to {told}: it is damaged, or another version of Chimera wrote it; resume it with that one"
            )
    brain.synchronize(now, wall)
    left = {event.seq for event in expected}
    return brain, [s for s in rest if isinstance(s, Finish) or (isinstance(s, Record) and s.event.seq in left)]


def _begin(events: Sequence[Event], decomposer: TaskDecomposer) -> MissionBrain:
    if not events or events[0].kind is not EventKind.MISSION_ADMITTED:
        raise StorageError("a mission's journal begins with its admission; this one does not")
    first = events[0]
    try:
        graph, deadline_s, budget = facts.admission(first)
    except (KeyError, ValueError, ChimeraError) as error:
        raise StorageError(f"mission {first.mission_id}: its admission cannot be read: {error}") from error
    return MissionBrain(
        mission_id=first.mission_id,
        graph=graph,
        deadline_s=deadline_s,
        decomposer=decomposer,
        budget=budget,
        swarm=first.swarm,
    )


def _tell(brain: MissionBrain, event: Event) -> list[Instruction]:
    try:
        return brain.happened(_cause(event), event.at_s)
    except (KeyError, TypeError, ValueError, ChimeraError) as error:
        raise StorageError(f"mission {event.mission_id}: event {event.seq} cannot be read: {error!r}") from error


def _cause(event: Event) -> Happening:
    match event.kind:
        case EventKind.MISSION_ADMITTED:
            return Started()
        case EventKind.REPLY_ACCEPTED | EventKind.ATTEMPT_FAILED if event.data["attempt"]:
            return Reported(facts.report(event))
        case EventKind.ATTEMPT_STARTED | EventKind.ATTEMPT_FAILED:
            return Started()  # once more: a pause was over, and no more. A Tick also ends what is overdue
        case EventKind.MISSION_RESUMED:
            return Resumed(event.swarm)
        case EventKind.TASK_REVIEWED if review := facts.review(event):
            return Reviewed(event.task_id, review)
        case EventKind.MISSION_CANCELLED:
            return Cancelled(str(event.data["why"]))
        case _:
            return Tick()


def _essence(event: Event) -> tuple[object, ...]:
    said = {name: event.data[name] for name in _MUST_AGREE if name in event.data}
    return event.mission_id, event.seq, event.kind, event.task_id, event.at_s, said
