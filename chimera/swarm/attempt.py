"""What travels between coordinator, managers and cells: attempts down, reports up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from chimera.core.types import Decision, FailureKind, Reply, Task, Vote


@dataclass(frozen=True, slots=True)
class Settled:
    """A task that has been decided, as the tasks that depend on it see it."""

    inputs: Mapping[str, JsonValue]
    decision: Decision
    votes: tuple[Vote, ...]
    confidence: float = 0.0
    supporters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one replica of a task by one agent. `barred` agents have already voted on the task or failed it."""

    id: str
    mission_id: str
    task_id: str
    replica: int
    number: int
    task: Task
    timeout_s: float
    upstream: Mapping[str, Settled] = field(default_factory=dict)
    barred: frozenset[str] = frozenset()

    @property
    def idempotency_key(self) -> str:
        """Equal for every try of the same replica: a side effect done under it is not done twice."""
        return f"{self.mission_id}/{self.task_id}/{self.replica}"


@dataclass(frozen=True, slots=True)
class Report:
    """How an attempt ended: a reply or a failure. `input_error` names the InputError that makes a retry pointless."""

    attempt_id: str
    mission_id: str
    agent: str = ""
    policy: str = ""
    reply: Reply | None = None
    failure: FailureKind | None = None
    detail: str = ""
    input_error: str = ""
    elapsed_s: float = 0.0
    cost_usd: float = 0.0
