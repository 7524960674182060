"""A mission: what an intent compiles to, and what a mission file holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from chimera.core.types import (
    MAX_REPLICAS,
    AgentSpec,
    Budget,
    Consensus,
    Equality,
    Frozen,
    Isolation,
    Name,
    Priority,
    ReviewSeconds,
    Seconds,
    Share,
    WhenReviewed,
)

MAX_DRAFTS = 10_000
MAX_AGENTS = 1_000_000

DraftId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-/:]{0,99}$")]
"""A Name without brackets: those are for the tasks that a fan becomes."""

Threshold = Annotated[float, Field(gt=0.0, le=1.0)]
Replicas = Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
Attempts = Annotated[int, Field(ge=1, le=10)]


class Limits(Frozen):
    """How long a mission may take, in seconds, how often a replica's attempt is made again, how urgent the mission is
    (0 to 9), and the most that it may spend."""

    deadline_s: Seconds = 60.0
    attempt_timeout_s: Seconds | None = None
    max_attempts: Attempts = 3
    priority: Priority = 4
    budget: Budget | None = None


class Spawn(Frozen):
    """Agents that a mission wants: `count` of one role and policy. See `AgentSpec`."""

    role: Name = "worker"
    policy: str = Field(min_length=1, max_length=1_000)
    count: int = Field(default=1, ge=1, le=MAX_AGENTS)
    isolation: Isolation = Isolation.PACKED
    options: dict[str, JsonValue] = Field(default_factory=dict)
    skills: tuple[Name, ...] = Field(default=(), max_length=32)

    def specs(self) -> list[AgentSpec]:
        """One spec for each agent."""
        spec = AgentSpec(
            role=self.role, policy=self.policy, isolation=self.isolation, options=self.options, skills=self.skills
        )
        return [spec] * self.count


class TaskDraft(Frozen):
    """A task as a user writes it. What is None is the mission's own; `after`, `each`, `needs` are as in `TaskNode`.

    Of the mission's own `review` only the output has something: no other task is held unless it says so itself.
    """

    id: DraftId
    goal: str = Field(min_length=1, max_length=20_000)
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    role: Name = "worker"
    after: tuple[DraftId, ...] = Field(default=(), max_length=MAX_DRAFTS)
    each: DraftId | None = None
    needs: Literal["agreed", "settled"] = "agreed"
    replicas: Replicas | None = None
    consensus: Consensus | None = None
    threshold: Threshold | None = None
    equality: Equality = Equality()
    deadline_s: Seconds | None = None
    attempt_timeout_s: Seconds | None = None
    max_attempts: Attempts | None = None
    early_stop: bool = True
    certainty: Annotated[float, Field(ge=0.5, le=1.0)] = 1.0
    frugal: bool = False
    different_policies: bool = False
    skill: Name | None = None
    spend: Budget | None = None
    review: WhenReviewed | None = None
    review_below: Share | None = None
    review_s: ReviewSeconds | None = None


class Mission(Frozen):
    """What a user asks, with everything that has to be known to start it.

    With `tasks`, the mission is that graph, and its value is the decision of `output` (default: the one task that no
    other waits for); `docs` is then handed to each task as an input. With `docs` alone it is a brief over documents,
    with neither a single task for `worker`s. `docs` is a folder or `package:NAME/FOLDER`; a relative one is as seen
    from where the program runs. `agents` is how many to spawn for a brief, `spawn` says which. `review` is whether a
    person looks at the output's decision before it is the mission's answer; see `Task`.
    """

    goal: str = Field(min_length=1, max_length=20_000)
    docs: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    replicas: Replicas = 3
    consensus: Consensus = Consensus.WEIGHTED
    threshold: Threshold | None = None
    model: str = Field(default="offline", min_length=1, max_length=300)
    agents: Annotated[int, Field(ge=1, le=MAX_AGENTS)] | None = None
    limits: Limits = Limits()
    tasks: tuple[TaskDraft, ...] = Field(default=(), max_length=MAX_DRAFTS)
    output: DraftId | None = None
    spawn: tuple[Spawn, ...] = Field(default=(), max_length=1_000)
    review: WhenReviewed = "never"
    review_below: Share = 0.7
    review_s: ReviewSeconds = 604_800.0

    @model_validator(mode="after")
    def _fits_together(self) -> Mission:
        if self.threshold is not None and self.consensus is not Consensus.QUORUM:
            raise ValueError("threshold: only for quorum consensus")
        if self.output is not None and not self.tasks:
            raise ValueError("output: only with tasks")
        for index, draft in enumerate(self.tasks):
            if draft.threshold is not None and (draft.consensus or self.consensus) is not Consensus.QUORUM:
                raise ValueError(f"tasks[{index}].threshold: only for quorum consensus")
        if sum(spawn.count for spawn in self.spawn) > MAX_AGENTS:
            raise ValueError(f"spawn: more than {MAX_AGENTS} agents in all")
        return self
