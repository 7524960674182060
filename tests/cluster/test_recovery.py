"""Processes of a real swarm are killed with SIGKILL: nothing is lost, nothing accepted twice, nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from chimera import AgentSpec, Settings, SwarmCoordinator, Task
from chimera.actors import cluster
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState
from chimera.storage.journal import open_journal
from chimera.swarm.status import SwarmStatus
from tests.actors.in_process import until
from tests.conftest import Crew

pytestmark = pytest.mark.cluster

TASKS = 200


def cell_pids(status: SwarmStatus) -> list[int]:
    return [pid for manager in status.managers for pid in manager.cells.values() if pid is not None]


def victim(status: SwarmStatus, kind: str) -> int:
    match kind:
        case "cell":
            return cell_pids(status)[0]
        case "manager":
            [manager] = status.managers
            assert manager.pid is not None
            return manager.pid
        case _:
            return status.pid


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def audit(events: list[Event]) -> None:
    """Numbered without a gap, the replica accepted once, the task decided once, the mission ended once."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = Counter(event.kind for event in events)
    assert kinds[EventKind.REPLY_ACCEPTED] == kinds[EventKind.TASK_DECIDED] == kinds[EventKind.MISSION_ENDED] == 1
    assert events[-1].kind is EventKind.MISSION_ENDED


@pytest.mark.timeout(240)
async def test_whatever_is_killed_each_task_has_its_own_answer_and_is_accepted_once(local_ray: Settings) -> None:
    settings = Settings(address=local_ray.address, cells=2)
    names: list[str] = []
    async with SwarmCoordinator(max_agents=50, settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy="tests.policies:counts_itself")] * 40)
        before = await swarm.status()
        for turn, kind in enumerate(("cell", "manager", "coordinator")):
            expected = range(turn * TASKS, (turn + 1) * TASKS)
            tasks = [Task(goal="g", inputs={"answer": n, "seconds": 0.2}, deadline_s=120.0) for n in expected]
            started = await asyncio.gather(*(swarm.start_task(task) for task in tasks))
            status = await swarm.status()
            assert status.missions.running > TASKS / 4
            os.kill(victim(status, kind), signal.SIGKILL)
            results = await asyncio.gather(*(swarm.result(name) for name in started))
            assert [result.value for result in results] == list(expected), kind
            names += started
        after = await swarm.status()
        assert {victim(before, kind) for kind in ("cell", "manager", "coordinator")}.isdisjoint(
            {after.pid, victim(after, "manager"), *cell_pids(after)}
        )
        assert (after.agents, after.busy, after.waiting, after.cells_up) == (40, 0, 0, 2)
    journal = open_journal(settings.journal)
    for name in names:
        audit(await journal.read(name))
    await journal.close()


@pytest.mark.timeout(120)
async def test_a_cancel_reaches_every_running_agent(own_crew: Crew) -> None:
    await own_crew.spawn(*["hangs"] * 48)
    task = own_crew.task(replicas=16, deadline_s=90.0, attempt_timeout_s=90.0)
    running = [await own_crew.swarm.start_task(task) for _ in range(3)]

    async def busy(count: int) -> bool:
        return (await own_crew.swarm.status()).busy == count

    await until(lambda: busy(48), 60.0)
    for mission_id in running:
        assert (await own_crew.swarm.cancel(mission_id)).state is MissionState.CANCELLED
    await until(lambda: busy(0), 60.0)


@pytest.mark.timeout(120)
async def test_what_an_agent_remembers_survives_its_cell_and_the_store(own_crew: Crew) -> None:
    [agent] = await own_crew.swarm.spawn_agents([AgentSpec(role=own_crew.role, policy="tests.policies:remembers")])
    for count in (1, 2):
        assert (await own_crew.submit(replicas=1)).value == [agent, count]
    for pid in cell_pids(await own_crew.swarm.status()):
        os.kill(pid, signal.SIGKILL)
    assert (await own_crew.submit(replicas=1, deadline_s=90.0)).value == [agent, 3]
    cluster.kill(cluster.find(f"{own_crew.swarm.name}/State"), restart=True)
    assert (await own_crew.submit(replicas=1, deadline_s=90.0)).value == [agent, 4]  # after a process has started


@pytest.mark.timeout(120)
async def test_a_swarm_whose_head_is_gone_leaves_no_process(local_ray: Settings) -> None:
    """Also not the cell that Ray starts again after everyone who knew it has ended."""
    settings = Settings(address=local_ray.address, cells=2, orphan_s=3.0)
    async with SwarmCoordinator(max_agents=50, settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy="tests.policies:remembers")] * 4)
        await swarm.submit_task(Task(goal="g"))
        status = await swarm.status()
        ours = [name for name in cluster.names() if name.startswith(swarm.name)]
        assert len(ours) == 5, "coordinator, manager, two cells, the agents' memory"
        cluster.kill(cluster.find(f"{swarm.name}/Coordinator"))
        os.kill(cell_pids(status)[0], signal.SIGKILL)
        [manager] = status.managers
        assert manager.pid is not None
        os.kill(manager.pid, signal.SIGKILL)

        async def nobody_left() -> bool:
            names = await asyncio.to_thread(cluster.names)
            return not any(name.startswith(swarm.name) for name in names)

        await until(nobody_left, 60.0)
        pids = [manager.pid, *cell_pids(status)]

        await until(lambda: not any(lives(pid) for pid in pids), 60.0)
