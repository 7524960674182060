"""kill -9 in the middle of work: `bench/chaos.py` in short (killing nodes, and all hundred runs, is `make chaos`)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.chaos import Outcome, accepted_twice, judge, plan, run, think, waits_of
from chimera import AgentSpec, Settings, SwarmCoordinator
from chimera.actors.outbox import Batch
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState, Task, TaskResult
from chimera.storage.journal import open_journal
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.system.wiring import RunningSwarm

AGENTS = 24

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def two_managers(local_ray: Settings, home: Path) -> AsyncIterator[SwarmCoordinator]:
    """A swarm of two managers with a cell each."""
    settings = Settings(address=local_ray.address, cells=2, cells_per_manager=1)
    async with SwarmCoordinator(settings=settings) as swarm:
        await swarm.spawn_agents([AgentSpec(policy=think)] * AGENTS)
        yield swarm


@pytest.mark.cluster
async def test_nothing_is_lost_or_accepted_twice_whoever_dies(two_managers: SwarmCoordinator) -> None:
    for seed, kind in enumerate(("cell", "manager", "coordinator")):
        outcome = await run(two_managers, plan(seed, kind, missions=(60, 90), run_s=1.5))
        assert (outcome.lost, outcome.twice, outcome.wrong, outcome.trouble) == (0, 0, 0, []), outcome
        assert outcome.back_s is not None
        if kind == "cell":
            assert outcome.remade, "it died with work in hand"


def test_a_plan_is_its_seeds() -> None:
    assert plan(7) == plan(7)
    assert len({plan(seed).kill_at_s for seed in range(20)}) == 20
    assert {plan(seed).kind for seed in range(40)} == {"cell", "manager", "coordinator", "node"}


def event(seq: int, kind: EventKind, at_s: float = 0.0, **data: object) -> Event:
    told = {"replica": 0, **data}
    return Event.model_validate(
        {"mission_id": "m", "seq": seq, "kind": kind, "at_s": at_s, "task_id": "one", "data": told}
    )


STARTED = event(1, EventKind.TASK_STARTED, 10.0)


def accepted(seq: int, began_s: float, replica: int = 0) -> Event:
    reply = {"value": 1, "details": {"began_s": began_s}}
    return event(seq, EventKind.REPLY_ACCEPTED, began_s + 0.1, replica=replica, attempt="m/one/0/1", reply=reply)


def test_a_second_reply_of_a_replica_is_seen() -> None:
    assert accepted_twice([STARTED, accepted(2, 10.0), accepted(3, 10.0, replica=1)]) == 0
    assert accepted_twice([STARTED, accepted(2, 10.0), accepted(3, 10.5)]) == 1


def test_how_long_lost_work_waited_for_another_agent() -> None:
    lost = event(2, EventKind.ATTEMPT_FAILED, 12.0, failure="lost")
    assert waits_of([STARTED, lost, accepted(3, 12.5)], 11.0, overseer=False) == [0.5]
    assert waits_of([STARTED, accepted(2, 10.5)], 11.0, overseer=True) == [], "begun before the kill"
    assert waits_of([STARTED, accepted(2, 13.0)], 11.0, overseer=True) == [2.0]
    assert waits_of([STARTED, accepted(2, 13.0)], 11.0, overseer=False) == [], "it waited for its turn, not for a death"


async def test_the_judge_finds_what_is_lost_wrong_and_twice(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    journal = open_journal(settings.journal)
    await journal.append([STARTED, accepted(2, 10.0), accepted(3, 10.5)])
    await journal.close()
    result = TaskResult(mission_id="m", state=MissionState.ANSWERED, value=1)
    outcome = Outcome(0, "cell", 1)
    await judge(outcome, [result], {"m": 2}, 10.2, settings)
    assert (outcome.lost, outcome.wrong, outcome.twice, outcome.passed) == (1, 1, 1, False)


class Reborn:
    """A coordinator that dies while a submission is on its way to it, and is asked for results before the submission
    is made again."""

    def __init__(self) -> None:
        self.mission_id = ""
        self.collected = 0
        self.attended = asyncio.Event()
        self.submitted = asyncio.Event()

    def __getattr__(self, method: str) -> Any:
        return type("Remote", (), {"remote": getattr(type(self), f"_{method}").__get__(self)})

    async def _submit(self, session: str, submissions: Any) -> list[None]:
        self.mission_id = submissions[0].mission_id
        await self.attended.wait()
        self.submitted.set()
        return [None]

    async def _collect(self, *_: Any) -> Batch[bytes]:
        self.collected += 1
        if self.collected < 3:
            return Batch(0, (), "before" if self.collected == 1 else "after")
        self.attended.set()
        await self.submitted.wait()
        if self.collected > 3:
            await asyncio.sleep(3_600)
        result = TaskResult(mission_id=self.mission_id, state=MissionState.ANSWERED, value=1)
        return Batch(1, (result.model_dump_json().encode(),), "after")

    async def _attend(self, session: str, mission_ids: list[str]) -> list[str]:
        return mission_ids  # it knows none of them yet


async def test_what_is_being_submitted_is_not_taken_for_lost() -> None:
    connection: Any = None
    swarm = RunningSwarm(name="s", connection=connection, coordinator=Reborn(), own=False)
    graph = TaskGraph(nodes=(TaskNode(id="task", task=Task(goal="g")),), output="task")
    mission_id = await swarm.submit(graph, 60.0)
    assert (await swarm.result(mission_id)).value == 1
    assert swarm._collector is not None
    swarm._collector.cancel()


@pytest.mark.soak
@pytest.mark.timeout(4_000)
def test_a_hundred_deaths() -> None:
    command = [sys.executable, "-m", "bench.chaos", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["runs"], told["failed"]) == (0, 100, [])
