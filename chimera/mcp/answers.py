"""What servers send, in our own types: bounded, and with nothing in it but text and JSON."""

from __future__ import annotations

import json
from typing import Any

import mcp_types
from mcp import MCPError
from pydantic import ValidationError

from chimera.mcp.types import MAX_DEFINITION_BYTES, ToolDefinition, ToolResult


def definition_of(server: str, tool: mcp_types.Tool) -> ToolDefinition | None:
    """A tool's definition; None if it passes a limit, or is no JSON."""
    hints = tool.annotations.model_dump(by_alias=True, exclude_none=True, mode="json") if tool.annotations else {}
    title = tool.title or hints.get("title") or ""
    try:
        if len(json.dumps([tool.description, tool.input_schema, tool.output_schema, hints])) > MAX_DEFINITION_BYTES:
            return None
        return ToolDefinition(
            server=server,
            name=tool.name,
            title=title,
            description=tool.description or "",
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            annotations=hints,
        )
    except (ValidationError, RecursionError):
        return None


def result_of(answer: mcp_types.CallToolResult, *, max_bytes: int) -> ToolResult:
    """A call's answer, cut at `max_bytes`."""
    text = "\n".join(_block(block) for block in answer.content)
    structured: Any = answer.structured_content
    aside = 0 if structured is None else len(json.dumps(structured).encode())
    return _bounded(text, structured, aside, is_error=bool(answer.is_error), max_bytes=max_bytes)


def refusal_of(error: MCPError, *, max_bytes: int) -> ToolResult:
    """The JSON-RPC error that a server answered with, as the failed call that it is."""
    text = f"the server answered with error {error.error.code}: {error.error.message}"
    return _bounded(text, None, 0, is_error=True, max_bytes=max_bytes)


def _bounded(text: str, structured: Any, aside: int, *, is_error: bool, max_bytes: int) -> ToolResult:
    raw = text.encode("utf-8", "replace")
    size = len(raw) + aside
    if size <= max_bytes:
        return ToolResult(text=text, structured=structured, is_error=is_error, size_bytes=size)
    cut = raw[:max_bytes].decode("utf-8", "ignore")
    return ToolResult(text=cut, is_error=is_error, truncated=True, size_bytes=size)


def _block(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return _stand_in(block.mime_type, block.data)
        case mcp_types.ResourceLink():
            return f"[link: {block.uri}]"
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
            return resource.text
        case mcp_types.EmbeddedResource(resource=mcp_types.BlobResourceContents() as resource):
            return _stand_in(resource.mime_type or "application/octet-stream", resource.blob)
    return ""


def _stand_in(mime_type: str, base64: str) -> str:
    size = len(base64) * 3 // 4 - base64[-2:].count("=")
    return f"[{mime_type[:100]}, {size:,} bytes]"
