"""Work that has begun is brought to its end, whoever is cancelled meanwhile: half of it would be worse than either."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """What `work` gives or raises. If the caller is cancelled, CancelledError, but not before `work` has ended."""
    running = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not running.cancelled():
            running.exception()  # it has been asked for: whoever is cancelled does not want it
        raise cancelled
    return running.result()
