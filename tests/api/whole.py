"""The whole API in one process: real identity, limits and coordinator, the actors as plain objects, and no network."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from argon2 import PasswordHasher
from fastapi import FastAPI
from pydantic import JsonValue

from chimera.actors.sessions import Submission
from chimera.api.answers import Answers
from chimera.api.app import create_app
from chimera.api.owned import Owned
from chimera.api.services import ApiSettings, Services
from chimera.client import SwarmCoordinator
from chimera.core.clock import SystemClock
from chimera.core.types import AgentSpec, Budget, TaskResult
from chimera.review.policy import KINDS, KindRule, ReviewPolicy
from chimera.review.queue import ReviewQueue
from chimera.security.capability_home import CapabilityHome
from chimera.security.jwt_manager import Identity, TokenPair
from chimera.security.limits import ClientRateLimiter
from chimera.security.manager import LOCAL, SecurityManager
from chimera.security.passwords import Passwords
from chimera.security.principal import Kind
from chimera.security.roles import Role
from chimera.storage.memory import MemoryJournal
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.graph import TaskGraph
from chimera.system.duels import Duels
from chimera.system.reviews import PatchReviews
from tests.actors.in_process import SWARM, Processes

PASSWORD = "a correct horse, and its battery"

BASE = "http://127.0.0.1:8700"

REVIEW_POLICY = ReviewPolicy(
    reviewers={"admin": ("leads",), "operator": (), "observer": ()},
    kinds={**KINDS, "contract": KindRule(four_eyes=True)},
)
"""An observer is among its reviewers, and may not decide over the API all the same."""


class AheadClock:
    """The machine's clocks, and so many seconds more."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self.ahead_s = 0.0

    def now(self) -> float:
        return self._system.now() + self.ahead_s

    def monotonic(self) -> float:
        return self._system.monotonic() + self.ahead_s


class QuickPasswords(Passwords):
    """Argon2id with so little memory that a test does not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self._nobody = self._hasher.hash("nobody's")


@dataclass
class Entry:
    """What was written down."""

    seq: int
    actor: str
    action: str
    resource: str
    outcome: str
    detail: dict[str, JsonValue]

    def model_dump(self, mode: str = "python") -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Written:
    """An audit log in a list."""

    entries: list[Entry] = field(default_factory=list)

    def append(self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue]) -> None:
        self.entries.append(Entry(len(self.entries) + 1, actor, action, resource, outcome, dict(detail)))

    def query(self, **conditions: Any) -> Sequence[Entry]:
        told = {"actor": None, "action": None, "limit": 100, "after": 0, **conditions}
        return [
            each
            for each in self.entries
            if each.seq > told["after"]
            and told["actor"] in (None, each.actor)
            and told["action"] in (None, each.action)
        ][: told["limit"]]

    def refused(self, action: str = "") -> list[Entry]:
        return [e for e in self.entries if e.outcome == "refused" and action in e.action]


class InProcess:
    """What the client asks a `RunningSwarm`, answered by a coordinator in this process. `calls` counts them."""

    def __init__(self, processes: Processes, **settings: Any) -> None:
        self.name = SWARM
        self.calls: list[str] = []
        self._coordinator = processes.coordinator(**settings)

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        return await getattr(self._coordinator, method).remote(*arguments)

    async def submit(
        self, graph: TaskGraph, deadline_s: float, budget: Budget | None = None, mission_id: str = ""
    ) -> str:
        mission_id = mission_id or f"mission-{secrets.token_hex(6)}"
        submission = Submission.of(mission_id, graph, deadline_s, budget or NO_LIMIT)
        [refusal] = await self.call("submit", "tests", [submission])
        if refusal is not None:
            raise refusal
        return mission_id

    async def result(self, mission_id: str) -> TaskResult:
        while True:
            result: TaskResult | None = await self.call("result", mission_id, 10.0)
            if result is not None:
                return result

    async def close(self) -> None:
        await self.call("close")


class Node:
    """One node, its users one of each role (named after it), and what it takes to attack it."""

    def __init__(self, folder: Path, settings: ApiSettings, limiter: tuple[float, float], cells: int = 1) -> None:
        self.settings = settings
        self.clock = AheadClock()
        self.audit = Written()
        self.passwords = QuickPasswords()
        self.capabilities = CapabilityHome(folder, clock=self.clock)
        self.security = SecurityManager(
            folder, clock=self.clock, passwords=self.passwords, audit=self.audit, capabilities=self.capabilities
        )
        self.answers = folder / "answers.db"
        self.limiter = ClientRateLimiter(*limiter, clock=self.clock)
        self.owned = Owned.kept_in(folder / "missions.key")
        self.duels = Duels.kept_in(folder)
        self.heart = folder / "heart"
        self.home = folder
        self.services: Services
        self.swarm: SwarmCoordinator
        self.app: FastAPI = create_app(self.open, settings)
        self._cells = cells
        self.change: Callable[[Services], None] = lambda services: None
        """What a test puts in the place of a service, before the server starts."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Services]:
        for role in Role:
            if self.security.users.find(role.value) is None:  # a node that is started again has its users
                await self.security.create_user(role.value, PASSWORD, role, by=LOCAL)
        self.swarm = SwarmCoordinator()
        running = InProcess(Processes(), cells=self._cells)
        self.swarm._swarm = running  # type: ignore[assignment]
        await self.swarm.spawn_agents([AgentSpec(policy="chimera.swarm.roles:echo")] * 3)
        await self.swarm.spawn_agents([AgentSpec(policy="tests.policies:hangs", role="hanging")] * 3)
        self.services = Services(
            self.swarm,
            self.security,
            self.owned,
            limiter=self.limiter,
            audit=self.audit,
            answers=Answers(self.answers),
            duels=self.duels,
            reviews=PatchReviews(self.heart),
            queue=ReviewQueue(
                journal=MemoryJournal(), policy=REVIEW_POLICY, clock=self.clock, generator=random.Random(0)
            ),
            content=self.home,
            clock=self.clock,
            settings=self.settings,
        )
        self.change(self.services)
        try:
            yield self.services
        finally:
            with contextlib.suppress(Exception):
                await running.close()
            self.security.close()
            self.capabilities.close()
            if self.services.answers is not None:
                self.services.answers.close()

    async def pair(self, user: Role | str) -> TokenPair:
        """Tokens of a user, without the password's work."""
        found = self.security.users.find(str(user))
        assert found is not None
        kind: Kind = "node" if found.role is Role.NODE else "user"
        return await self.security.tokens.issue(Identity(found.name, found.role, kind, None, found.tenant))

    async def token(self, user: Role | str) -> str:
        return (await self.pair(user)).access_token

    async def headers(self, user: Role | str) -> dict[str, str]:
        return bearing(await self.token(user))

    async def key(self, user: Role | str, **fields: Any) -> str:
        """The text of an API key of a user's."""
        owner = self.security.users.find(str(user))
        assert owner is not None
        return (await self.security.create_api_key(owner.name, fields.pop("role", owner.role), **fields))[0]


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@dataclass
class Api:
    """A node whose lifespan has begun, and a client that reaches it without a network."""

    node: Node
    client: httpx2.AsyncClient

    async def ask(self, method: str, path: str, user: Role | str | None = None, **more: Any) -> httpx2.Response:
        headers = {**(await self.node.headers(user) if user else {}), **more.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **more)


@asynccontextmanager
async def opened(folder: Path, *, limiter: tuple[float, float] = (1e6, 1e6), **settings: Any) -> AsyncIterator[Api]:
    """A node for one test. What a handler raises is answered, as by a server, and not raised here."""
    change = settings.pop("change", None)
    node = Node(folder, ApiSettings(**settings), limiter)
    if change is not None:
        node.change = change
    async with node.app.router.lifespan_context(node.app):
        transport = httpx2.ASGITransport(node.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
            yield Api(node, client)
