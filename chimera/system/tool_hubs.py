"""Wiring of tool hubs: servers in, tools out; in this process, or over actors on all nodes of a Ray cluster.

    async with ToolHubs(load_servers(path)) as tools:
        result = await tools.call("files", "read_file", {"path": "a.txt"}, timeout_s=10)

Both kinds are `chimera.mcp.types.Tools`. On Ray each server lives in the shard that a hash of its name says, so that
everybody finds it there, and its session is shared.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from pydantic import JsonValue

from chimera.actors.tool_hub import ToolHub
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, NotBegun, NotThere, SourceError
from chimera.mcp.caps import Caps
from chimera.mcp.config import ServerConfig
from chimera.mcp.status import Status
from chimera.mcp.types import ToolDefinition, ToolResult

if TYPE_CHECKING:
    from chimera.actors import cluster

MAX_SHARDS: Final = 64
USUAL_SHARDS: Final = 4
CLOSE_S: Final = 10.0
"""For a shard to end its servers, before it is ended with them."""


class Line(Protocol):
    """The way to a shard."""

    async def call(self, method: str, *arguments: Any) -> Any: ...


class Here:
    """To a shard in this process."""

    def __init__(self, shard: ToolHub) -> None:
        self._shard = shard

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._shard, method)(*arguments)


def shard_of(server: str, shards: int) -> int:
    """Where a server lives: the same in every process and at every start."""
    return zlib.crc32(server.encode()) % shards


class ToolHubs:
    """Servers over shards. Without `settings` there is one shard, in this process; with them each is an actor.

    The caps are those of each shard. A shard's process that dies is started again and told its servers; calls that
    it had in progress raise SourceError, since they may have worked. Actors end with this object.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerConfig],
        *,
        settings: Settings | None = None,
        shards: int = 0,
        caps: Caps | None = None,
        place: cluster.Place = "cell",
    ) -> None:
        """`shards` 0 is one for each CPU of the cluster, at most 4. Raises InputError."""
        if not 0 <= shards <= MAX_SHARDS:
            raise InputError(f"servers are held by 1 to {MAX_SHARDS} shards, or 0 for the usual number, not {shards}")
        self._servers = dict(servers)
        self._settings = settings
        self._count = shards
        self._caps = caps or Caps()
        self._place = place
        self._lines: list[Line] = []
        self._handles: list[Any] = []
        self._connection: cluster.Connection | None = None

    async def __aenter__(self) -> Self:
        """Raises ClusterError."""
        if self._settings is None:
            self._lines = [Here(ToolHub(named="here"))]
        else:
            self._open_on_ray(self._settings)
        try:
            await asyncio.gather(*(self._begin(number) for number in range(len(self._lines))))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(n for n, config in self._servers.items() if not config.disabled and not config.problem))

    def config(self, server: str) -> ServerConfig:
        if server not in self._servers:
            raise NotThere(f"no server is called {server[:128]!r}: `chimera tools servers` lists them")
        return self._servers[server]

    async def tools(self, server: str) -> tuple[ToolDefinition, ...]:
        found: tuple[ToolDefinition, ...] = await self._of(server, "tools", server)
        return found

    async def call(self, server: str, tool: str, arguments: Mapping[str, JsonValue], *, timeout_s: float) -> ToolResult:
        result: ToolResult = await self._of(server, "call", server, tool, dict(arguments), timeout_s)
        return result

    async def connect_all(self, timeout_s: float) -> dict[str, Status]:
        """See `Hub.connect_all`."""
        return _merged(await self._everywhere("connect_all", timeout_s))

    async def status(self) -> dict[str, Status]:
        """What can be seen of each server."""
        return _merged(await self._everywhere("status"))

    async def known(self) -> tuple[ToolDefinition, ...]:
        """The tools of all servers when they were last listed, by server."""
        parts = await self._everywhere("known")
        return tuple(sorted((tool for part in parts for tool in part), key=lambda tool: tool.server))

    async def close(self) -> None:
        """End all servers, and the shards."""
        closing = [asyncio.ensure_future(line.call("close")) for line in self._lines]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            for one in late:
                one.cancel()
            await asyncio.gather(*closing, return_exceptions=True)
        if self._connection is not None:
            from chimera.actors import cluster

            for line, handle in zip(self._lines, self._handles, strict=True):
                line.close()  # type: ignore[attr-defined]
                cluster.kill(handle)
            cluster.disconnect(self._connection)
            self._connection = None
        self._lines, self._handles = [], []

    def _open_on_ray(self, settings: Settings) -> None:
        from chimera.actors import cluster, line

        self._connection = cluster.connect(settings)
        count = self._count or min(self._connection.cells, USUAL_SHARDS)
        token = secrets.token_hex(3)
        for number in range(count):
            name = f"tools-{token}/{number}"
            self._handles.append(cluster.spawn(ToolHub, name=name, place=self._place, lasting=False, named=name))
        self._lines = [line.Line(handle) for handle in self._handles]

    async def _begin(self, number: int) -> None:
        count = len(self._lines)
        mine = {name: config for name, config in self._servers.items() if shard_of(name, count) == number}
        await self._lines[number].call("begin", mine, self._caps)

    async def _of(self, server: str, method: str, *arguments: Any) -> Any:
        self.config(server)
        if not self._lines:
            raise SourceError("the tool hubs are closed")
        return await self._ask(shard_of(server, len(self._lines)), method, *arguments)

    async def _everywhere(self, method: str, *arguments: Any) -> list[Any]:
        return await asyncio.gather(*(self._ask(number, method, *arguments) for number in range(len(self._lines))))

    async def _ask(self, number: int, method: str, *arguments: Any) -> Any:
        """One answer of a shard. One that was started anew has done nothing yet: it is told its servers, and asked."""
        try:
            try:
                return await self._lines[number].call(method, *arguments)
            except Exception as error:
                if not isinstance(self._unwrapped(error), NotBegun):
                    raise
            await self._begin(number)
            return await self._lines[number].call(method, *arguments)
        except Exception as error:
            raise self._unwrapped(error) from None

    def _unwrapped(self, error: Exception) -> Exception:
        if self._connection is None:
            return error
        from chimera.actors import cluster

        if isinstance(error, cluster.ACTOR_GONE):
            return SourceError(
                "the process that held the server is gone; it is started again. The call may have worked"
            )
        return error if isinstance(error, ChimeraError) and not hasattr(error, "cause") else cluster.unwrap(error)


def _merged(parts: list[dict[str, Status]]) -> dict[str, Status]:
    return dict(sorted((name, status) for part in parts for name, status in part.items()))
