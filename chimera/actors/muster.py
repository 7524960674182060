"""A swarm's own stream in its journal: who was spawned, for which manager, and who left."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from chimera.actors.scribe import Scribe
from chimera.core.clock import Clock
from chimera.core.events import Event, EventKind
from chimera.core.types import Isolation
from chimera.storage.journal import Journal
from chimera.swarm.policy import Seat

MAX_ENTRIES_BYTES = 100_000
"""JSON bytes of an event's entries, beyond which the next entry goes into an event of its own."""

MAX_RUN = 10_000
"""Agents in one entry."""


@dataclass(slots=True)
class Muster:
    """`seats` by agent id, each with its manager; the ids that each spawn `request` was given; the last `seq`.

    `reloads` are the events that `actors/reloads.py` wrote.
    """

    seats: dict[str, tuple[str, Seat]] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)
    next_number: int = 0
    seq: int = 0
    reloads: list[Event] = field(default_factory=list)


async def read_muster(journal: Journal, swarm: str) -> Muster:
    """What the journal holds of this swarm's agents. Raises StorageError."""
    muster = Muster()
    while events := await journal.read(swarm, after=muster.seq):
        for event in events:
            _take_in(muster, event)
    return muster


class SwarmStream:
    """What a swarm writes of itself, after the event number `seq`. Who writes meanwhile waits for its turn."""

    def __init__(self, *, swarm: str, journal: Journal, scribe: Scribe, clock: Clock, seq: int) -> None:
        self._swarm = swarm
        self._journal = journal
        self._scribe = scribe
        self._clock = clock
        self._seq = seq
        self._in_doubt = False
        self._turn = asyncio.Lock()

    async def note(self, *facts: tuple[EventKind, dict[str, JsonValue]]) -> None:
        """Write an event for each fact, all or none. Raises StorageError."""
        async with self._turn:
            await self._write(facts)

    async def _write(self, facts: Sequence[tuple[EventKind, dict[str, JsonValue]]]) -> None:
        if self._in_doubt:
            while stored := await self._journal.read(self._swarm, after=self._seq):
                self._seq = stored[-1].seq
        at_s = self._clock.now()
        events = [
            Event(mission_id=self._swarm, seq=seq, kind=kind, at_s=at_s, swarm=self._swarm, data=data)
            for seq, (kind, data) in enumerate(facts, start=self._seq + 1)
        ]
        self._in_doubt = True  # a write that fails may have been stored or not
        await self._scribe.write(events)
        self._seq += len(events)
        self._in_doubt = False


async def open_stream(swarm: str, journal: Journal, scribe: Scribe, clock: Clock) -> tuple[SwarmStream, Muster]:
    """The swarm's own stream, to go on where it ends, and what stands in it. Raises StorageError."""
    muster = await read_muster(journal, swarm)
    return SwarmStream(swarm=swarm, journal=journal, scribe=scribe, clock=clock, seq=muster.seq), muster


def spawned(manager: str, request: str, seats: Sequence[Seat]) -> list[dict[str, JsonValue]]:
    """The data of AGENTS_SPAWNED events, each small enough for a journal.

    Agents that differ in nothing but their number are one entry.
    """
    events: list[dict[str, JsonValue]] = []
    entries: list[JsonValue] = []
    size_bytes = 0
    for alike in _alike(seats):
        entry = _entry(alike)
        more = len(json.dumps(entry))
        if entries and size_bytes + more > MAX_ENTRIES_BYTES:
            events.append({"manager": manager, "request": request, "agents": entries})
            entries, size_bytes = [], 0
        entries.append(entry)
        size_bytes += more
    return [*events, {"manager": manager, "request": request, "agents": entries}]


def _alike(seats: Sequence[Seat]) -> Iterator[list[Seat]]:
    """Runs of seats that differ in nothing but their number, none too long for an event."""
    run: list[Seat] = []
    for seat in seats:
        if run and (len(run) == MAX_RUN or run[0].named("") != seat.named("")):
            yield run
            run = []
        run.append(seat)
    if run:
        yield run


def _entry(alike: list[Seat]) -> dict[str, JsonValue]:
    seat = alike[0]
    told: dict[str, JsonValue] = {
        "role": seat.role,
        "policy": seat.policy,
        "isolation": seat.isolation.value,
        "options": dict(seat.options),
        "skills": list(seat.skills),
    }
    numbers: list[JsonValue] = [_number(each.agent_id) for each in alike]
    return {"seat": told, "pickled": base64.b64encode(seat.pickled).decode(), "numbers": numbers}


def left(first: int, count: int) -> dict[str, JsonValue]:
    """The data of an AGENTS_LEFT event: `count` agents from the number `first` on."""
    return {"first": first, "count": count}


def _take_in(muster: Muster, event: Event) -> None:
    muster.seq = event.seq
    if event.kind is EventKind.AGENTS_SPAWNED:
        seats = _seats(event.data["agents"])
        muster.seats |= {seat.agent_id: (str(event.data["manager"]), seat) for seat in seats}
        if request := str(event.data["request"]):
            muster.requests.setdefault(request, []).extend(seat.agent_id for seat in seats)
        muster.next_number = max(muster.next_number, *(_number(seat.agent_id) + 1 for seat in seats))
    elif event.kind is EventKind.AGENTS_LEFT:
        first, count = int(str(event.data["first"])), int(str(event.data["count"]))
        gone = {agent_id for agent_id in muster.seats if first <= _number(agent_id) < first + count}
        for agent_id in gone:
            del muster.seats[agent_id]
        muster.requests = {r: ids for r, ids in muster.requests.items() if gone.isdisjoint(ids)}
    elif event.kind in (EventKind.RELOAD_PROPOSED, EventKind.RELOAD_COMMITTED):
        muster.reloads.append(event)


def _seats(entries: Any) -> list[Seat]:
    found = []
    for entry in entries:
        told, pickled = entry["seat"], base64.b64decode(entry["pickled"])
        first = Seat(
            "",
            told["role"],
            told["policy"],
            Isolation(told["isolation"]),
            told["options"],
            pickled,
            tuple(told["skills"]),
        )
        found += [first.named(f"{told['role']}-{number}") for number in entry["numbers"]]
    return found


def _number(agent_id: str) -> int:
    return int(agent_id.rpartition("-")[2])
