"""The scribe: writes what is to be remembered, and only then lets happen what depends on it, in the same order.

Steps of all missions queue here. While one append is on its way to the disk the next gather, so that the wait for the
disk is shared by all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chimera.core.errors import Overloaded, StorageError, StorageUnavailable
from chimera.core.events import Event
from chimera.storage.journal import Journal, encode_event

log = logging.getLogger(__name__)

MAX_EVENTS = 1_000
"""Events in one append."""

MAX_BEHIND = 4_000
"""Steps that may wait before whoever brings more has to wait too."""

MAX_PATIENCE = 10
"""How often an append is tried again when the journal is overloaded."""

OUTAGE_S = 300.0
"""How long a journal that is out of reach is waited for, from the first append that failed."""

PAUSE_S = 0.5
MAX_PAUSE_S = 15.0


@dataclass(frozen=True, slots=True)
class _Entry:
    events: list[Event]
    then: Callable[[], None]
    failed: Callable[[Exception], None]


_Outcome = tuple[_Entry, Exception | None]


class Scribe:
    """Appends to one journal, in order. `wrote` is told how many events each append made durable.

    An outage of the journal is waited out, for OUTAGE_S: what a mission decided must not depend on it.
    """

    def __init__(self, journal: Journal, wrote: Callable[[int], None] = lambda events: None) -> None:
        self._journal = journal
        self._wrote = wrote
        self._entries: deque[_Entry] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._out_since: float | None = None
        self._finishing = asyncio.Event()

    def put(self, events: list[Event], then: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Write `events`, then call `then`; or `failed` with what the journal said."""
        self._entries.append(_Entry(events, then, failed))
        if len(self._entries) > MAX_BEHIND:
            self._room.clear()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._run())

    async def room(self) -> None:
        """Wait while too much waits to be written."""
        await self._room.wait()

    async def write(self, events: list[Event]) -> None:
        """Write `events` when their turn comes, and wait for it. Raises what the journal said."""
        done = asyncio.Event()
        failures: list[Exception] = []

        def failed(error: Exception) -> None:
            failures.append(error)
            done.set()

        self.put(events, done.set, failed)
        await done.wait()
        if failures:
            raise failures[0]

    async def written(self) -> None:
        """Wait until all that was put so far is durable, or has failed."""
        await self.write([])

    async def finish(self) -> None:
        """Wait for all that was put so far, but no more for a journal that is out of reach."""
        self._finishing.set()
        if self._writer is not None:
            await asyncio.wait({self._writer})

    async def _run(self) -> None:
        written: list[_Outcome] = []
        while self._entries or written:
            writing = asyncio.create_task(self._write(self._next()))
            await asyncio.sleep(0)  # it is on its way to the disk while what follows from the last one is done
            for entry, error in written:
                _follow(entry, error)
            written = await writing

    def _next(self) -> list[_Entry]:
        """What goes into one append."""
        batch: list[_Entry] = []
        size = 0
        while self._entries and (not batch or size + len(self._entries[0].events) <= MAX_EVENTS):
            batch.append(self._entries.popleft())
            size += len(batch[-1].events)
        if len(self._entries) <= MAX_BEHIND:
            self._room.set()
        return batch

    async def _write(self, batch: list[_Entry]) -> list[_Outcome]:
        """The entries in order, each with why it could not be written, if it could not."""
        try:
            await self._append([event for entry in batch for event in entry.events])
        except StorageUnavailable as error:
            return [(entry, error if entry.events else None) for entry in batch]
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], error)]
            # one of them is at fault: the others must not suffer for it
            return [outcome for entry in batch for outcome in await self._write([entry])]
        return [(entry, None) for entry in batch]

    async def _append(self, events: list[Event]) -> None:
        for start in range(0, len(events), MAX_EVENTS):
            chunk = events[start : start + MAX_EVENTS]
            await self._persist(chunk)
            try:
                self._wrote(len(chunk))
            except Exception:
                log.exception("an append could not be counted")

    async def _persist(self, events: list[Event]) -> None:
        """One append, tried again until it is stored or refused for good."""
        patience, pause_s, in_doubt = MAX_PATIENCE, PAUSE_S, False
        while True:
            try:
                await self._try(events, in_doubt)
                break
            except Overloaded as error:
                if patience == 0:
                    raise
                patience -= 1
                await asyncio.sleep(error.retry_after_s)
            except StorageUnavailable as error:
                in_doubt = True
                await self._wait_out(error, pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
        self._out_since = None

    async def _try(self, events: list[Event], in_doubt: bool) -> None:
        """Append; if an earlier try may have stored these events, look whether it has."""
        try:
            await self._journal.append(events)
        except StorageUnavailable:
            raise
        except StorageError:
            if not in_doubt:
                raise
            first = events[0]  # an append is stored as a whole
            found = await self._journal.read(first.mission_id, after=first.seq - 1, limit=1)
            if not found or encode_event(found[0]) != encode_event(first):
                raise

    async def _wait_out(self, error: StorageUnavailable, pause_s: float) -> None:
        """Pause for a journal that is out of reach; raises StorageUnavailable when it was waited for long enough."""
        now = asyncio.get_running_loop().time()
        if self._out_since is None:
            log.warning("what happens waits for the journal: %s", error)
            self._out_since = now
        waited_s = now - self._out_since
        if self._finishing.is_set() or waited_s > OUTAGE_S:
            raise StorageUnavailable(f"given up after {waited_s:.0f} s: {error}") from error
        try:
            async with asyncio.timeout(pause_s):
                await self._finishing.wait()
        except TimeoutError:
            return


def _follow(entry: _Entry, error: Exception | None) -> None:
    """Do what depends on an entry."""
    if error is None:
        try:
            entry.then()
            return
        except Exception as fault:
            log.exception("what followed an append failed")
            error = fault
    try:
        entry.failed(error)
    except Exception:
        log.exception("a failed append could not be told")
