"""All servers of one process: connected when they are needed, closed when they are not, never more than the caps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, NotThere, Overloaded, SourceError
from chimera.mcp.caps import Caps, Held, idle_for_long, to_make_room
from chimera.mcp.config import ServerConfig
from chimera.mcp.connection import Connection
from chimera.mcp.failures import BUSY_S
from chimera.mcp.processes import resident_bytes
from chimera.mcp.session import Ground
from chimera.mcp.status import Status
from chimera.mcp.types import ToolDefinition, ToolResult

LONGEST_CALL_S = 86_400.0
START_S = 1.5
"""A process that has not answered by then waits for something else than a core: others may be started beside it."""


class Hub:
    """The servers' connections, as `Tools`. Use it in one event loop, as a context manager or with `close`."""

    def __init__(
        self, servers: Mapping[str, ServerConfig], *, clock: Clock, rng: random.Random, caps: Caps | None = None
    ) -> None:
        self._clock = clock
        self._caps = caps or Caps()
        self._ground = Ground()
        self._connections = {
            name: Connection(config, ground=self._ground, clock=clock, rng=rng, admit=self._admitted)
            for name, config in sorted(servers.items())
        }
        self._connecting = asyncio.Semaphore(self._caps.connect_at_once)
        self._starting = asyncio.Semaphore(self._caps.start_at_once)
        self._rooming = asyncio.Lock()
        self._admitted_names: set[str] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def names(self) -> tuple[str, ...]:
        return tuple(
            name for name, held in self._connections.items() if not held.config.disabled and not held.config.problem
        )

    def config(self, server: str) -> ServerConfig:
        return self._named(server).config

    async def tools(self, server: str) -> tuple[ToolDefinition, ...]:
        return await self._usable(server).tools()

    async def call(self, server: str, tool: str, arguments: Mapping[str, JsonValue], *, timeout_s: float) -> ToolResult:
        return await self._usable(server).call(tool, arguments, timeout_s=min(timeout_s, LONGEST_CALL_S))

    def known(self) -> tuple[ToolDefinition, ...]:
        """The tools of all servers when they were last listed, without connecting any."""
        return tuple(tool for held in self._connections.values() for tool in held.known)

    async def connect_all(self, timeout_s: float) -> dict[str, Status]:
        """Connect every server that may be used, and list its tools: for an index, or to warm up.

        What is not ready by then goes on connecting. Processes beyond the caps are closed again, the longest unused
        first; `known` has their tools.
        """
        tasks = [asyncio.create_task(self._try(name)) for name in self.names()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return self.status()

    def status(self) -> dict[str, Status]:
        """What can be seen of each server, those that cannot be used among them."""
        return {name: held.status() for name, held in self._connections.items()}

    async def sweep(self) -> None:
        """Close what nobody has used for long, and what the caps do not allow. Done by itself every `sweep_s`."""
        await self._measure()
        held = self._held()
        names = [*idle_for_long(held, self._caps, self._clock.monotonic())]
        names += to_make_room([h for h in held if h.name not in names], self._caps, newcomers=0) or []
        await self._close(names)

    async def close(self) -> None:
        """End all connections, processes and tasks. Calls in progress fail."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await asyncio.gather(*(held.close() for held in self._connections.values()))
        await asyncio.to_thread(self._ground.watchdog.close)

    def _named(self, server: str) -> Connection:
        try:
            return self._connections[server]
        except KeyError:
            raise NotThere(f"no server is called {server[:128]!r}: `chimera tools servers` lists them") from None

    def _usable(self, server: str) -> Connection:
        held = self._named(server)
        if held.config.disabled:
            raise NotThere(f"the server {server} is disabled in its file")
        if self._closed:
            raise SourceError("the hub of the servers is closed")
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep_on(), name="mcp:sweeper")
        return held

    async def _try(self, name: str) -> None:
        with suppress(ChimeraError):  # its status says why
            await self._usable(name).connect()

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(self._caps.sweep_s)
            with suppress(OSError):  # of /proc; the next look may go well
                await self.sweep()

    @asynccontextmanager
    async def _admitted(self, connection: Connection) -> AsyncIterator[None]:
        if connection.config.transport == "http":
            async with self._connecting:
                yield
            return
        await self._starting.acquire()
        with ExitStack() as start:
            start.callback(self._starting.release)
            async with self._rooming:
                await self._make_room_for(connection)
                self._admitted_names.add(connection.config.name)
            over = asyncio.get_running_loop().call_later(START_S, start.close)
            start.callback(over.cancel)
            yield

    async def _make_room_for(self, newcomer: Connection) -> None:
        await self._measure()
        others = [held for held in self._held() if held.name != newcomer.config.name]
        leaving = to_make_room(others, self._caps, newcomers=1)
        if leaving is None:
            raise Overloaded(
                f"there is no room for the server {newcomer.config.name}: all that run are in use, and the caps are "
                f"{self._caps.max_processes} processes and {self._caps.max_memory_bytes // 2**20} MB",
                BUSY_S,
            )
        await self._close(leaving)

    def _held(self) -> list[Held]:
        """What is connected or on its way. A process counts from its admission to the end of its connection."""
        self._admitted_names = {name for name in self._admitted_names if self._connections[name].held}
        return [
            Held(
                name=name,
                process=name in self._admitted_names,
                busy=held.busy,
                used_s=held.used_s,
                memory_bytes=held.memory_bytes,
            )
            for name, held in self._connections.items()
            if held.held
        ]

    async def _measure(self) -> None:
        groups = {held.group: held for held in self._connections.values() if held.group}
        for group, size in (await asyncio.to_thread(resident_bytes, groups) if groups else {}).items():
            if groups[group].group == group:
                groups[group].memory_bytes = size

    async def _close(self, names: list[str]) -> None:
        await asyncio.gather(*(self._connections[name].close() for name in names if not self._connections[name].busy))
