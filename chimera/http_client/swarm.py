"""A node behind HTTP in the place of a swarm on Ray: what `chimera.SwarmCoordinator` talks to there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from chimera.core.errors import InputError, NotBuilt
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Budget, TaskResult
from chimera.http_client.node import HttpNode
from chimera.http_client.transport import Transport
from chimera.swarm.graph import TaskGraph
from chimera.swarm.mission import Mission
from chimera.swarm.policy import Seat

LOOK_S = 1.0
"""How long news of a mission may take, at most, to be asked for."""


class RemoteSwarm:
    """The calls of `chimera.system.wiring.RunningSwarm`, made over HTTP. Leaving ends nothing."""

    dashboard = ""

    def __init__(self, node: HttpNode) -> None:
        self._node = node
        self.name = urlsplit(node.transport.url).netloc
        self.connection = self
        """There is none to a Ray."""

    @classmethod
    async def reach(cls, url: str, token: str | None, name: str | None = None) -> RemoteSwarm:
        """The node at `url`. Raises NoCluster, Unauthenticated, and InputError if its swarm has another name."""
        made = cls(HttpNode(Transport(url, token)))
        try:
            who = await made._node.who()
            if "swarm:any" in who["permissions"]:
                made.name = (await made._node.status()).swarm
            if name is not None and made.name != name:
                raise InputError(f"no swarm {name!r} is known to run at {url}; there: {made.name}")
        except BaseException:
            await made.close()
            raise
        return made

    async def call(self, method: str, *arguments: Any) -> Any:
        """What the coordinator's method of that name does. Raises NotBuilt for what the API has not."""
        work = getattr(self, f"_{method}", None)
        if work is None:
            raise NotBuilt(f"{method.replace('_', ' ')} is not there over HTTP: attach to the swarm's Ray for it")
        return await work(*arguments)

    async def submit(
        self, graph: TaskGraph, deadline_s: float, budget: Budget | None = None, mission_id: str = ""
    ) -> str:
        if len(graph.nodes) != 1 or graph.nodes[0].after:
            raise NotBuilt("over HTTP a graph of tasks goes as a mission: start that")
        _refuse_id(mission_id)
        task = graph.nodes[0].task.model_copy(update={"deadline_s": deadline_s})
        return await self._node.start_task(task, budget)

    async def start(self, mission: Mission, mission_id: str = "") -> str:
        _refuse_id(mission_id)
        return await self._node.start_mission(mission)

    async def result(self, mission_id: str) -> TaskResult:
        return await self._node.result(mission_id)

    async def close(self) -> None:
        await self._node.transport.close()

    async def _spawn_agents(self, seats: Sequence[Seat], token: str) -> list[str]:
        if any(seat.pickled for seat in seats):
            raise InputError("over HTTP a policy is named, as 'package.module:name', and not sent")
        specs = [
            AgentSpec(
                role=seat.role,
                policy=seat.policy,
                isolation=seat.isolation,
                options=dict(seat.options),
                skills=seat.skills,
            )
            for seat in seats
        ]
        return await self._node.spawn_agents(specs)

    async def _cancel(self, mission_id: str) -> TaskResult:
        return await self._node.cancel(mission_id)

    async def _missions(self, limit: int, running: bool) -> Any:
        return await self._node.missions(limit, running=running)

    async def _result(self, mission_id: str, wait_s: float) -> TaskResult | None:
        return await self._node.look_up(mission_id, wait_s)

    async def _events(self, mission_id: str, after: int, wait_s: float) -> list[Event]:
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            found = await self._node.read_events(mission_id, after)
            left_s = until - asyncio.get_running_loop().time()
            if found or left_s <= 0:
                return found
            if await self._node.look_up(mission_id, min(LOOK_S, left_s)) is not None:
                return await self._node.read_events(mission_id, after)

    async def _status(self) -> Any:
        return await self._node.status()

    async def _reload_status(self) -> Any:
        return await self._node.reload_status()


def _refuse_id(mission_id: str) -> None:
    if mission_id:
        raise InputError("over HTTP the node chooses a mission's id: leave it out")
