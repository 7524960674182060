"""Facts that happened to a mission. A journal is a list of them, and a mission's state is their sum."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from chimera.core.types import Frozen, Name


class EventKind(StrEnum):
    """What happened. Names are past tense: an event is never a wish."""

    MISSION_ADMITTED = "mission_admitted"
    TASK_STARTED = "task_started"
    ATTEMPT_STARTED = "attempt_started"
    REPLY_ACCEPTED = "reply_accepted"
    ATTEMPT_FAILED = "attempt_failed"
    TASK_HELD = "task_held"
    TASK_REVIEWED = "task_reviewed"
    TASK_DECIDED = "task_decided"
    TASK_QUARANTINED = "task_quarantined"
    GRAPH_EXPANDED = "graph_expanded"
    MISSION_CANCELLED = "mission_cancelled"
    MISSION_RESUMED = "mission_resumed"
    MISSION_ENDED = "mission_ended"
    SWARM_STARTED = "swarm_started"
    AGENTS_SPAWNED = "agents_spawned"
    AGENTS_LEFT = "agents_left"
    HEART_STEP_TAKEN = "heart_step_taken"
    RELOAD_PROPOSED = "reload_proposed"
    RELOAD_COMMITTED = "reload_committed"
    REVIEW_ASKED = "review_asked"
    REVIEW_CLAIMED = "review_claimed"
    REVIEW_RELEASED = "review_released"
    REVIEW_EDITED = "review_edited"
    REVIEW_VOTED = "review_voted"
    REVIEW_DECIDED = "review_decided"
    REVIEW_ESCALATED = "review_escalated"
    REVIEW_EXPIRED = "review_expired"
    REVIEW_WITHDRAWN = "review_withdrawn"


class Event(Frozen):
    """One fact. `at_s` is wall-clock seconds since the epoch; `seq` counts from 1 within a mission.

    `swarm` is the one that wrote it. A swarm's own events are kept as those of a mission with the swarm's name.
    """

    mission_id: Name
    seq: int = Field(ge=1)
    kind: EventKind
    at_s: float
    task_id: str = ""
    swarm: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)
