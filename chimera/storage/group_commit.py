"""Group commit: all appends that come while one commit is under way share the next, and so what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from chimera.core.errors import Overloaded, StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import MAX_EVENT_BYTES, MAX_WAITING_BYTES, MAX_WAITING_EVENTS, advance, encode_event

RETRY_AFTER_S = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait for its commit, and so be in one append; and the size of one event."""

    waiting_events: int = MAX_WAITING_EVENTS
    waiting_bytes: int = MAX_WAITING_BYTES
    event_bytes: int = MAX_EVENT_BYTES


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One append on its way: all or none of it is stored."""

    events: tuple[Event, ...]
    lines: list[bytes]
    size_bytes: int
    stored: asyncio.Future[None]


@dataclass(eq=False, slots=True)
class Growth:
    """What a commit adds to one mission: `lines` are its events from `after + 1` on."""

    mission_id: str
    after: int
    first: Event
    last: Event
    lines: list[bytes]


Refused = Mapping[Batch, Exception]


class GroupCommit:
    """The appends that wait, and the one task that commits them.

    `commit` stores a group of batches as one transaction and returns those that break a mission's order, with their
    errors. What it raises is told to every batch of the group.
    """

    def __init__(
        self, commit: Callable[[Sequence[Batch]], Awaitable[Refused]], *, where: str, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._commit = commit
        self._where = where
        self._limits = limits
        self._waiting: list[Batch] = []
        self._events = self._bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self.closed = False

    async def append(self, events: Sequence[Event]) -> None:
        """Wait until `events` are stored. Raises what `Journal.append` does."""
        lines = [encode_event(event, self._limits.event_bytes) for event in events]
        self.check_open()
        if not lines:
            return
        size_bytes = sum(map(len, lines))
        self._admit(len(lines), size_bytes)
        batch = Batch(tuple(events), lines, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain())
        await batch.stored

    def check_open(self) -> None:
        if self.closed:
            raise StorageError(f"{self._where}: the journal is closed")

    async def close(self) -> None:
        """Refuse new appends, and wait for those under way."""
        self.closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])

    def _admit(self, events: int, size_bytes: int) -> None:
        """Count an append in, or refuse it. What is being committed counts as waiting: it still takes memory."""
        limits = self._limits
        if events > limits.waiting_events or size_bytes > limits.waiting_bytes:
            raise StorageError(
                f"{events} events of {size_bytes} bytes are too much for one append:"
                f" the limits are {limits.waiting_events} events and {limits.waiting_bytes} bytes"
            )
        if self._events + events > limits.waiting_events or self._bytes + size_bytes > limits.waiting_bytes:
            raise Overloaded(f"{self._events} events already wait for {self._where}", RETRY_AFTER_S)
        self._events += events
        self._bytes += size_bytes

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._store([batch for batch in group if not batch.stored.done()])
            finally:  # also when the loop ends under it: nobody may wait for ever
                self._events -= sum(len(batch.events) for batch in group)
                self._bytes -= sum(batch.size_bytes for batch in group)
                for batch in group:
                    batch.stored.cancel()

    async def _store(self, group: list[Batch]) -> None:
        try:
            refused = await self._commit(group) if group else {}
        except Exception as error:
            refused = dict.fromkeys(group, error)
        for batch in group:
            if batch.stored.done():  # cancelled meanwhile
                continue
            if batch in refused:
                batch.stored.set_exception(refused[batch])
            else:
                batch.stored.set_result(None)


def plan(group: Iterable[Batch], last: Mapping[str, int]) -> tuple[list[Growth], dict[Batch, Exception]]:
    """What the batches that keep their missions' order add after `last`, and the others with their errors."""
    seqs = dict(last)
    growths: dict[str, Growth] = {}
    refused: dict[Batch, Exception] = {}
    for batch in group:
        try:
            seqs.update(advance(batch.events, seqs))
        except StorageError as error:
            refused[batch] = error
            continue
        for event, line in zip(batch.events, batch.lines, strict=True):
            growth = growths.get(event.mission_id)
            if growth is None:
                growths[event.mission_id] = Growth(event.mission_id, event.seq - 1, event, event, [line])
            else:
                growth.last = event
                growth.lines.append(line)
    return list(growths.values()), refused


def ended_at_s(last: Event) -> float | None:
    """When the mission ended, if `last`, its last event, says so."""
    return last.at_s if last.kind is EventKind.MISSION_ENDED else None
