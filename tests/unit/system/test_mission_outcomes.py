"""What a task cost and what a mission earned, from the ledger and the journal."""

from __future__ import annotations

from pathlib import Path

from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal
from chimera.system.mission_outcomes import read_with_outcomes, tasks_done
from chimera.treasury.types import NANO
from tests.ledger_house import House
from tests.ledgers_sqlite import SqliteBench


def event(mission: str, seq: int, kind: EventKind) -> Event:
    return Event(mission_id=mission, seq=seq, at_s=1.0, kind=kind, data={}, swarm="s")


async def test_costs_of_tasks_and_what_a_mission_earned(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path / "ledger.db")
    house = await House(bench).begin()
    journal = open_journal(f"sqlite:///{tmp_path}/journal.db")
    kinds = [EventKind.MISSION_ADMITTED, *[EventKind.TASK_DECIDED] * 4, EventKind.MISSION_ENDED]
    await journal.append([event("m1", n, kind) for n, kind in enumerate(kinds, 1)])
    try:
        await house.pay(2 * NANO, mission="m1")
        await house.pay(5 * NANO, mission="m1", debit="bank", credit="cash")
        await house.pay(NANO, mission="m2")
        found = await read_with_outcomes(house.app, journal, month="2026-09", at=bench.at)
        costs = {each.mission: each for each in found.missions}
        assert (costs["m1"].tasks_done, costs["m1"].cost_per_task) == (4, NANO // 2)
        assert (costs["m1"].value, costs["m1"].roi) == (5 * NANO, 1.5)
        assert (costs["m2"].tasks_done, costs["m2"].roi) == (None, None)
        assert await tasks_done(journal, "nobody-knows") == 0
    finally:
        await journal.close()
        await bench.close()
