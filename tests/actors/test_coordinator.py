"""The coordinator and its manager as plain objects: the whole tree in one process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chimera.actors.coordinator import Coordinator
from chimera.core.errors import GraphError, InputError, NoAgents, Overloaded, PolicyError, StorageError
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Isolation, MissionState, Task, TaskResult
from chimera.storage.memory import MemoryJournal
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.policy import Seat
from tests.actors.in_process import coordinator


@asynccontextmanager
async def running(*policies: str, **settings: Any) -> AsyncIterator[Coordinator]:
    swarm = coordinator(**settings)
    await swarm.start()
    try:
        await swarm.spawn_agents([Seat.of(AgentSpec(policy=f"tests.policies:{policy}")) for policy in policies])
        yield swarm
    finally:
        await swarm.close()


def graph(**task: Any) -> TaskGraph:
    return TaskGraph(nodes=(TaskNode(id="t", task=Task(**{"goal": "g", **task})),), output="t")


async def run(swarm: Coordinator, mission_id: str = "m", deadline_s: float = 20.0, **task: Any) -> TaskResult:
    await swarm.submit(mission_id, graph(**task), deadline_s)
    result = await swarm.result(mission_id, 20.0)
    assert result is not None
    return result


async def test_a_mission_goes_down_the_tree_and_comes_back() -> None:
    async with running("answer", "answer", "answer") as swarm:
        result = await run(swarm, replicas=3, early_stop=False)
        assert (result.state, result.value) == (MissionState.ANSWERED, 42)
        assert (await swarm.status())["busy"] == 0


async def test_many_missions_run_at_once() -> None:
    async with running(*["answer"] * 10) as swarm:
        results = await asyncio.gather(*(run(swarm, f"m{i}", inputs={"answer": i}) for i in range(200)))
        assert [result.value for result in results] == list(range(200))


async def test_a_second_submit_of_the_same_mission_changes_nothing() -> None:
    async with running("answer") as swarm:
        first = await run(swarm)
        assert await run(swarm, inputs={"answer": "other"}) is first


async def test_more_missions_than_the_limit_are_refused_with_a_time_to_come_back() -> None:
    async with running("hangs", max_missions=1) as swarm:
        await swarm.submit("first", graph(), 20.0)
        with pytest.raises(Overloaded) as refused:
            await swarm.submit("second", graph(), 20.0)
        assert refused.value.retry_after_s > 0


async def test_a_role_that_nobody_has_is_refused_before_anything_starts() -> None:
    async with running("answer") as swarm:
        with pytest.raises(NoAgents, match="role 'poet'"):
            await swarm.submit("m", graph(role="poet"), 5.0)
        with pytest.raises(InputError, match="no mission 'm'"):
            await swarm.result("m", 0.0)


async def test_agents_are_spawned_all_or_none_of_a_policy_that_is_not_there() -> None:
    async with running() as swarm:
        with pytest.raises(PolicyError, match="no_such"):
            await swarm.spawn_agents([Seat.of(AgentSpec(policy="tests.policies:no_such"))])
        with pytest.raises(NoAgents):
            await swarm.submit("m", graph(), 5.0)


async def test_one_bad_policy_among_good_ones_leaves_none_of_them_and_ids_are_never_used_again() -> None:
    async with running("answer") as swarm:
        mixed = [Seat.of(AgentSpec(policy=f"tests.policies:{name}")) for name in ("answer", "no_such", "answer")]
        with pytest.raises(PolicyError):
            await swarm.spawn_agents(mixed)
        assert (await swarm.status())["agents"] == 1
        first = await swarm.spawn_agents([mixed[0]])
        second = await swarm.spawn_agents([mixed[0]])
        assert len({"worker-0", *first, *second}) == 3
        result = await run(swarm, replicas=3, early_stop=False)
        assert len({vote.agent for vote in result.replies}) == 3


async def test_processes_of_their_own_have_a_limit() -> None:
    async with running(max_dedicated=1) as swarm:
        alone = Seat.of(AgentSpec(policy="tests.policies:answer", isolation=Isolation.DEDICATED))
        await swarm.spawn_agents([alone])
        with pytest.raises(Overloaded, match="CHIMERA_MAX_DEDICATED"):
            await swarm.spawn_agents([alone])


async def test_policies_of_one_name_with_different_options_are_different() -> None:
    async with running() as swarm:
        specs = [AgentSpec(policy="tests.policies:Counting", options={"start": start}) for start in (1, 2)]
        await swarm.spawn_agents([Seat.of(spec) for spec in specs])
        result = await run(swarm, replicas=2, different_policies=True, early_stop=False, consensus="weighted")
        assert sorted(str(vote.reply.value) for vote in result.replies if vote.reply) == ["2", "3"]


async def test_a_mission_too_large_for_the_journal_is_refused() -> None:
    async with running("answer") as swarm:
        nodes = tuple(TaskNode(id=f"t{n}", task=Task(goal="g" * 1_000)) for n in range(4_000))
        with pytest.raises(GraphError, match="bytes as JSON") as refused:
            await swarm.submit("m", TaskGraph(nodes=nodes, output="t0"), 5.0)
        assert refused.value.reason == "too_many"


async def test_events_are_the_journal() -> None:
    async with running("answer") as swarm:
        await run(swarm)
        events = await swarm.events("m", 0, 1.0)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert await swarm.events("m", len(events), 0.0) == []
        restored = TaskGraph.model_validate(events[0].data["graph"])
        assert restored == graph(), "what a restart needs is in the journal"


class FullDisk(MemoryJournal):
    """A journal whose disk is full after `left` appends: a fault that cannot be made otherwise."""

    left = 1

    async def append(self, events: Sequence[Event]) -> None:
        if self.left == 0:
            raise StorageError("no space left on the device")
        self.left -= 1
        await super().append(events)


async def test_nothing_takes_effect_that_is_not_in_the_journal() -> None:
    async with running("answer") as swarm:
        swarm._journal = FullDisk()
        result = await run(swarm)
        assert result.state is MissionState.FAILED and result.value is None
        assert result.error == {"kind": "StorageError", "message": "no space left on the device", "reason": ""}


async def test_a_mission_that_cannot_be_journalled_is_never_dispatched() -> None:
    async with running("answer") as swarm:
        journal = FullDisk()
        journal.left = 0
        swarm._journal = journal
        result = await run(swarm)
        assert (result.state, result.attempts) == (MissionState.FAILED, 0)
        assert (await swarm.status())["missions_running"] == 0
