"""What is known of one version of a module, and of one version of a tool."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chimera.core.types import Frozen

Number = Annotated[int, Field(ge=1)]
"""Versions of one module, or of one tool, go up and are never used twice."""


class ModuleVersion(Frozen):
    """`digest` is the SHA-256 of the source in hex, or empty for a module that was imported in the ordinary way.

    `path` is the file that its tracebacks name, or empty. `loaded_at` is in seconds since the epoch.
    """

    module: str
    version: Number
    digest: str = ""
    loaded_at: float
    path: str = ""
    source_bytes: Annotated[int, Field(ge=0)] = 0


class ToolVersion(Frozen):
    """`deprecated`: only who asks for exactly this version still gets it. `added_at` is in seconds since the epoch."""

    name: str
    version: Number
    digest: str = ""
    deprecated: bool = False
    added_at: float
