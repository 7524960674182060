"""A journal that lives as long as its process: for throwaway swarms and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.journal import (
    MAX_EVENT_BYTES,
    MAX_READ,
    SWARM_PREFIX,
    Journal,
    MissionSummary,
    advance,
    check_limit,
    decode_event,
    encode_event,
)


@dataclass(slots=True)
class _Mission:
    swarm: str
    first_at_s: float
    last_at_s: float
    last_kind: EventKind
    lines: list[bytes] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.last_kind != EventKind.MISSION_ENDED


class MemoryJournal(Journal):
    """Keeps events as the bytes that a disk would hold, so that it refuses and returns what the other adapters do."""

    def __init__(self, *, max_bytes: int = 1_000_000_000, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_event_bytes = max_event_bytes
        self._bytes = 0
        self._missions: dict[str, _Mission] = {}
        self._streams: dict[str, _Mission] = {}  # the swarms' own
        self._closed = False

    async def append(self, events: Sequence[Event]) -> None:
        self._check_open()
        lines = [encode_event(event, self._max_event_bytes) for event in events]
        advance(events, {event.mission_id: len(self._lines(event.mission_id)) for event in events})
        size = sum(map(len, lines))
        if self._bytes + size > self._max_bytes:
            raise StorageError(f"the journal in memory is full ({self._max_bytes} bytes): use sqlite:///PATH")
        self._bytes += size
        for event, line in zip(events, lines, strict=True):
            self._store(event, line)

    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        self._check_open()
        check_limit(limit)
        start = max(after, 0)
        return [decode_event(line, "memory://") for line in self._lines(mission_id)[start : start + limit]]

    async def missions(
        self, limit: int = 100, *, swarm: str | None = None, running: bool = False
    ) -> list[MissionSummary]:
        self._check_open()
        check_limit(limit)
        wanted = (
            (name, mission)
            for name, mission in reversed(self._missions.items())
            if (swarm is None or mission.swarm == swarm) and (mission.running or not running)
        )
        return [_summary(name, mission) for name, mission in islice(wanted, limit)]

    async def prune(self, ended_before_s: float, limit: int = MAX_READ) -> int:
        self._check_open()
        check_limit(limit)
        ended = [
            (mission.last_at_s, name)
            for name, mission in self._missions.items()
            if not mission.running and mission.last_at_s < ended_before_s
        ]
        pruned = sorted(ended)[:limit]
        for _, name in pruned:
            self._bytes -= sum(map(len, self._missions.pop(name).lines))
        return len(pruned)

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("memory://: the journal is closed")

    def _of(self, mission_id: str) -> dict[str, _Mission]:
        return self._streams if mission_id.startswith(SWARM_PREFIX) else self._missions

    def _lines(self, mission_id: str) -> list[bytes]:
        mission = self._of(mission_id).get(mission_id)
        return [] if mission is None else mission.lines

    def _store(self, event: Event, line: bytes) -> None:
        missions = self._of(event.mission_id)
        mission = missions.get(event.mission_id)
        if mission is None:
            mission = _Mission(event.swarm, event.at_s, event.at_s, event.kind)
            missions[event.mission_id] = mission
        mission.swarm, mission.last_at_s, mission.last_kind = event.swarm, event.at_s, event.kind
        mission.lines.append(line)


def _summary(name: str, mission: _Mission) -> MissionSummary:
    return MissionSummary(
        mission_id=name,
        swarm=mission.swarm,
        first_at_s=mission.first_at_s,
        last_at_s=mission.last_at_s,
        last_kind=mission.last_kind,
        events=len(mission.lines),
    )
