"""Agents' memory: the state port as cells see it, and the one actor that writes the embedded store."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import JsonValue

from chimera.actors import cluster
from chimera.actors.lease import Lease
from chimera.core.config import Settings
from chimera.core.errors import StorageError

if TYPE_CHECKING:
    from chimera.storage.state import StateStore


REVIVE_S = 30.0
"""How long an actor that died may take to come back."""

PAUSE_S = 0.2


class State:
    """The single writer of the embedded store, on the head node. It starts with the first use, and is durable."""

    def __init__(self, *, settings: Settings) -> None:
        from chimera.storage.state import open_state

        self._store = open_state(settings.state)
        self._lease = Lease(settings.orphan_s, cluster.end_self)

    def __repr__(self) -> str:
        return "State"

    async def awake(self) -> None:
        """Ray awaits this in every process of this actor: also in one that nobody will ever call, which must end."""
        self._lease.renew()

    async def get(self, key: str) -> JsonValue:
        self._lease.renew()
        found = await self._store.get(key)
        return None if found is None else found.value

    async def put(self, key: str, value: JsonValue) -> None:
        self._lease.renew()
        await self._store.put(key, value)


class Memories:
    """Where a cell's agents remember things. Opened by the first that does, in the loop that it runs on."""

    def __init__(self, swarm: str, settings: Settings) -> None:
        self.swarm = swarm
        self._settings = settings
        self._stores: dict[asyncio.AbstractEventLoop, StateStore] = {}
        self._actor: Any = None
        self._finding = threading.Lock()

    async def get(self, key: str) -> JsonValue:
        if self._settings.state_url:
            found = await self._store().get(key)
            return None if found is None else found.value
        value: JsonValue = await self._call("get", key)
        return value

    async def put(self, key: str, value: JsonValue) -> None:
        if self._settings.state_url:
            await self._store().put(key, value)
        else:
            await self._call("put", key, value)

    def _store(self) -> StateStore:
        from chimera.storage.state import open_state

        loop = asyncio.get_running_loop()
        if loop not in self._stores:
            self._stores[loop] = open_state(self._settings.state_url)
        return self._stores[loop]

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Ask the actor; one that died is waited for, since whatever it is asked twice, it does once."""
        until = time.monotonic() + REVIVE_S
        while True:
            actor = self._actor or await asyncio.to_thread(self._find)
            try:
                return await getattr(actor, method).remote(*arguments)
            except cluster.ACTOR_GONE as error:
                self._actor = None
                if time.monotonic() > until:
                    raise StorageError(f"the agents' memory does not come back: {cluster.unwrap(error)}") from None
                await asyncio.sleep(PAUSE_S)
            except Exception as error:
                raise cluster.unwrap(error) from None

    def _find(self) -> Any:
        with self._finding:
            if self._actor is None:
                self._actor = cluster.spawn(State, name=f"{self.swarm}/State", settings=self._settings)
            return self._actor


class AgentMemory:
    """One agent's memory; see `chimera.swarm.policy.Memory`."""

    def __init__(self, memories: Memories, agent_id: str) -> None:
        self._memories = memories
        self._prefix = f"{memories.swarm}/{quote(agent_id, safe='')}/"  # a role may have a slash in its name

    async def get(self, name: str) -> JsonValue:
        return await self._memories.get(self._prefix + name)

    async def put(self, name: str, value: JsonValue) -> None:
        await self._memories.put(self._prefix + name, value)
