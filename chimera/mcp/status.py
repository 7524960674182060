"""What can be seen of a server from outside."""

from __future__ import annotations

from enum import StrEnum

from chimera.core.types import Frozen


class State(StrEnum):
    """Where a connection stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    FAILED = "failed"
    CLOSING = "closing"


class Status(Frozen):
    """What can be seen of a server. `stderr` is its own words: untrusted, and without its secrets."""

    server: str
    state: State
    transport: str
    place: str
    protocol: str = ""
    tools: int = 0
    left_out: int = 0
    """Tools that it offers and that are not taken: too large, too many, or named twice."""
    in_flight: int = 0
    calls: int = 0
    restarts: int = 0
    error: str = ""
    retry_in_s: float = 0.0
    memory_bytes: int = 0
    stderr: str = ""
    notes: tuple[str, ...] = ()
