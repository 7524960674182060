"""Servers' names and texts where people, files and capabilities meet them: bounded, and nothing hidden in them."""

from __future__ import annotations

import re
from typing import Final

from chimera.core.hashing import digest

MAX_SEGMENT: Final = 100
"""Characters of one part of a resource: two of them and what stands around them fit into a capability's 256."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@:+\-]|(?<=.)\.(?=.)", re.DOTALL)


def shown(text: str, most_chars: int = 200) -> str:
    """The text for a message: what cannot be seen (controls, tag characters, directions) is written out, then cut."""
    seen = "".join(each if each.isprintable() else f"\\u{{{ord(each):x}}}" for each in text[: most_chars + 1])
    return seen if len(seen) <= most_chars else seen[: most_chars - 3] + "..."


def segment(name: str) -> str:
    """A name as one part of a path: `org/name` is `org~2fname`. Different names give different parts.

    What is longer than MAX_SEGMENT is cut, and ends with a digest of all of it.
    """
    made = "".join(
        each if _PLAIN.match(name, at) else "".join(f"~{byte:02x}" for byte in each.encode(errors="surrogatepass"))
        for at, each in enumerate(name)
    )
    if 0 < len(made) <= MAX_SEGMENT:
        return made
    return f"{made[: MAX_SEGMENT - 34]}~~{digest(ascii(name))}"


def resource_of(server: str, tool: str) -> str:
    """What a capability has to be for to call this tool: `mcp/SERVER/TOOL`; `mcp/SERVER/*` is for all of a server."""
    return f"mcp/{segment(server)}/{segment(tool)}"


def source_of(server: str, tool: str) -> str:
    """The tool as a source of tainted text, `tool:SERVER/TOOL`."""
    return f"tool:{segment(server)[:60]}/{segment(tool)[:60]}".replace("~", "+")
