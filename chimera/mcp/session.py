"""An MCP session from its first word to its list of tools, over either transport.

`initialize` is tried first and `server/discover` (the protocol of 2026) only where a server refuses it. The SDK's own
default asks the other way round, which costs every server of today one more round trip. What it would save with those
that know it is small (220 servers on one machine: 0.9 s and 73 KB each, against 1.8 s and 100 KB), and only sessions
that were initialized say by themselves that their tools have changed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from chimera.core.errors import MissingExtra

try:
    import mcp_types
    from mcp import ClientSession, MCPError
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS
except ModuleNotFoundError as error:
    raise MissingExtra("mcp", "mcp") from error

from chimera.mcp.answers import definition_of
from chimera.mcp.config import ServerConfig
from chimera.mcp.processes import child_environment
from chimera.mcp.stdio import Tail, stdio_streams
from chimera.mcp.types import MAX_TOOLS, ToolDefinition
from chimera.mcp.watchdog import Watchdog
from chimera.mcp.wire import Wire, http_streams

LARGEST_MESSAGE = 4 * 2**20
"""The least that is read of one message, whatever a call's own limit is: lists of tools are long."""

MAX_PAGES = 100

TALKATIVE = ("httpx2", "mcp.client", "mcp.shared")
"""Their log lines hold URLs with their keys, and what servers say. What matters of it is in our errors and status."""


class Ground:
    """What all the sessions of a hub share: one TLS context (making one takes 10 ms or more), one watchdog."""

    def __init__(self) -> None:
        for name in TALKATIVE:
            if (logger := logging.getLogger(name)).level == logging.NOTSET:
                logger.setLevel(logging.CRITICAL)
        self.watchdog = Watchdog()
        self.ours = mcp_types.Implementation(name="chimera", version=version("chimera"))
        self._tls: ssl.SSLContext | None = None

    @property
    def tls(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class Session:
    """A session that is open. Requests may come from any task; only who opened it closes it."""

    def __init__(self, config: ServerConfig, client: ClientSession, wire: Wire | None) -> None:
        self.config = config
        self.wire = wire
        self._client = client

    @property
    def protocol(self) -> str:
        return self._client.protocol_version or ""

    async def greet(self) -> None:
        """Agree on a version of the protocol."""
        try:
            await self._client.initialize()
        except MCPError as error:
            if error.error.code not in (mcp_types.UNSUPPORTED_PROTOCOL_VERSION, mcp_types.METHOD_NOT_FOUND):
                raise
            await self._client.discover()

    async def list_tools(self) -> tuple[tuple[ToolDefinition, ...], int]:
        """The server's tools, and how many more it has that are not taken: over a limit, or listed twice."""
        found: dict[str, ToolDefinition] = {}
        left_out, cursor = 0, None
        for _ in range(MAX_PAGES):
            page = await self._page(cursor)
            for tool in page.tools:
                definition = definition_of(self.config.name, tool)
                if definition is None or definition.name in found or len(found) >= MAX_TOOLS:
                    left_out += 1
                else:
                    found[definition.name] = definition
            cursor = page.next_cursor
            if not cursor:
                break
        return tuple(found.values()), left_out

    async def _page(self, cursor: str | None) -> mcp_types.ListToolsResult:
        """A page of the tools. By the protocol of 2026 the SDK has to see them, to say some arguments in headers too;
        by the older ones it would only keep what is of no use here, 4 KB a server."""
        params = mcp_types.PaginatedRequestParams(cursor=cursor)
        if self.protocol in MODERN_PROTOCOL_VERSIONS:
            return await self._client.list_tools(params=params)
        return await self._client.send_request(mcp_types.ListToolsRequest(params=params), mcp_types.ListToolsResult)

    async def call(self, tool: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """One call. The server's output schema is for who asked to check: here nothing of the answer is believed."""
        params = mcp_types.CallToolRequestParams(name=tool, arguments=arguments)
        return await self._client.send_request(mcp_types.CallToolRequest(params=params), mcp_types.CallToolResult)


@dataclass(slots=True)
class Live:
    """What is known of a session while it is open."""

    session: Session
    since_s: float
    tools: tuple[ToolDefinition, ...] = ()
    left_out: int = 0
    listed_s: float = 0.0
    changed: bool = False
    calls: int = 0
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no call is in progress."""

    @contextmanager
    def asked(self) -> Iterator[None]:
        self.calls += 1
        self.quiet.clear()
        try:
            yield
        finally:
            self.calls -= 1
            if self.calls == 0:
                self.quiet.set()


@asynccontextmanager
async def open_session(
    config: ServerConfig,
    ground: Ground,
    *,
    said: Tail,
    started: Callable[[int], None],
    lost: Callable[[str], None],
    changed: Callable[[], None],
) -> AsyncIterator[Session]:
    """Open the way to a server; `greet` comes next. To be entered and left in one and the same task.

    `started` is told the process group of one over stdio; `lost` why it is of no use any more, once or more often;
    `changed` that the server says its tools have changed.
    """
    max_bytes = max(LARGEST_MESSAGE, 2 * config.max_output_bytes)
    wire: Wire | None = None
    streams: AbstractAsyncContextManager[Any]
    if config.transport == "stdio":
        streams = stdio_streams(
            [config.command, *(argument.get_secret_value() for argument in config.args)],
            env=child_environment({name: value.get_secret_value() for name, value in config.env.items()}),
            cwd=config.cwd,
            max_message_bytes=max_bytes,
            said=said,
            watchdog=ground.watchdog,
            started=started,
            lost=lost,
        )
    else:
        wire = Wire(config, ground.tls, max_bytes=max_bytes, lost=lost)
        streams = http_streams(config, wire, max_bytes=max_bytes)

    async def noticed(message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            changed()

    async with (
        streams as (read, write),
        ClientSession(read, write, message_handler=noticed, client_info=ground.ours) as client,
    ):
        yield Session(config, client, wire)
