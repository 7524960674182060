"""A swarm's agents, written to a journal and read back."""

from __future__ import annotations

from chimera.actors.muster import left, read_muster, spawned
from chimera.core.events import Event, EventKind
from chimera.core.types import AgentSpec
from chimera.storage.memory import MemoryJournal
from chimera.swarm.policy import MAX_POLICY_BYTES, Seat


async def written(*events: tuple[EventKind, dict[str, object]]) -> MemoryJournal:
    journal = MemoryJournal()
    for seq, (kind, data) in enumerate(events, start=1):
        event = Event(mission_id="swarm-a", seq=seq, kind=kind, at_s=1.0, data=data)  # type: ignore[arg-type]
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
