"""What travels between coordinator, managers and cells: attempts down, reports up."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from chimera.core.types import Budget, Decision, FailureKind, Spend, Task, Vote

NO_LIMIT = Budget()
NOTHING = Spend()


@dataclass(frozen=True)
class Settled:
    """A task that has been decided, as the tasks that depend on it see it."""

    inputs: Mapping[str, JsonValue]
    decision: Decision
    votes: tuple[Vote, ...]
    confidence: float = 0.0
    supporters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """What an attempt is about: its task, and the decided tasks that it depends on."""

    task: Task
    upstream: Mapping[str, Settled] = field(default_factory=dict)

    def pack(self) -> bytes:
        """For the journey: as JSON, which is several times quicker, where the task stands alone."""
        if self.upstream:
            return pickle.dumps(self, protocol=5)
        return self.task.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> Work:
        """What `pack` packed."""
        if packed.startswith(b"{"):  # a pickle of this protocol starts with 0x80
            return cls(Task.model_validate_json(packed))
        found: Work = pickle.loads(packed)
        return found


@dataclass(frozen=True)
class Attempt:
    """One try of one replica of a task by one agent: an envelope, which only the cell that carries it out opens.

    `work` is a packed `Work`: managers route by what stands outside. `barred` agents have already voted on the task or
    failed it. `policy` is the identity that the agent's policy must have, `skill` what it must be able to do; either
    may be empty. With `different` the coordinator gives each replica another policy. `suspect`: hosts were lost with it
    and it may be poison, so that it must have a cell to itself.
    """

    id: str
    mission_id: str
    task_id: str
    replica: int
    number: int
    role: str
    timeout_s: float
    work: bytes
    priority: int = 4
    policy: str = ""
    skill: str = ""
    different: bool = False
    suspect: bool = False
    barred: frozenset[str] = frozenset()
    spend: Budget = NO_LIMIT

    @property
    def idempotency_key(self) -> str:
        """Equal for every try of the same replica: a side effect done under it is not done twice."""
        return f"{self.mission_id}/{self.task_id}/{self.replica}"

    @property
    def task_key(self) -> str:
        """Names the task among those of all missions."""
        return f"{self.mission_id}/{self.task_id}"


@dataclass(frozen=True)
class Report:
    """How an attempt ended: a reply or a failure. `input_error` names the InputError that makes a retry pointless.

    `reply` is the JSON of a `Reply` that has been checked; only the brain opens it. `alone`: it was lost with a host
    that had nothing else in hand.
    """

    attempt_id: str
    mission_id: str
    agent: str = ""
    policy: str = ""
    reply: bytes | None = None
    failure: FailureKind | None = None
    detail: str = ""
    input_error: str = ""
    elapsed_s: float = 0.0
    spent: Spend = NOTHING
    alone: bool = False


@dataclass(frozen=True)
class Appraisal:
    """What an agent's work was worth: `good` from 0 (failed, or against the decision) to 1 (agreed with it)."""

    agent: str
    skill: str
    good: float
