"""How many servers are held at once, and which of them make room (pure)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field

from chimera.core.types import Frozen, Seconds

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0

SERVER_BYTES: Final = 50 * 2**20
"""What a server in a process is taken to need before it has been measured: they need 30 to 50 MB."""


class Caps(Frozen):
    """What a hub may hold. Memory is that of its servers' processes, measured, not its own."""

    max_processes: Annotated[int, Field(ge=1, le=1_000)] = 64
    max_memory_bytes: Annotated[int, Field(ge=2**20)] = 4 * 2**30
    idle_s: Seconds = 600.0
    """A server that nobody has used for so long is closed; the next use connects it again."""
    sweep_s: Seconds = 5.0
    """From one look at what is idle, and at the memory, to the next."""
    connect_at_once: Annotated[int, Field(ge=1, le=1_000)] = 64
    start_at_once: Annotated[int, Field(ge=1, le=256)] = 4
    """Processes that are being started, each of which keeps a core busy for a while."""


class Held(Frozen):
    """A server that is connected, being connected or being closed."""

    name: str
    process: bool
    """It runs in a process of ours; one over HTTP does not."""
    busy: bool
    """It is on its way up or down, or has calls in progress: it is never closed to make room."""
    used_s: float
    """When it was last used, on the monotonic clock."""
    memory_bytes: Annotated[int, Field(ge=0)] = 0


def idle_for_long(held: Iterable[Held], caps: Caps, now_s: float) -> list[str]:
    """The servers to close because nobody uses them."""
    return [server.name for server in held if not server.busy and now_s - server.used_s >= caps.idle_s]


def to_make_room(held: Iterable[Held], caps: Caps, *, newcomers: int) -> list[str] | None:
    """The processes to close, the longest unused first, so that so many more fit; None if there is no way.

    Without newcomers it is what to close to come back under the caps, as far as that goes.
    """
    processes = [server for server in held if server.process]
    count = len(processes) + newcomers
    memory = sum(server.memory_bytes for server in processes) + newcomers * SERVER_BYTES
    closed: list[str] = []
    for server in sorted((s for s in processes if not s.busy), key=lambda s: (s.used_s, s.name)):
        if count <= caps.max_processes and memory <= caps.max_memory_bytes:
            break
        count, memory = count - 1, memory - server.memory_bytes
        closed.append(server.name)
    if newcomers and (count > caps.max_processes or memory > caps.max_memory_bytes):
        return None
    return closed


def pause_s(failures: int, rng: random.Random) -> float:
    """Seconds until the next try: exponential backoff with full jitter (Brooker 2015, "Exponential Backoff And
    Jitter", AWS Architecture Blog), so that servers that died together do not come back together."""
    return rng.uniform(0.0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures, 16)))
