"""What the hub hands to those who stand on it: a tool's definition, a call's result, and the port to ask for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import Field, JsonValue

from chimera.core.types import Frozen, Name
from chimera.mcp.config import ServerConfig

MAX_TOOL_NAME = 128
MAX_TITLE = 1_000
MAX_DESCRIPTION = 20_000
MAX_DEFINITION_BYTES = 256 * 1024
"""A definition with both its schemas, as JSON. One that is larger is left out, and the server's status says so."""

MAX_TOOLS = 1_000
"""Tools that are taken from one server."""


class ToolDefinition(Frozen):
    """A tool as its server describes it. Every word of it is the server's own claim: data, never instructions.

    `annotations` are the server's hints (`readOnlyHint`, `idempotentHint` ...); the protocol says not to trust them.
    """

    server: Name
    name: Annotated[str, Field(min_length=1, max_length=MAX_TOOL_NAME)]
    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] = ""
    input_schema: dict[str, JsonValue]
    output_schema: dict[str, JsonValue] | None = None
    annotations: dict[str, JsonValue] = Field(default_factory=dict)


class ToolResult(Frozen):
    """What a server answered to a call: untrusted data.

    `text` is its content blocks one under the other; what is no text stands there as `[image/png, 1,234 bytes]`.
    `is_error` is the server's own word that the tool failed, or a JSON-RPC error that it answered with. An answer of
    more than the server's `max_output_bytes` is cut: `truncated` says so, `structured` is dropped, and `size_bytes`
    is what it was before.
    """

    text: str
    structured: JsonValue = None
    is_error: bool = False
    truncated: bool = False
    size_bytes: Annotated[int, Field(ge=0)] = 0


class Tools(Protocol):
    """Servers and their tools: the local hub, or many hubs on a cluster.

    `tools` and `call` connect the server if it is not connected, and raise:

    - `NotThere` if no server of that name is configured, or it is disabled;
    - `InputError` if its configuration cannot be used, and somebody has to change it;
    - `Overloaded` if nothing was sent: no room, or the server cannot be reached just now. Asking again is safe for
      every tool, after `retry_after_s`;
    - `SourceError` if the call was sent and there is no answer: out of time, or the server died. It may have worked;
    - `MissingExtra` if the MCP SDK is not installed.
    """

    async def tools(self, server: str) -> tuple[ToolDefinition, ...]:
        """What the server offers now, in the server's order; listed again when it says that its tools changed."""
        ...

    async def call(self, server: str, tool: str, arguments: Mapping[str, JsonValue], *, timeout_s: float) -> ToolResult:
        """One call, made once: nothing is sent again here."""
        ...

    def names(self) -> tuple[str, ...]:
        """The servers that may be used, sorted."""
        ...

    def config(self, server: str) -> ServerConfig:
        """How the server is reached, and its limits; NotThere if it is not configured."""
        ...
