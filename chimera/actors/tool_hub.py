"""The tool hub actor: a shard of the servers, held in one process. It decides nothing; see `chimera.mcp.hub`."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pydantic import JsonValue

from chimera.core.clock import SystemClock
from chimera.core.errors import NotBegun
from chimera.mcp.caps import Caps
from chimera.mcp.config import ServerConfig
from chimera.mcp.hub import Hub
from chimera.mcp.status import Status
from chimera.mcp.types import ToolDefinition, ToolResult


class ToolHub:
    """Told its servers by `begin`, and again after it was started anew: until then it raises NotBegun.

    The servers' secrets come with `begin` and stay in this process; Ray would keep what an actor is made with.
    """

    def __init__(self, *, named: str) -> None:
        self._named = named
        self._hub: Hub | None = None

    async def begin(self, servers: dict[str, ServerConfig], caps: Caps) -> None:
        """Hold these servers. Told again, it goes on with what it has."""
        if self._hub is None:
            self._hub = Hub(servers, clock=SystemClock(), rng=random.Random(), caps=caps)

    async def tools(self, server: str) -> tuple[ToolDefinition, ...]:
        return await self._begun().tools(server)

    async def call(self, server: str, tool: str, arguments: Mapping[str, JsonValue], timeout_s: float) -> ToolResult:
        return await self._begun().call(server, tool, arguments, timeout_s=timeout_s)

    async def connect_all(self, timeout_s: float) -> dict[str, Status]:
        return await self._begun().connect_all(timeout_s)

    async def status(self) -> dict[str, Status]:
        return self._begun().status()

    async def known(self) -> tuple[ToolDefinition, ...]:
        return self._begun().known()

    async def close(self) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.close()

    def _begun(self) -> Hub:
        if self._hub is None:
            raise NotBegun(f"the tool hub {self._named} has not been told its servers")
        return self._hub
