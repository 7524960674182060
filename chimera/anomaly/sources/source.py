"""The port that readings come in by, and what every adapter is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Protocol, Self

from pydantic import Field

from chimera.core.types import Frozen, Seconds
from chimera.core.watching import Reading

Readings = list[Reading]
"""A batch: what came in at once. At most MAX_BATCH."""

MAX_BATCH = 10_000

Glob = Annotated[str, Field(min_length=1, max_length=512)]

Query = Annotated[str, Field(min_length=1, max_length=4_096)]


class SourceOptions(Frozen):
    """What is wanted of a source. Each uses the fields that mean something to it.

    `metrics` are globs, of which a metric's name must match one; none of them: everything. A glob that matches the name
    without its labels will do. `queries` are PromQL. `interval_s` is the time between two polls, or two flushes;
    `history_s` how far back to begin, where the past can be asked for. `max_queued` readings may wait to be taken.
    `token_env` names the environment variable that holds the bearer token: ours towards a server that we ask, theirs
    towards a server that we are.
    """

    metrics: tuple[Glob, ...] = Field(default=(), max_length=1_000)
    queries: tuple[Query, ...] = Field(default=(), max_length=100)
    interval_s: Seconds = 10.0
    timeout_s: Seconds = 10.0
    history_s: Annotated[float, Field(ge=0.0, le=31 * 86_400.0, allow_inf_nan=False)] = 3_600.0
    max_queued: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    token_env: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class Source(Protocol):
    """Readings, in batches, as they come. Opened by `async with`; iterated once.

    A source ends when there is nothing more to come (a file), when it is closed, or never (a server). What it cannot
    read it counts in `refused`, by reason; it raises SourceError only when nothing at all can come. Timestamps and
    values are passed on as they were sent: who takes them in judges them.

    Inherit from it, and say only what is different: the defaults are those of a source that does not listen.
    """

    name: str
    refused: dict[str, int]
    address: str | None = None
    """The URL at which it listens, once open. None where it does not listen."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    @property
    def complaint(self) -> str | None:
        """For people: what was wrong with the first that was refused, and where, or with all. None if nothing was.

        Nor does a server say so here: it tells whoever sent it.
        """
        return None

    def batches(self) -> AsyncIterator[Readings]: ...

    def finish(self) -> None:
        """Take in nothing more: `batches` ends when what was taken in is handed out. May be called again.

        Called on the loop that iterates. Who sends is refused from now on, and the source stays open until closed.
        """
