"""A swarm's agents, written to a journal and read back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import JsonValue

from chimera.actors.muster import SwarmStream, left, read_muster, spawned
from chimera.actors.scribe import Scribe
from chimera.core.clock import SystemClock
from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import AgentSpec
from chimera.storage.memory import MemoryJournal
from chimera.swarm.policy import MAX_POLICY_BYTES, Seat


async def written(*events: tuple[EventKind, dict[str, JsonValue]]) -> MemoryJournal:
    journal = MemoryJournal()
    for seq, (kind, data) in enumerate(events, start=1):
        event = Event(mission_id="swarm-a", seq=seq, kind=kind, at_s=1.0, data=data)
        await journal.append([event])
    return journal


def seats(count: int, *, first: int = 0, **spec: object) -> list[Seat]:
    seat = Seat.of(AgentSpec(**spec))  # type: ignore[arg-type]
    return [seat.named(f"{seat.role}-{number}") for number in range(first, first + count)]


async def test_agents_come_back_as_they_were() -> None:
    some = [*seats(30), *seats(2, first=30, role="judge", policy="a:b", options={"x": 1}, skills=("s",))]
    journal = await written(*((EventKind.AGENTS_SPAWNED, data) for data in spawned("Manager[0]", "r", some)))
    muster = await read_muster(journal, "swarm-a")
    assert [seat for _, seat in muster.seats.values()] == some
    assert {manager for manager, _ in muster.seats.values()} == {"Manager[0]"}
    assert muster.requests == {"r": [seat.agent_id for seat in some]} and muster.next_number == 32


async def test_agents_that_left_are_not_there_nor_is_their_request_answered_again() -> None:
    journal = await written(
        *((EventKind.AGENTS_SPAWNED, data) for data in spawned("Manager[0]", "kept", seats(3))),
        *((EventKind.AGENTS_SPAWNED, data) for data in spawned("Manager[0]", "gone", seats(3, first=3))),
        (EventKind.AGENTS_LEFT, dict(left(4, 2))),
    )
    muster = await read_muster(journal, "swarm-a")
    assert list(muster.seats) == ["worker-0", "worker-1", "worker-2", "worker-3"]
    assert list(muster.requests) == ["kept"] and muster.next_number == 6


async def test_many_agents_with_large_policies_of_their_own_fit_into_a_journal() -> None:
    large = [
        Seat(f"worker-{n}", "worker", f"p{n}", seats(1)[0].isolation, {}, bytes([n]) * MAX_POLICY_BYTES)
        for n in range(4)
    ]
    data = spawned("Manager[0]", "", [*large, *seats(25_000, first=4)])
    muster = await read_muster(await written(*((EventKind.AGENTS_SPAWNED, told) for told in data)), "swarm-a")
    assert len(muster.seats) == 25_004
    assert muster.seats["worker-3"][1].pickled == large[3].pickled


class Doubtful(MemoryJournal):
    """Says of its next appends that they failed: of what was stored, and of what was not."""

    lies = 0
    fails = 0

    async def append(self, events: Sequence[Event]) -> None:
        if self.fails:
            self.fails -= 1
            raise StorageError("failed")
        await super().append(events)
        if self.lies:
            self.lies -= 1
            raise StorageError("there or not")


@pytest.mark.parametrize("fault", ["lies", "fails"])
async def test_a_swarm_goes_on_after_a_write_that_may_have_been_stored_or_not(fault: str) -> None:
    journal = Doubtful()
    stream = SwarmStream(swarm="swarm-a", journal=journal, scribe=Scribe(journal), clock=SystemClock(), seq=0)
    await stream.note((EventKind.SWARM_STARTED, {}))
    setattr(journal, fault, 1)
    with pytest.raises(StorageError):
        await stream.note((EventKind.AGENTS_LEFT, left(0, 1)), (EventKind.AGENTS_LEFT, left(1, 1)))
    await stream.note((EventKind.AGENTS_LEFT, left(2, 1)))
    numbers = [event.data["first"] for event in (await journal.read("swarm-a"))[1:]]
    assert numbers == ([0, 1, 2] if fault == "lies" else [2])


async def test_facts_are_noted_all_or_none() -> None:
    journal = MemoryJournal()
    stream = SwarmStream(swarm="swarm-a", journal=journal, scribe=Scribe(journal), clock=SystemClock(), seq=0)
    with pytest.raises(StorageError, match="the limit is"):
        await stream.note((EventKind.SWARM_STARTED, {}), (EventKind.AGENTS_SPAWNED, {"agents": "x" * 5_000_000}))
    assert await journal.read("swarm-a") == []
