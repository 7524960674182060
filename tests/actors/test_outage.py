"""A journal that is out of reach for a while, or cannot store something: in one process, without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chimera.actors import coordinator, scribe
from chimera.actors.muster import read_muster
from chimera.core.errors import StorageError, StorageUnavailable
from chimera.core.events import Event
from chimera.core.types import AgentSpec, MissionState
from chimera.storage.memory import MemoryJournal
from chimera.swarm.policy import Seat
from tests.actors.in_process import SWARM, graph, run, seats, submit
from tests.actors.test_coordinator import running


class Outage(MemoryJournal):
    """Out of reach for the next `times` appends, whose events it stores all the same if it `stores`."""

    times = 0
    stores = False

    async def append(self, events: Sequence[Event]) -> None:
        if not self.times or self.stores:
            await super().append(events)
        if self.times:
            self.times -= 1
            raise StorageUnavailable("out of reach")


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """The journal of the next coordinator."""
    journal = Outage()
    monkeypatch.setattr(coordinator, "open_journal", lambda url: journal)
    monkeypatch.setattr(scribe, "PAUSE_S", 0.001)
    return journal


async def test_an_outage_of_the_journal_delays_a_mission_and_changes_nothing(outage: Outage) -> None:
    async with running("naps_a_little") as swarm:
        for times, name in ((5, "while it is admitted"), (0, "while it runs")):
            outage.times = times
            await submit(swarm, name.replace(" ", "-"), graph(), 20.0)
            outage.times += 5
            result = await swarm.result(name.replace(" ", "-"), 20.0)
            assert result is not None and result.state is MissionState.ANSWERED
            assert outage.times == 0


async def test_a_mission_that_an_outage_ends_says_so(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scribe, "OUTAGE_S", -1.0)
    async with running("answer") as swarm:
        outage.times = 1
        result = await run(swarm)
        assert result.state is MissionState.FAILED and result.error is not None
        assert result.error["kind"] == "StorageUnavailable"
        assert "given up after" in result.explanation and "chimera missions resume m" in result.explanation


@pytest.mark.parametrize("stores", [False, True])
async def test_a_spawn_that_an_outage_ends_leaves_nobody_and_the_next_one_works(
    outage: Outage, monkeypatch: pytest.MonkeyPatch, stores: bool
) -> None:
    monkeypatch.setattr(scribe, "OUTAGE_S", -1.0)
    outage.stores = stores
    async with running("answer") as swarm:
        outage.times = 1
        with pytest.raises(StorageUnavailable):
            await swarm.spawn_agents(seats("answer", "answer"), "r")
        assert list((await read_muster(outage, SWARM)).seats) == ["worker-0"]
        ids = await swarm.spawn_agents(seats("answer", "answer"), "r")
        assert list((await read_muster(outage, SWARM)).seats) == ["worker-0", *ids]


async def test_a_spawn_too_large_for_the_journal_leaves_nobody(outage: Outage) -> None:
    async with running("answer", cells=2, cells_per_manager=1) as swarm:
        large = Seat.of(AgentSpec(policy="tests.policies:answer", options={"x": "x" * 5_000_000}))
        with pytest.raises(StorageError, match="the limit is"):
            await swarm.spawn_agents([*seats("answer", "answer"), large])
        assert list((await read_muster(outage, SWARM)).seats) == ["worker-0"]
        assert (await swarm.status()).agents == 1
        await swarm.spawn_agents(seats("answer"))
