"""The journal port: events go in durably, in order and without gaps, and come out the same.

A mission's state is the sum of its events, so a journal that lost, doubled or reordered one would rebuild a mission
that never was. The port therefore refuses such appends itself instead of trusting its callers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from chimera.core.errors import InputError, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Frozen, Name
from chimera.storage import strict_json
from chimera.storage.url import hide_password

MAX_WAITING_EVENTS = 10_000
"""Events that may wait for their commit, and so the most that one append may hold."""

MAX_WAITING_BYTES = 256_000_000
"""JSON bytes that may wait for their commit."""

MAX_EVENT_BYTES = 4_000_000
"""JSON bytes in one event."""

MAX_READ = 20_000
"""Events or missions that one read returns, and missions that one prune deletes, at most."""

SWARM_PREFIX = "swarm-"
"""What the ids of the swarms' own streams begin with: they are read like missions and listed with none."""


class MissionSummary(Frozen):
    """One line of a list of missions. Times are wall-clock seconds since the epoch; `swarm` wrote the last event."""

    mission_id: Name
    swarm: str
    first_at_s: float
    last_at_s: float
    last_kind: EventKind
    events: int = Field(ge=1)


class Journal(ABC):
    """An append-only store of events. One suite of tests, `tests/contract/test_journal.py`, holds for every adapter."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Store `events`, all or none; they are durable when this returns.

        Each mission's events must go on from its last `seq` by one. An append that is cancelled, or that a server did
        not answer, may have been stored or not. Raises StorageError (a gap or a duplicate, an event too large or not
        JSON, a closed journal, a disk that failed), StorageUnavailable (a server out of reach) and Overloaded (too much
        waits already; nothing was stored).
        """

    @abstractmethod
    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        """A mission's events with `seq > after`, in order, `limit` (1..20,000) at most. Raises StorageError."""

    @abstractmethod
    async def missions(
        self, limit: int = 100, *, swarm: str | None = None, running: bool = False
    ) -> list[MissionSummary]:
        """The missions, the one that began last first, `limit` (1..20,000) at most. Raises StorageError.

        "Last" is by order of arrival in this journal: wall clocks run backwards at times. With `swarm`, those whose
        last event that swarm wrote; with `running`, those whose last event is not `mission_ended`. The swarms' own
        streams, whose ids begin with `swarm-`, are never listed.
        """

    @abstractmethod
    async def prune(self, ended_before_s: float, limit: int = MAX_READ) -> int:
        """Delete missions that ended before that wall-clock time, the one that ended first first, `limit` at most.

        Returns how many; call again while that is `limit`. A mission that did not end stays, however old it is, and so
        do the swarms' own streams. Raises StorageError.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the appends that wait, and let go of the file or server. Twice is fine; using it after is not."""


def encode_event(event: Event, max_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """`event` as one line of UTF-8 JSON. Raises StorageError for what is too large or has no JSON form."""
    try:
        line = strict_json.dumps(event.__dict__)
    except ValueError as error:
        raise StorageError(
            f"event {event.seq} of mission {event.mission_id} cannot be stored as JSON: {error}"
        ) from error
    if len(line) > max_bytes:
        raise StorageError(
            f"event {event.seq} of mission {event.mission_id} is {len(line)} bytes of JSON; the limit is {max_bytes}"
        )
    return line


def decode_event(line: bytes, source: str) -> Event:
    """The event that `encode_event` wrote. Raises StorageError naming `source` if it is not one."""
    try:
        return Event.model_validate(strict_json.loads(line))
    except ValueError as error:
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


def open_journal(url: str, *, create: bool = True) -> Journal:
    """The journal at `url`: `sqlite:///PATH`, `redis://`, `rediss://` or `postgresql://[USER:PASSWORD@]HOST/DB`, `memory://`.

    After `sqlite:///` the path stands as it is, so an absolute one has four slashes in a row. Parent folders are made
    for the owner alone, and so is the file, or without `create` nothing is made. A server is reached at the first use.
    Raises InputError for another scheme, a URL that cannot be read, or a file that is not there and must be,
    StorageError if a file cannot be opened, MissingExtra without the server's driver.
    """
    scheme, mark, rest = url.partition("://")
    if scheme == "memory" and mark and not rest:
        from chimera.storage.memory import MemoryJournal  # adapters import this module

        return MemoryJournal()
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from chimera.storage.sqlite import SqliteJournal

        path = Path(rest[1:])
        if not create:
            _check_exists(path)
        return SqliteJournal(path=path)
    if scheme in ("redis", "rediss") and rest:
        from chimera.storage.redis import RedisJournal

        return RedisJournal(url=url)
    if scheme == "postgresql" and rest:
        from chimera.storage.postgres import PostgresJournal

        return PostgresJournal(url=url)
    raise InputError(
        f"{hide_password(url)} is not a journal:"
        " use sqlite:///PATH or memory://, or redis:// or postgresql:// and a host"
    )


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        raise InputError(f"{path}: there is no journal ({error.strerror}): check its path") from error
