"""What goes in and out of the routes. An unknown field is an error, and everything has a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from chimera.core.types import (
    AgentSpec,
    Budget,
    Consensus,
    Frozen,
    Isolation,
    MissionState,
    Name,
    Task,
)
from chimera.security.api_keys import MAX_LABEL, MAX_LIFETIME_S, MAX_RATE
from chimera.security.capabilities import MAX_TTL_S
from chimera.security.caveats import (
    MAX_OPERATIONS,
    MAX_RESOURCE_CHARS,
    MAX_USD,
    MAX_USES,
    Caveat,
    ExpiresAt,
    ForAudience,
    ForTenant,
    MaxUsd,
    OnlyOperations,
    OnResource,
    Uses,
)
from chimera.security.roles import Permission, Role
from chimera.swarm.mission import DraftId, Limits, Mission, Replicas, TaskDraft, Threshold
from chimera.treasury.types import Currency, Id, Line, Micros, nano

MAX_TASKS = 1_000
"""Of one mission in one request; a fan (`each`) makes more of them."""

Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Secret = Annotated[str, Field(min_length=1, max_length=8_192)]
Password = Annotated[str, Field(min_length=1, max_length=1_024)]
User = Annotated[str, Field(min_length=1, max_length=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Inputs = Annotated[dict[str, JsonValue], Field(max_length=1_000)]


M = TypeVar("M", bound=Frozen)


def _made(kind: type[M], body: Frozen, fields_of: type[Frozen], but: str = "") -> M:
    """What a body describes. Raises ValueError where its fields do not go together."""
    fields = {name: getattr(body, name) for name in fields_of.model_fields if name != but}
    try:
        return kind(**fields)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"]) from None


def _example(**fields: JsonValue) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Login(Frozen):
    model_config = _example(user="ada", password="a correct horse, and its battery")

    user: User
    password: Password = Field(repr=False)
    new_password: Password | None = Field(default=None, repr=False)
    """Changes the password; the first login with a one-time password needs it."""


class Tokens(Frozen):
    """`access_token` goes into `Authorization: Bearer ...`; `expires_in` is in seconds."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: float


class Token(Frozen):
    model_config = _example(token="eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9...")

    token: Secret = Field(repr=False)


class Refresh(Frozen):
    model_config = _example(refresh_token="eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLiIsInR5cCI6InJ0K2p3dCJ9...")

    refresh_token: Secret = Field(repr=False)


class Who(Frozen):
    """Whom a token stands for. `expires_at` is in seconds since the epoch."""

    subject: str
    role: Role
    kind: str
    permissions: list[Permission]
    expires_at: float | None


class NewKey(Frozen):
    """A key for the caller, or with `keys:any` for another user. It may do no more than its role, within `scopes`."""

    model_config = _example(
        role="api_client", scopes=["swarm:read", "swarm:task"], expires_in_s=86_400, label="nightly build"
    )

    role: Role = Role.API_CLIENT
    user: User | None = None
    scopes: Annotated[list[Permission], Field(max_length=len(Permission))] | None = None
    rate_limit: Annotated[int, Field(ge=1, le=MAX_RATE)] | None = Field(
        default=None, description="Requests a second: 50, or if that is less, the most that one may hand out."
    )
    expires_in_s: Annotated[float, Field(gt=0, le=MAX_LIFETIME_S)] | None = None
    label: str = Field(default="", max_length=MAX_LABEL)


class MadeKey(Frozen):
    """`secret` is shown this once."""

    secret: str = Field(repr=False)
    id: str


Operations = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=131)], ...], Field(min_length=1, max_length=MAX_OPERATIONS)
]
Resource = Annotated[str, Field(min_length=1, max_length=MAX_RESOURCE_CHARS)]
Party = Annotated[str, Field(min_length=1, max_length=128)]


class Caveats(Frozen):
    """What narrows a capability; all that is given holds. `expires_at` is in seconds since the epoch."""

    expires_at: Annotated[float, Field(ge=0, le=253_402_300_799)] | None = None
    resource: Resource | None = None
    operations: Operations | None = None
    max_usd: Annotated[float, Field(ge=0, le=MAX_USD)] | None = None
    uses: Annotated[int, Field(ge=1, le=MAX_USES)] | None = None
    audience: Party | None = None
    tenant: Party | None = None

    def made(self) -> list[Caveat]:
        """Raises InputError for a name that cannot be one."""
        kinds: list[tuple[Callable[[Any], Caveat], object]] = [
            (ExpiresAt, self.expires_at),
            (OnResource, self.resource),
            (OnlyOperations, self.operations),
            (MaxUsd, self.max_usd),
            (Uses, self.uses),
            (ForAudience, self.audience),
            (ForTenant, self.tenant),
        ]
        return [kind(value) for kind, value in kinds if value is not None]


class NewCapability(Frozen):
    """Leave for `operations` on `resource` (`accounts/acme`, `accounts/*`, `*`), for `holder`: the caller by default.

    Permissions among the operations are the caller's own. A tool asks for `EFFECT:TOOL`, also `tainted:EFFECT:TOOL`.
    """

    model_config = _example(
        operations=["pays:transfer", "tainted:pays:transfer"], resource="accounts/acme", ttl_s=300, holder="agent-7"
    )

    operations: Operations
    resource: Resource
    ttl_s: float = Field(default=900.0, ge=1, le=MAX_TTL_S)
    holder: Party | None = None
    caveats: Caveats = Caveats()


class MadeCapability(Frozen):
    """`token` is shown this once. Revoking `id` ends it, and all that is derived from it."""

    token: str = Field(repr=False)
    id: str
    expires_at: float


class Page(Frozen):
    """A part of a list; `next` is the `after` of the part that follows, if there is one."""

    items: list[dict[str, JsonValue]]
    next: str | None = None


class Generate(Frozen):
    """A failure, and the files that a model is shown. The patch is made and not applied."""

    model_config = _example(
        module="app.sum", failure="total(1, 2) is -1", files={"app/sum.py": "def total(a, b):\n    return a - b\n"}
    )

    module: Annotated[str, Field(min_length=1, max_length=256)]
    failure: Text
    files: Annotated[dict[str, Annotated[str, Field(max_length=200_000)]], Field(min_length=1, max_length=20)]


class Predict(Frozen):
    """`values` are evenly spaced, the oldest first; or `metric` names one that is watched."""

    model_config = _example(values=[1, 2, 3, 4, 5, 6, 7, 8], horizon=3)

    metric: Annotated[str, Field(max_length=256)] | None = None
    values: Annotated[list[Number], Field(min_length=8, max_length=10_000)] | None = None
    horizon: int = Field(default=12, ge=1, le=500)


class Spawn(Frozen):
    """Agents of one kind. Which policies may be named is the node's setting."""

    model_config = _example(role="worker", policy="chimera.swarm.readers:respond", count=3)

    role: Name = "worker"
    policy: Annotated[str, Field(max_length=256)] = "chimera.swarm.readers:respond"
    count: int = Field(default=1, ge=1, le=10_000)
    isolation: Isolation = Isolation.PACKED
    options: Inputs = Field(default_factory=dict)
    skills: tuple[Name, ...] = Field(default=(), max_length=32)

    def spec(self) -> AgentSpec:
        """One of the agents. Raises ValueError."""
        return _made(AgentSpec, self, Spawn, "count")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.spec()
        return self


class Spawned(Frozen):
    agents: list[str]


class Submit(Task):
    """A task, as `chimera.Task` in Python, and the most that its mission may spend."""

    model_config = _example(goal="Which colour is the sky?", replicas=3)

    inputs: Inputs = Field(default_factory=dict)
    budget: Budget | None = None

    def task(self) -> Task:
        return Task(**{name: getattr(self, name) for name in Task.model_fields})


class NewMission(Frozen):
    """Tasks that wait for one another, as in a mission file; its agents are there already, and it names no documents.

    What a task leaves open is the mission's own. Without `tasks` it is one task for workers. The value is the decision
    of `output`: the one task that no other waits for, if it is not named.
    """

    model_config = _example(
        goal="Which colour is the sky?",
        tasks=[
            {"id": "look", "goal": "Look up.", "replicas": 3},
            {"id": "say", "goal": "Say what colour it is.", "after": ["look"], "replicas": 1},
        ],
        limits={"deadline_s": 30},
    )

    goal: Text
    replicas: Replicas = 3
    consensus: Consensus = Consensus.WEIGHTED
    threshold: Threshold | None = None
    limits: Limits = Limits()
    tasks: Annotated[tuple[TaskDraft, ...], Field(max_length=MAX_TASKS)] = ()
    output: DraftId | None = None

    def mission(self) -> Mission:
        """The mission. Raises ValueError."""
        return _made(Mission, self, NewMission)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.mission()
        return self


class Submitted(Frozen):
    """Where it can be asked for: `GET /api/swarm/missions/{mission_id}`."""

    mission_id: str
    state: MissionState = MissionState.RUNNING


class Cancelled(Frozen):
    mission_id: str
    state: MissionState


class ReloadModule(Frozen):
    """`signature`: base64 of Ed25519 over the lines `chimera-reload`, the module, and the SHA-256 of its source."""

    model_config = _example(module="app.policies", source="VERSION = 2\n", signature="c2lnbmF0dXJl")

    module: Annotated[str, Field(min_length=1, max_length=256)]
    source: Annotated[str, Field(min_length=1, max_length=900_000)]
    signature: Annotated[str, Field(max_length=200)]


def _above_zero(units: str) -> str:
    if not nano(units):
        raise ValueError("a payment is of more than nothing")
    return units


Units = Annotated[
    str,
    Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$", description="Whole units of a currency, as 12.50"),
    AfterValidator(_above_zero),
]


class NewPayment(Frozen):
    """A payment for the treasury to decide on; who asks for it is the caller.

    With the same `request_id` it is the same payment, whenever it is sent. Without one it has one of its own, which
    follows from the `Idempotency-Key` if there is one.
    """

    model_config = _example(
        debit="cash", credit="acme", amount="12.50", category="hosting", reason="The mail server in November."
    )

    debit: Id
    credit: Id
    amount: Units
    currency: Currency = "USD"
    category: Id
    mission: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-:/\[\]]{0,128}$")] = ""
    reason: Line = ""
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,95}$")] | None = None


class PaymentAnswer(Frozen):
    """A person's word on a payment; `{}` where they have no key of their own.

    Who has one signs an `Approval` of themselves with it, elsewhere, and sends what it says: times are in microseconds.
    """

    model_config = _example(
        key_id="ann-1", signature="0a" * 64, at=1_790_000_000_000_000, expires_at=1_790_000_600_000_000
    )

    key_id: Id | None = None
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")] | None = None
    at: Micros | None = None
    expires_at: Micros | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len({getattr(self, name) is None for name in PaymentAnswer.model_fields}) > 1:
            raise ValueError("a signed answer has key_id, signature, at and expires_at; one without a signature none")
        return self


class StopSpending(Frozen):
    model_config = _example(why="An invoice came twice, and both were paid.")

    why: Annotated[Line, Field(min_length=1, max_length=500)]
