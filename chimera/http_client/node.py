"""A node's verbs over HTTP, as `chimera.SwarmCoordinator` has them over Ray. Asynchronous."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from chimera.core.errors import ClusterError, InputError, NoCluster, NotBuilt, SwarmError, Unauthenticated
from chimera.core.events import Event, EventKind
from chimera.core.types import AgentSpec, Budget, MissionState, Task, TaskResult
from chimera.http_client.transport import Transport
from chimera.reload.messages import Reloaded, ReloadStatus
from chimera.security.capabilities import CapabilityToken
from chimera.storage.journal import MissionSummary
from chimera.swarm.mission import Mission
from chimera.swarm.status import SwarmStatus

T = TypeVar("T")

POLL_S = 20.0
"""As long as the API lets one wait."""

MAX_BREAKS = 3
"""Streams in a row that broke off without an event."""

PAGE = 200
MOST_AGENTS = 10_000
"""In one request."""

NOT_SENT = {"docs", "model", "agents", "spawn"}
"""What of a mission is for whoever starts it where the swarm is."""

Command = Literal["claim", "release", "approve", "reject", "edit", "escalate"]
"""What can be done with an item of the review queue."""


class HttpNode:
    """One node. Errors are those of the Python API; Unauthenticated, Forbidden and RateLimited besides."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def login(self, user: str, password: str, new_password: str | None = None) -> None:
        """Log in, and change the password if a new one is given, which a one-time password needs."""
        body = {"user": user, "password": password}
        if new_password is not None:
            body["new_password"] = new_password
        await self.transport.log_in(await self.transport.post("/api/auth/login", body, once=False))

    async def logout(self) -> None:
        """End the session that `login` or the token began, here and at the node. Raises InputError for an API key."""
        held = self.transport.refresh_token or self.transport.token
        if held:
            with suppress(Unauthenticated):  # it has ended already
                await self.transport.post("/api/auth/logout", {"token": held})
        self.transport.token = self.transport.refresh_token = None

    async def who(self) -> dict[str, Any]:
        """Whom the token stands for: subject, role, kind, permissions, expires_at. Raises Unauthenticated."""
        found: dict[str, Any] = await self.transport.post(
            "/api/auth/token/verify", {"token": self.transport.token or "-"}, once=False
        )
        return found

    async def create_key(self, **wanted: Any) -> tuple[str, str]:
        """A new API key: its secret, which cannot be had again, and its id. See `chimera.api.bodies.NewKey`."""
        made = await self.transport.post("/api/keys/create", wanted)
        return made["secret"], made["id"]

    async def keys(self, user: str = "") -> list[dict[str, Any]]:
        return await self._pages("/api/keys", user=user or None)

    async def revoke_key(self, key_id: str) -> None:
        await self.transport.delete(f"/api/keys/{quote(key_id, safe='')}")

    async def issue_capability(
        self,
        operations: Sequence[str],
        resource: str,
        *,
        ttl_s: float = 900.0,
        holder: str | None = None,
        caveats: Mapping[str, Any] | None = None,
    ) -> tuple[CapabilityToken, str]:
        """A capability, which cannot be had again, and its id. `caveats`: see `chimera.api.bodies.Caveats`."""
        body = {"operations": list(operations), "resource": resource, "ttl_s": ttl_s, "holder": holder}
        made = await self.transport.post("/api/capabilities", {**body, "caveats": dict(caveats or {})})
        return CapabilityToken(made["token"]), made["id"]

    async def revoke_capability(self, revocation_id: str) -> None:
        await self.transport.delete(f"/api/capabilities/{quote(revocation_id, safe='')}")

    async def spawn_agents(self, specs: Sequence[AgentSpec]) -> list[str]:
        """Spawn agents whose policies are named. Each run of equal ones is spawned whole or not at all."""
        ids: list[str] = []
        for spec, same in groupby(specs):
            if not isinstance(spec.policy, str):
                raise InputError("over HTTP a policy is named, as 'package.module:name', and not sent")
            body, left = spec.model_dump(mode="json"), len(list(same))
            while left:
                count = min(left, MOST_AGENTS)
                ids += (await self.transport.post("/api/swarm/spawn", {**body, "count": count}))["agents"]
                left -= count
        return ids

    async def start_task(self, task: Task, budget: Budget | None = None) -> str:
        return str((await self.transport.post("/api/swarm/task", _asked(task, budget)))["mission_id"])

    async def start_mission(self, mission: Mission) -> str:
        """Start a mission whose agents are there. Raises NotBuilt for one over documents."""
        if mission.docs is not None:
            raise NotBuilt(
                "over HTTP a mission names no documents: attach to the swarm's Ray, or put text into `inputs`"
            )
        body = mission.model_dump(mode="json", exclude_defaults=True, exclude=NOT_SENT)
        return str((await self.transport.post("/api/swarm/missions", body))["mission_id"])

    async def consensus(self, task: Task, budget: Budget | None = None) -> TaskResult:
        """Put a question to several agents, and wait for what they agree on."""
        told = await self.transport.post("/api/swarm/consensus", _asked(task, budget), patience_s=task.deadline_s)
        return _read(RESULT, told)

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        """A mission's result; None if it is still running after `wait_s` (at most 20). Raises NotThere."""
        wait_s = min(wait_s, POLL_S)
        told = await self.transport.get(_mission(mission_id), patience_s=wait_s, wait_s=wait_s)
        running = isinstance(told, dict) and told.get("state") == MissionState.RUNNING
        return None if running else _read(RESULT, told)

    async def result(self, mission_id: str) -> TaskResult:
        while True:
            found = await self.look_up(mission_id, POLL_S)
            if found is not None:
                return found

    async def cancel(self, mission_id: str) -> TaskResult:
        """End a mission and return what there is by then; one that has ended stays as it is."""
        await self.transport.post(f"{_mission(mission_id)}/cancel", {})
        return await self.result(mission_id)

    async def missions(self, limit: int = 100, *, running: bool = False) -> list[MissionSummary]:
        """The missions that one may see, the one that began last first."""
        return [_read(SUMMARY, each) for each in await self._pages("/api/swarm/missions", most=limit, running=running)]

    async def read_events(self, mission_id: str, after: int = 0) -> list[Event]:
        """Events with `seq > after`, at most 100."""
        page = await self.transport.get(f"{_mission(mission_id)}/events", after=after)
        return [_read(EVENT, each) for each in page["items"]]

    async def events(self, mission_id: str) -> AsyncIterator[Event]:
        """A mission's events from its first to its last, as they happen. A stream that breaks off is taken up again."""
        seq, failed = 0, 0
        while True:
            try:
                async for event in self._streamed(mission_id, seq):
                    seq, failed = event.seq, 0
                    yield event
                    if event.kind is EventKind.MISSION_ENDED:
                        return
            except (ClusterError, Unauthenticated) as error:
                failed += 1
                if failed > MAX_BREAKS or isinstance(error, NoCluster):
                    raise
            ended = await self.look_up(mission_id, 1.0) is not None  # with a new token, if it takes one
            if ended and not await self.read_events(mission_id, seq):
                return

    async def _streamed(self, mission_id: str, after: int) -> AsyncIterator[Event]:
        path = f"{_mission(mission_id)}/events"
        async with self.transport.lines(path, patience_s=2 * POLL_S, after=after, stream=True) as lines:
            async for line in lines:
                if line == "event: error":  # it says no more of the mission
                    return
                if line.startswith("data:"):
                    yield _read(EVENT, json.loads(line[5:]))

    async def status(self) -> SwarmStatus:
        return _read(STATUS, await self.transport.get("/api/swarm"))

    async def reload(self, module: str, source: str, signature: str) -> Reloaded:
        """Have this source of `module` in every cell, or in none. `signature`: `chimera.api.bodies.ReloadModule`."""
        body = {"module": module, "source": source, "signature": signature}
        return _read(RELOADED, await self.transport.post("/api/reload/module", body, patience_s=120.0))

    async def reload_status(self) -> ReloadStatus:
        return _read(RELOADS, await self.transport.get("/api/reload/stats"))

    async def generate(self, module: str, failure: str, files: Mapping[str, str]) -> dict[str, Any]:
        """A patch for a failure, made by the node's model and not applied."""
        body = {"module": module, "failure": failure, "files": dict(files)}
        made: dict[str, Any] = await self.transport.post("/api/llm/generate", body, patience_s=300.0)
        return made

    async def anomalies(self, metric: str | None = None, limit: int = 100) -> dict[str, Any]:
        """The last alerts, and the metrics that are watched; with `metric`, its readings too."""
        found: dict[str, Any] = await self.transport.get("/api/anomaly/detect", metric=metric, limit=limit)
        return found

    async def predict(
        self, metric: str | None = None, values: Sequence[float] | None = None, horizon: int = 12
    ) -> dict[str, list[float]]:
        """What comes next: mean, low and high."""
        body = {"metric": metric, "values": None if values is None else list(values), "horizon": horizon}
        told: dict[str, list[float]] = await self.transport.post("/api/anomaly/predict", body, patience_s=60.0)
        return told

    async def reviews(self, limit: int = 100) -> list[dict[str, Any]]:
        """What waits for a person, the longest first."""
        return await self._pages("/api/reviews", most=limit)

    async def review(self, review_id: str) -> dict[str, Any]:
        """All of one: failure, diffs, verdict, tests, confidence. Raises NotThere."""
        found: dict[str, Any] = await self.transport.get(_review(review_id))
        return found

    async def answer_review(self, review_id: str, answer: Literal["approve", "refuse"]) -> dict[str, Any]:
        """Leave an answer, which is heeded in its own time. Raises NotThere."""
        told: dict[str, Any] = await self.transport.post(f"{_review(review_id)}/{answer}", {})
        return told

    async def queue(
        self,
        limit: int = 100,
        *,
        mine: bool = False,
        kind: str | None = None,
        group: str | None = None,
        mission: str | None = None,
    ) -> list[dict[str, Any]]:
        """Items that wait for people, without their payloads, in the order in which they were asked."""
        wanted = {"mine": mine or None, "kind": kind, "group": group, "mission": mission}
        return await self._pages("/api/queue", most=limit, **wanted)

    async def queue_item(self, item_id: str) -> dict[str, Any]:
        """All of one, ended ones too. Raises NotThere."""
        found: dict[str, Any] = await self.transport.get(_item(item_id))
        return found

    async def queue_stats(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.transport.get("/api/queue/stats")
        return found

    async def say_of_item(self, item_id: str, command: Command, **said: Any) -> dict[str, Any]:
        """Claim it, decide on it, or pass it on: `said` is the body of that route. The item as it is then.

        Raises NotThere, Forbidden for who does not decide on it, InputError where it does not fit the item any more.
        """
        told: dict[str, Any] = await self.transport.post(f"{_item(item_id)}/{command}", said)
        return told

    async def content_report(self, campaign: str = "") -> dict[str, Any]:
        """How what is published does, each figure with its 95 % interval."""
        found: dict[str, Any] = await self.transport.get("/api/content/report", campaign=campaign or None)
        return found

    async def content_items(self, limit: int = 100, campaign: str = "") -> list[dict[str, Any]]:
        """What was made, the newest first, and where each item stands."""
        return await self._pages("/api/content/items", most=limit, campaign=campaign or None)

    async def duels(self, limit: int = 100, env_id: str | None = None) -> list[dict[str, Any]]:
        """Duels that were held on the node's machine, the one that began last first."""
        return await self._pages("/api/arena/duels", most=limit, env=env_id)

    async def duel(self, duel_id: str) -> dict[str, Any]:
        """One, with its course: how its interval narrowed. Raises NotThere."""
        found: dict[str, Any] = await self.transport.get(f"/api/arena/duels/{quote(duel_id, safe='')}")
        return found

    async def audit(self, limit: int = 100, **wanted: Any) -> list[dict[str, Any]]:
        """Entries of the audit log, the oldest first; `actor`, `action` and `after` choose."""
        page = await self.transport.get("/api/audit", limit=limit, **wanted)
        entries: list[dict[str, Any]] = page["items"]
        return entries

    async def _pages(self, path: str, *, most: int = 100_000, **wanted: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: str | None = None
        while len(found) < most:
            page = await self.transport.get(path, limit=min(PAGE, most - len(found)), after=after, **wanted)
            found += page["items"]
            after = page["next"]
            if after is None:
                break
        return found


RESULT, SUMMARY, EVENT = TypeAdapter(TaskResult), TypeAdapter(MissionSummary), TypeAdapter(Event)
STATUS, RELOADED, RELOADS = TypeAdapter(SwarmStatus), TypeAdapter(Reloaded), TypeAdapter(ReloadStatus)


def _read(kind: TypeAdapter[T], told: object) -> T:
    try:
        return kind.validate_python(told)
    except ValidationError as error:
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SwarmError(f"the node's answer cannot be read ({why}): is it of another version?") from error


def _asked(task: Task, budget: Budget | None) -> dict[str, Any]:
    """What differs from the defaults: a field that the API does not take is then refused by it, and not lost."""
    body = task.model_dump(mode="json", exclude_defaults=True)
    return body if budget is None else {**body, "budget": budget.model_dump(mode="json")}


def _mission(mission_id: str) -> str:
    return f"/api/swarm/missions/{quote(mission_id, safe='')}"


def _item(item_id: str) -> str:
    return f"/api/queue/{quote(item_id, safe='')}"


def _review(review_id: str) -> str:
    return f"/api/reviews/{quote(review_id, safe='')}"
