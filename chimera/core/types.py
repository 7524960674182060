"""What two or more packages share: frozen models, checked when made, equal by value."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-\[\]/:]{0,127}$")]
"""An identifier that is safe in a journal, a log line and the dashboard."""

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A number from 0 to 1."""

Seconds = Annotated[float, Field(gt=0.0, le=86_400.0, allow_inf_nan=False)]
"""A duration of at most a day."""

ReviewSeconds = Annotated[float, Field(gt=0.0, le=2_678_400.0, allow_inf_nan=False)]
"""How long a person may take: at most 31 days."""

WhenReviewed = Literal["never", "policy", "always"]
"""Whether a person looks at a decision before the mission goes on; `policy`: where the swarm is not sure enough."""

MAX_REPLICAS = 64

MAX_PRIORITY = 9

Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY)]
"""0 is the least urgent. A waiting 9 goes first; a waiting 0 still moves."""


class Frozen(BaseModel):
    """Base of every shared model: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Consensus(StrEnum):
    """How replies become a decision. See `chimera.swarm.consensus`."""

    MAJORITY = "majority"
    WEIGHTED = "weighted"
    UNANIMOUS = "unanimous"
    QUORUM = "quorum"


class EqualityKind(StrEnum):
    """When two replies count as the same reply."""

    EXACT = "exact"
    TEXT = "text"
    NUMERIC = "numeric"
    JSON = "json"


class Equality(Frozen):
    """How replies are compared. `tolerance` is absolute, and only for `numeric`."""

    kind: EqualityKind = EqualityKind.JSON
    tolerance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _tolerance_only_for_numbers(self) -> Equality:
        if self.tolerance and self.kind is not EqualityKind.NUMERIC:
            raise ValueError("tolerance is only for numeric equality")
        return self


class Spend(Frozen):
    """What work costs: money, model tokens, calls of models and tools, seconds of agents' time."""

    usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    tokens: Annotated[int, Field(ge=0)] = 0
    calls: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


class Budget(Frozen):
    """The most that may be spent. What is None has no limit; zero forbids."""

    usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    calls: Annotated[int, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None


class Alternative(Frozen):
    """A further value that an agent would accept, with its confidence in it."""

    value: JsonValue
    confidence: Share


class Reply(Frozen):
    """What an agent's policy returns: a JSON value and how sure the agent is of it.

    `alternatives` are counted by weighted consensus only, as a score ballot; the other methods count `value`.
    `details` are reported with the reply and never voted on. `cost_usd` and `tokens` are what making it cost, besides
    what was spent through `context.spend`. `appraisals` are a judge's opinion of agents, by id: they move reputations.
    `undecided` says why `value`, a partial answer, is no agreement; a mission whose output says so is `undecided`.
    """

    value: JsonValue
    confidence: Share = 1.0
    alternatives: tuple[Alternative, ...] = Field(default=(), max_length=64)
    details: dict[str, JsonValue] = Field(default_factory=dict)
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    tokens: Annotated[int, Field(ge=0)] = 0
    appraisals: dict[Name, Share] = Field(default_factory=dict, max_length=1_000)
    undecided: str = Field(default="", max_length=10_000)


class FailureKind(StrEnum):
    """Why an attempt brought no reply that counts."""

    RAISED = "raised"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    LOST = "lost"
    POISON = "poison"
    NO_AGENT = "no_agent"
    NO_BUDGET = "no_budget"
    OVERLOADED = "overloaded"
    CANCELLED = "cancelled"


class Vote(Frozen):
    """One replica's outcome: its reply, or why there is none. `voter` is stable across orders of arrival."""

    voter: Name
    agent: str = ""
    policy: str = ""
    reply: Reply | None = None
    failure: FailureKind | None = None
    detail: str = ""
    elapsed_s: float = 0.0
    cost_usd: float = 0.0

    @model_validator(mode="after")
    def _one_of_both(self) -> Vote:
        if (self.reply is None) == (self.failure is None):
            raise ValueError("a vote has a reply or a failure, and not both")
        return self


class Outcome(StrEnum):
    """What a vote came to. A tie and a missed quorum are decisions of their own."""

    AGREED = "agreed"
    TIE = "tie"
    NO_QUORUM = "no_quorum"


class Decision(Frozen):
    """The result of a vote.

    `value` is the canonical form that was voted on (for `text` equality, casefolded with its white space collapsed),
    so that it does not depend on which reply came first; None unless `outcome` is `agreed`. `support` is the winner's
    share of the `electorate`, in votes or, for `weighted`, in confidence. `counted` replies were in when it was made.
    """

    outcome: Outcome
    method: Consensus
    value: JsonValue = None
    support: Share = 0.0
    electorate: int = Field(ge=0)
    counted: int = Field(ge=0)
    explanation: str = ""

    @property
    def agreed(self) -> bool:
        return self.outcome is Outcome.AGREED


class Task(Frozen):
    """A piece of work for `replicas` agents of one role, and how their replies become one decision.

    `deadline_s` counts from the mission's start; `attempt_timeout_s` from the moment an agent starts (default: a
    quarter of the deadline, so that another agent can still try). An attempt that fails goes to another agent, up to
    `max_attempts` for each replica. With `early_stop` the vote ends as soon as it cannot change and the rest is
    cancelled; with a `certainty` below 1 (not for `weighted`) as soon as the complete vote would come to the same with
    that probability. `frugal` asks no more agents at a time than the decision may need, which takes longer and makes
    fewer calls. With `different_policies` no two replicas go to agents of the same policy. `skill` asks for an agent
    that has it. `priority` orders what waits. `spend` is the most that one attempt may spend of the mission's budget;
    the default is an equal share of what is left for each try that the mission's replicas may still make.

    With `review` a decision is held until a person has looked at it: `always`, or by `policy` where the confidence in
    it is below `review_below`. Nobody works meanwhile and no deadline runs; after `review_s` it counts as rejected.
    """

    goal: str = Field(min_length=1, max_length=20_000)
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    role: Name = "worker"
    replicas: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    consensus: Consensus = Consensus.MAJORITY
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    equality: Equality = Equality()
    deadline_s: Seconds = 60.0
    attempt_timeout_s: Seconds | None = None
    max_attempts: int = Field(default=3, ge=1, le=10)
    early_stop: bool = True
    certainty: Annotated[float, Field(ge=0.5, le=1.0)] = 1.0
    frugal: bool = False
    different_policies: bool = False
    skill: Name | None = None
    priority: Priority = 4
    spend: Budget | None = None
    review: WhenReviewed = "never"
    review_below: Share = 0.7
    review_s: ReviewSeconds = 604_800.0

    @model_validator(mode="after")
    def _threshold_only_for_quorum(self) -> Task:
        if self.threshold is not None and self.consensus is not Consensus.QUORUM:
            raise ValueError("threshold is only for quorum consensus")
        if self.certainty < 1.0 and (self.consensus is Consensus.WEIGHTED or self.equality.tolerance):
            raise ValueError("certainty below 1 is only for votes that are counted, and without a tolerance")
        return self


class Isolation(StrEnum):
    """Where an agent lives: one of many in a cell, or in a Ray actor and process of its own."""

    PACKED = "packed"
    DEDICATED = "dedicated"


class AgentSpec(Frozen):
    """An agent to spawn: a role, and the policy that does its work.

    `policy` is `"package.module:name"` (a function, or a class that is made once per agent) or a callable;
    it takes `(task, context)` and returns a JSON value or a `Reply`, directly or as a coroutine. The default answers
    the task's goal with a sentence from its inputs. `skills` are what it can do besides: tasks may ask for one.
    """

    role: Name = "worker"
    policy: str | Callable[..., Any] = "chimera.swarm.readers:respond"
    isolation: Isolation = Isolation.PACKED
    options: dict[str, JsonValue] = Field(default_factory=dict)
    skills: tuple[Name, ...] = Field(default=(), max_length=32)


class Quote(Frozen):
    """A passage that stands word for word in a file. `line` counts from 1; `page` is set for PDF."""

    text: str
    file: str
    line: int = Field(ge=1)
    page: int | None = Field(default=None, ge=1)

    @property
    def citation(self) -> str:
        return f"[{self.file}:{self.line}]" if self.page is None else f"[{self.file}:p{self.page}:{self.line}]"


class MissionState(StrEnum):
    """Where a mission stands. All but the first are ends."""

    RUNNING = "running"
    ANSWERED = "answered"
    UNDECIDED = "undecided"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self is not MissionState.RUNNING


class TaskResult(Frozen):
    """What came of a mission. `value` is the output task's decision; `replies` are the votes that made it.

    `confidence` is the mean confidence in `value` over the voters that were heard, those that failed among them;
    `supporters` are the voters whose reply is `value`.

    `error` is set only when `state` is `failed`: `{"kind": error class, "message": what to do}`. `cost_usd` is the
    sum over every attempt that was heard.
    """

    mission_id: Name
    state: MissionState
    value: JsonValue = None
    confidence: Share = 0.0
    decision: Decision | None = None
    replies: tuple[Vote, ...] = ()
    supporters: tuple[Name, ...] = ()
    explanation: str = ""
    error: dict[Literal["kind", "message", "reason"], str] | None = None
    elapsed_s: float = 0.0
    cost_usd: float = 0.0
    spent: Spend = Spend()
    attempts: int = 0
