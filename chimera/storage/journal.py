"""The journal port: events go in durably, in order and without gaps, and come out the same.

A mission's state is the sum of its events, so a journal that lost, doubled or reordered one would rebuild a mission
that never was. The port therefore refuses such appends itself instead of trusting its callers.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from chimera.core.errors import InputError, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Frozen, Name

MAX_WAITING_EVENTS = 10_000
"""Events that may wait for their commit, and so the most that one append may hold."""

MAX_WAITING_BYTES = 256_000_000
"""JSON bytes that may wait for their commit."""

MAX_EVENT_BYTES = 4_000_000
"""JSON bytes in one event."""

MAX_READ = 10_000
"""Events or missions that one read returns at most."""


class MissionSummary(Frozen):
    """One line of a list of missions. `first_at_s` is wall-clock seconds since the epoch."""

    mission_id: Name
    first_at_s: float
    last_kind: EventKind
    events: int = Field(ge=1)


class Journal(ABC):
    """An append-only store of events. One suite of tests, `tests/contract/test_journal.py`, holds for every adapter."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Store `events`, all or none; they are durable when this returns.

        Each mission's events must go on from its last `seq` by one. An append that is cancelled may have been stored
        or not. Raises StorageError (a gap or a duplicate, an event too large or not JSON, a closed journal, a disk
        that failed) and Overloaded (too much waits already; nothing was stored).
        """

    @abstractmethod
    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        """A mission's events with `seq > after`, in order, `limit` (1..10,000) at most. Raises StorageError."""

    @abstractmethod
    async def missions(self, limit: int = 100) -> list[MissionSummary]:
        """The missions, the one that began last first, `limit` (1..10,000) at most. Raises StorageError.

        "Last" is by order of arrival in this journal: wall clocks run backwards at times.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the appends that wait, and let go of the file. Closing twice is fine; using it after is not."""


def encode_event(event: Event, max_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """`event` as one line of UTF-8 JSON. Raises StorageError for what is too large or has no JSON form."""
    where = f"event {event.seq} of mission {event.mission_id}"
    try:
        line = json.dumps(event.model_dump(mode="json"), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded = line.encode()
    except ValueError as error:  # NaN, infinity, a lone surrogate: none of them would come back the same
        raise StorageError(f"{where} cannot be stored as JSON: {error}") from error
    if len(encoded) > max_bytes:
        raise StorageError(f"{where} is {len(encoded)} bytes of JSON; the limit is {max_bytes}")
    return encoded


def decode_event(line: bytes, source: str) -> Event:
    """The event that `encode_event` wrote. Raises StorageError naming `source` if it is not one."""
    try:
        return Event.model_validate_json(line)
    except ValidationError as error:
        raise StorageError(f"{source}: a stored event cannot be read back: {error}") from error


def advance(events: Sequence[Event], last: Mapping[str, int]) -> dict[str, int]:
    """The last `seq` of each mission in `events` once they are appended after `last` (0 where a mission is new).

    Raises StorageError for a gap or a duplicate.
    """
    now: dict[str, int] = {}
    for event in events:
        expected = now.get(event.mission_id, last.get(event.mission_id, 0)) + 1
        if event.seq != expected:
            what = "is already stored" if event.seq < expected else "leaves a gap"
            raise StorageError(f"event {event.seq} of mission {event.mission_id} {what}: {expected} comes next")
        now[event.mission_id] = event.seq
    return now


def check_limit(limit: int) -> None:
    """Raises StorageError unless `limit` is in 1..MAX_READ."""
    if not 1 <= limit <= MAX_READ:
        raise StorageError(f"limit must be in 1..{MAX_READ}, got {limit}")


def open_journal(url: str) -> Journal:
    """The journal at `url`: `sqlite:///PATH` or `memory://`.

    After `sqlite:///` the path stands as it is, so an absolute one has four slashes in a row. Parent folders are made
    for the owner alone, and so is the file. Raises InputError for another scheme, StorageError if it cannot be opened.
    """
    from chimera.storage.memory import MemoryJournal  # adapters import this module
    from chimera.storage.sqlite import SqliteJournal

    scheme, mark, rest = url.partition("://")
    if scheme == "memory" and mark and not rest:
        return MemoryJournal()
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteJournal(path=Path(rest[1:]))
    raise InputError(f"{url!r} is not a journal: use sqlite:///PATH or memory://")
