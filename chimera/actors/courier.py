"""One child's mail: batches by priority, the next one only when the last has been taken in.

That a child which has much to do takes longer to answer is all the flow control there is: what is not yet wanted waits
here, where a more urgent item can still overtake it and a cancelled one is never sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

from chimera.actors.pace import Pace
from chimera.swarm.fair_queue import FairQueue

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH = 256

PAUSE_S = 0.05
MAX_PAUSE_S = 2.0


class Courier(Generic[T]):
    """Sends items to one child, which must ignore what it has been sent before.

    A batch that does not arrive is sent again until it does: that the child is dead is noticed by who watches it, and
    closes its courier.
    """

    def __init__(self, send: Callable[[list[T]], Awaitable[Any]], *, most: int = MAX_BATCH) -> None:
        self._send = send
        self._most = most
        self._queue: FairQueue[T] = FairQueue()
        self._sender: asyncio.Task[None] | None = None
        self._closed = False
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, items: Iterable[tuple[T, int]]) -> None:
        """Send these `(item, priority)` when their turn comes. A courier that is closed drops them."""
        if self._closed:
            return
        for item, priority in items:
            self._queue.put(item, priority)
        if self._queue and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._run())

    def withdraw(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take back what is not wanted any more and was not sent yet."""
        kept: list[T] = []
        gone: list[T] = []
        for item in self._queue:
            (gone if unwanted(item) else kept).append(item)
        if gone:
            self._queue.keep(kept)
        return gone

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._queue.keep(())
        if self._sender:
            self._sender.cancel()

    async def _run(self) -> None:
        while self._queue:
            if len(self._queue) < self._most:
                await self._pace.keep()
            batch = self._queue.take(self._most)
            pause_s = PAUSE_S
            while not await self._sent(batch):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _sent(self, batch: list[T]) -> bool:
        try:
            await self._send(batch)
        except Exception as error:
            log.info("a batch of %d did not arrive: %s", len(batch), error)
            return False
        return True
