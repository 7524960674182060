"""What the routes work with: the swarm, who may do what, and whatever else this node runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, JsonValue

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.api.answers import Answers
from chimera.api.owned import Owned
from chimera.client import SwarmCoordinator
from chimera.core.clock import Clock, SystemClock
from chimera.core.types import Frozen, Seconds
from chimera.healing.generator import CodeGenerator
from chimera.review.queue import ReviewQueue
from chimera.security.buckets import Limit
from chimera.security.manager import SecurityManager
from chimera.system.duels import Duels
from chimera.system.reviews import Reviews
from chimera.system.treasury import Treasury


class Limiter(Protocol):
    """A rate for each client, `limit` where it has its own. Raises RateLimited."""

    def take(self, client: str, n: float = 1.0, *, limit: Limit | None = None) -> None: ...


class Audit(Protocol):
    """Where what was done, and what was refused, is written down."""

    def append(self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue]) -> Any: ...

    def query(self, **conditions: Any) -> Sequence[Any]: ...


class ApiSettings(Frozen):
    """How the API behaves. `origins` are those of web pages that may use it, beside its own: none by default."""

    max_body_bytes: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    max_depth: int = Field(default=64, ge=4, le=500)
    body_s: Seconds = 10.0
    """A request whose body has not arrived by then is dropped."""
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    """Names that this node is called by, as in a URL; a request for another is refused. Empty: any."""
    policies: tuple[str, ...] = ("chimera.swarm.readers:respond", "chimera.swarm.roles:")
    """Policies that may be spawned over the API: by name, or all of a module (`module:`) or package (`package.`).

    Not among them are those that read documents: a task says which files, and may name any that this node can read.
    """
    reload_keys: tuple[str, ...] = ()
    """Ed25519 public keys, base64: source of a reload over the API has to be signed by one of them."""
    logins_at_once: int = Field(default=10, ge=1, le=10_000)
    logins_per_s: float = Field(default=1.0, gt=0, le=10_000)
    """Of one address."""
    max_sockets: int = Field(default=2_000, ge=1)
    max_sockets_each: int = Field(default=1_000, ge=1)
    """Of one user or key."""
    max_streams: int = Field(default=2_000, ge=1)
    max_streams_each: int = Field(default=64, ge=1)
    slow_s: Seconds = 10.0
    """How long a client may take to read what a stream has for it, before it is dropped."""
    socket_queue: int = Field(default=256, ge=1)
    """Messages that wait for a slow client before it is dropped."""
    key_rate: int = Field(default=100, ge=1)
    """Requests a second, at most, of a key that somebody makes who may not make everybody's."""
    login_s: Seconds = 2.0
    """How long a WebSocket may take to authenticate."""


@dataclass
class Services:
    """`generator`, `engine`, `duels`, `reviews`, `queue`, `content`, `treasury` may be missing: routes say so."""

    swarm: SwarmCoordinator
    security: SecurityManager
    owned: Owned
    limiter: Limiter | None = None
    audit: Audit | None = None
    answers: Answers | None = None
    """What idempotency keys get again. Without it they are forgotten when the server ends."""
    generator: CodeGenerator | None = None
    engine: AnomalyDetectionEngine | None = None
    duels: Duels | None = None
    reviews: Reviews | None = None
    queue: ReviewQueue | None = None
    content: Path | None = None
    """The home whose campaigns are told of."""
    treasury: Treasury | None = None
    clock: Clock = field(default_factory=SystemClock)
    settings: ApiSettings = field(default_factory=ApiSettings)
    alerts: Callable[[], Sequence[Any]] = tuple
    """The last alerts of the engine, the oldest first."""
    statements: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever reads all of the ledger."""
    calibrating: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever reads all of the review queue."""
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever reads all that was made."""

    def note(self, actor: str, action: str, resource: str, outcome: str, **detail: JsonValue) -> None:
        if self.audit is not None:
            self.audit.append(actor, action, resource, outcome, detail)
