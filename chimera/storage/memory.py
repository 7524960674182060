"""A journal that lives as long as its process: for throwaway swarms and tests."""

from __future__ import annotations

from collections.abc import Sequence

from chimera.core.errors import StorageError
from chimera.core.events import Event
from chimera.storage.journal import (
    MAX_EVENT_BYTES,
    MAX_READ,
    Journal,
    MissionSummary,
    advance,
    check_limit,
    decode_event,
    encode_event,
)


class MemoryJournal(Journal):
    """Keeps events as the bytes that a disk would hold, so that it refuses and returns what the other adapters do."""

    def __init__(self, *, max_bytes: int = 1_000_000_000, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_event_bytes = max_event_bytes
        self._bytes = 0
        self._lines: dict[str, list[bytes]] = {}
        self._closed = False

    async def append(self, events: Sequence[Event]) -> None:
        self._check_open()
        lines = [encode_event(event, self._max_event_bytes) for event in events]
        advance(events, {event.mission_id: len(self._lines.get(event.mission_id, ())) for event in events})
        size = sum(map(len, lines))
        if self._bytes + size > self._max_bytes:
            raise StorageError(f"the journal in memory is full ({self._max_bytes} bytes): use sqlite:///PATH")
        self._bytes += size
        for event, line in zip(events, lines, strict=True):
            self._lines.setdefault(event.mission_id, []).append(line)

    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        self._check_open()
        check_limit(limit)
        start = max(after, 0)
        return [decode_event(line, "memory://") for line in self._lines.get(mission_id, [])[start : start + limit]]

    async def missions(self, limit: int = 100) -> list[MissionSummary]:
        self._check_open()
        check_limit(limit)
        newest = list(reversed(self._lines.items()))[:limit]
        return [_summary(mission, lines) for mission, lines in newest]

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("memory://: the journal is closed")


def _summary(mission_id: str, lines: list[bytes]) -> MissionSummary:
    first, last = decode_event(lines[0], "memory://"), decode_event(lines[-1], "memory://")
    return MissionSummary(mission_id=mission_id, first_at_s=first.at_s, last_kind=last.kind, events=len(lines))
