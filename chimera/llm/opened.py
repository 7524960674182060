"""A client belongs to the event loop that opened it: in another loop, another one is opened.

Else a model that served one `asyncio.run` would fail the first call of the next, on connections of a loop that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class Opened(Generic[C]):
    """What `make` makes, once for each loop in its turn."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._client: C | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> C:
        """The client of the loop that runs here. One of another loop is let go of: its sockets go with the garbage."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make(), loop
        return self._client

    def take(self) -> C | None:
        """The client, to be closed, if this loop opened it; the next `get` makes another."""
        client, loop = self._client, self._loop
        self._client = self._loop = None
        return client if loop is asyncio.get_running_loop() else None
