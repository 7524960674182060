"""What goes in and out of the routes. An unknown field is an error, and everything has a limit."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from chimera.core.types import (
    MAX_REPLICAS,
    AgentSpec,
    Budget,
    Consensus,
    Equality,
    Frozen,
    Isolation,
    MissionState,
    Name,
    Priority,
    Seconds,
    Task,
)
from chimera.security.roles import Permission, Role

Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Secret = Annotated[str, Field(min_length=1, max_length=8_192)]
Password = Annotated[str, Field(min_length=1, max_length=1_024)]
User = Annotated[str, Field(min_length=1, max_length=128)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Inputs = Annotated[dict[str, JsonValue], Field(max_length=1_000)]


M = TypeVar("M", bound=Frozen)


def _made(kind: type[M], body: Frozen, fields_of: type[Frozen], but: str) -> M:
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
    rate_limit: int = Field(default=50, ge=1, le=100_000, description="Requests a second.")
    expires_in_s: Annotated[float, Field(gt=0, le=10 * 366 * 86_400)] | None = None
    label: str = Field(default="", max_length=128)


class MadeKey(Frozen):
    """`secret` is shown this once."""

    secret: str = Field(repr=False)
    id: str


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


class Submit(Frozen):
    """A task, as `chimera.Task` in Python."""

    model_config = _example(goal="Which colour is the sky?", replicas=3)

    goal: Text
    inputs: Inputs = Field(default_factory=dict)
    role: Name = "worker"
    replicas: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    consensus: Consensus = Consensus.MAJORITY
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    equality: Equality = Equality()
    deadline_s: Seconds = 60.0
    priority: Priority = 4
    budget: Budget | None = None

    def task(self) -> Task:
        """The task. Raises ValueError."""
        return _made(Task, self, Submit, "budget")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.task()
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
