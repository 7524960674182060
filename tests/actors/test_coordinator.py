"""The coordinator and its manager as plain objects: the whole tree in one process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chimera.actors import sessions
from chimera.actors.admission import most_missions
from chimera.actors.coordinator import Coordinator
from chimera.actors.sessions import Submission
from chimera.core.config import Settings
from chimera.core.errors import (
    GraphError,
    InputError,
    NoAgents,
    Overloaded,
    PolicyError,
    StorageError,
    SwarmError,
)
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Isolation, MissionState, Task, TaskResult
from chimera.storage.journal import MAX_READ
from chimera.storage.memory import MemoryJournal
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.policy import Seat
from tests.actors.in_process import Processes, coordinator_with, graph, run, seats, submit, until


@asynccontextmanager
async def running(*policies: str, cells: int = 2, **settings: Any) -> AsyncIterator[Coordinator]:
    swarm = coordinator_with(Processes(), cells=cells, **settings)
    await swarm.start()
    try:
        await swarm.spawn_agents(seats(*policies))
        yield swarm
    finally:
        await swarm.close()


async def test_a_mission_goes_down_the_tree_and_comes_back() -> None:
    async with running("answer", "answer", "answer") as swarm:
        result = await run(swarm, replicas=3, early_stop=False)
        assert (result.state, result.value) == (MissionState.ANSWERED, 42)
        assert (await swarm.status()).busy == 0


async def test_many_missions_run_at_once() -> None:
    async with running(*["answer"] * 10) as swarm:
        results = await asyncio.gather(*(run(swarm, f"m{i}", inputs={"answer": i}) for i in range(200)))
        assert [result.value for result in results] == list(range(200))


async def test_a_second_submit_of_the_same_mission_changes_nothing() -> None:
    async with running("answer") as swarm:
        first = await run(swarm)
        assert await run(swarm, inputs={"answer": "other"}) == first


async def test_more_missions_than_the_limit_are_refused_with_a_time_to_come_back() -> None:
    async with running("hangs", max_missions=1) as swarm:
        await submit(swarm, "first", graph(), 20.0)
        with pytest.raises(Overloaded) as refused:
            await submit(swarm, "second", graph(), 20.0)
        assert refused.value.retry_after_s > 0


async def test_a_role_that_nobody_has_is_refused_before_anything_starts() -> None:
    async with running("answer") as swarm:
        with pytest.raises(NoAgents, match="role 'poet'"):
            await submit(swarm, "m", graph(role="poet"), 5.0)
        with pytest.raises(InputError, match="no mission 'm'"):
            await swarm.result("m", 0.0)


async def test_agents_are_spawned_all_or_none_of_a_policy_that_is_not_there() -> None:
    async with running() as swarm:
        with pytest.raises(PolicyError, match="no_such"):
            await swarm.spawn_agents([Seat.of(AgentSpec(policy="tests.policies:no_such"))])
        with pytest.raises(NoAgents):
            await submit(swarm, "m", graph(), 5.0)


async def test_one_bad_policy_among_good_ones_leaves_none_of_them_and_ids_are_never_used_again() -> None:
    async with running("answer") as swarm:
        mixed = [Seat.of(AgentSpec(policy=f"tests.policies:{name}")) for name in ("answer", "no_such", "answer")]
        with pytest.raises(PolicyError):
            await swarm.spawn_agents(mixed)
        assert (await swarm.status()).agents == 1
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
            await submit(swarm, "m", TaskGraph(nodes=nodes, output="t0"), 5.0)
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
        swarm._scribe._journal = FullDisk()
        result = await run(swarm)
        assert result.state is MissionState.FAILED and result.value is None
        assert result.error == {"kind": "StorageError", "message": "no space left on the device", "reason": ""}


async def test_a_mission_that_cannot_be_journalled_is_never_dispatched() -> None:
    async with running("answer") as swarm:
        journal = FullDisk()
        journal.left = 0
        swarm._scribe._journal = journal
        result = await run(swarm)
        assert (result.state, result.attempts) == (MissionState.FAILED, 0)
        assert (await swarm.status()).missions.running == 0


async def test_two_who_close_a_swarm_at_once_both_see_it_closed() -> None:
    processes = Processes()
    swarm = coordinator_with(processes, cells=2, cells_per_manager=1)
    await swarm.start()
    await swarm.spawn_agents(seats("answer", "answer"))
    closing = [asyncio.create_task(swarm.close()) for _ in range(3)]
    await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
    assert processes.living == set()
    assert await asyncio.gather(*closing, swarm.close()) == [None] * 4


async def test_priorities_are_admitted_up_to_limits_of_their_own() -> None:
    async with running("hangs", max_missions=10) as swarm:
        admitted = []
        for turn, priority in enumerate((0, 4, 9, 4, 0)):
            missions = [Submission.of(f"m{turn}-{n}", graph(priority=priority), 20.0) for n in range(20)]
            refusals = [refusal for refusal in await swarm.submit("tests", missions) if refusal]
            admitted.append(20 - len(refusals))
            for refusal in refusals:
                assert isinstance(refusal, Overloaded) and refusal.retry_after_s > 0
                assert f"the limit for priority {priority} is" in str(refusal)
        assert admitted == [6, 4, 5, 0, 0]
        status = await swarm.status()
        assert (status.missions.running, status.missions.refused) == (15, 85)


async def test_a_session_is_told_of_its_own_missions_until_it_acknowledges() -> None:
    async with running("answer") as swarm:
        first = [Submission.of(f"a{n}", graph(inputs={"answer": n}), 20.0) for n in range(3)]
        assert await swarm.submit("first", first) == [None] * 3
        assert await swarm.submit("second", [Submission.of("b", graph(), 20.0)]) == [None]
        told: dict[str, Any] = {}
        after = 0
        while len(told) < 3:
            batch = await swarm.collect("first", 0, after, 5.0)
            told |= {result.mission_id: result.value for result in map(TaskResult.model_validate_json, batch.reports)}
            after = batch.last
        assert told == {"a0": 0, "a1": 1, "a2": 2}
        assert len((await swarm.collect("first", 0, 0, 0.0)).reports) == 3, "not acknowledged yet"
        assert (await swarm.collect("first", after, after, 0.0)).reports == ()
        assert (await swarm.collect("first", 0, 0, 0.0)).reports == ()


async def test_of_results_that_nobody_collects_the_oldest_are_let_go_and_can_still_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MAX_HELD_BYTES", 2_000)
    async with running("answer") as swarm:
        names = [f"m{n}" for n in range(20)]
        for name in names:
            await swarm.submit("idle", [Submission.of(name, graph(), 20.0)])
            assert await swarm.result(name, 10.0)
        batch = await swarm.collect("idle", 0, 0, 0.0)
        assert 0 < sum(map(len, batch.reports)) <= 2_000
        assert batch.last == 20
        kept = [TaskResult.model_validate_json(told).mission_id for told in batch.reports]
        assert kept == names[20 - len(kept) :]
        assert await swarm.attend("idle", names[:1]) == []
        [told] = (await swarm.collect("idle", 20, 20, 0.0)).reports
        assert TaskResult.model_validate_json(told).mission_id == names[0]
        assert swarm._sessions._sessions["idle"].held_bytes == len(told)


async def test_results_are_kept_up_to_a_number_and_a_size_and_older_ones_are_read_from_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "MAX_KEPT_BYTES", 20_000)
    monkeypatch.setattr(sessions, "MAX_KEPT", 10)
    async with running("answer") as swarm:
        small = [await run(swarm, f"s{n}", inputs={"answer": n}) for n in range(20)]
        kept = swarm._missions._results
        assert list(kept._packed) == [f"s{n}" for n in range(10, 20)]
        large = [await run(swarm, f"l{n}", inputs={"answer": f"{n}" * 3_000}) for n in range(10)]
        assert 0 < sum(map(len, kept._packed.values())) == kept._bytes <= 20_000
        assert swarm._missions._missions == {}, "nothing else of them is kept"
        for result in (*small, *large):
            assert await swarm.result(result.mission_id, 0.0) == result
        enormous = await run(swarm, "e", inputs={"answer": "x" * 30_000})
        assert await swarm.result("e", 0.0) == enormous


async def test_a_session_may_attend_missions_of_others_and_is_told_which_are_unknown() -> None:
    async with running("answer", "hangs") as swarm:
        await run(swarm, "ended", attempt_timeout_s=0.3)
        await swarm.submit("other", [Submission.of("open", graph(attempt_timeout_s=0.3), 20.0)])
        assert await swarm.attend("mine", ["ended", "open", "nothing"]) == ["nothing"]
        [told] = (await swarm.collect("mine", 0, 0, 5.0)).reports
        assert TaskResult.model_validate_json(told).mission_id == "ended"
        [later] = (await swarm.collect("mine", 1, 1, 5.0)).reports
        assert TaskResult.model_validate_json(later).mission_id == "open"


async def test_refusals_come_one_by_one_and_the_rest_of_the_call_is_admitted() -> None:
    async with running("answer") as swarm:
        missions = [Submission.of("a", graph(), 20.0), Submission.of("b", graph(role="poet"), 20.0)]
        answers = await swarm.submit("tests", [*missions, Submission.of("c", graph(), 20.0)])
        assert [type(answer) for answer in answers] == [type(None), NoAgents, type(None)]
        assert (await swarm.result("c", 5.0)) is not None


async def test_a_fault_in_one_submission_refuses_that_one_alone() -> None:
    async with running("answer") as swarm:
        broken = Submission("broken", None, 20.0, 4)  # type: ignore[arg-type]
        missions = [Submission.of("a", graph(), 20.0), broken, Submission.of("c", graph(), 20.0)]
        answers = await swarm.submit("tests", missions)
        assert [type(answer) for answer in answers] == [type(None), SwarmError, type(None)]
        assert "broken" in str(answers[1]) and "TypeError" in str(answers[1])
        assert (await swarm.result("c", 5.0)) is not None


async def test_a_mission_that_ended_and_cannot_be_read_any_more_is_refused() -> None:
    async with running("answer") as swarm:
        swarm._ended = {"pruned"}
        missions = [Submission.of("a", graph(), 20.0), Submission.of("pruned", graph(), 20.0)]
        [admitted, refused] = await swarm.submit("tests", missions)
        assert admitted is None and isinstance(refused, SwarmError) and "pruned" in str(refused)


def test_all_missions_that_may_run_at_once_are_found_after_a_restart() -> None:
    [most] = [bound.le for bound in Settings.model_fields["max_missions"].metadata if hasattr(bound, "le")]
    assert most_missions(most, 9) <= MAX_READ


async def test_a_cancelled_mission_ends_with_what_there_is_and_its_agents_are_free() -> None:
    async with running(*["hangs"] * 300, "answer") as swarm:
        nodes = [TaskNode(id=f"t{n}", task=Task(goal="g", deadline_s=60.0, attempt_timeout_s=60.0)) for n in range(300)]
        last = TaskNode(id="last", task=Task(goal="g"), after=tuple(node.id for node in nodes))
        await submit(swarm, "m", TaskGraph(nodes=(*nodes, last), output="last"), 60.0)

        async def are_busy() -> bool:
            return (await swarm.status()).busy >= 299

        async def are_free() -> bool:
            return (await swarm.status()).busy == 0

        await until(are_busy)
        result = await swarm.cancel("m", "enough of it")
        assert result is not None and result.state is MissionState.CANCELLED and "enough of it" in result.explanation
        assert await swarm.cancel("m") == result, "one that has ended stays as it is"
        await until(are_free)
        with pytest.raises(InputError, match="no mission 'other'"):
            await swarm.cancel("other")


async def test_many_managers_share_one_vote() -> None:
    async with running(*["answer"] * 8, cells=4, cells_per_manager=1) as swarm:
        status = await swarm.status()
        assert [(manager.name, manager.agents, len(manager.cells)) for manager in status.managers] == [
            (f"Manager[{n}]", 2, 1) for n in range(4)
        ]
        result = await run(swarm, replicas=8, early_stop=False)
        assert len({vote.agent for vote in result.replies if vote.reply}) == 8
        results = await asyncio.gather(*(run(swarm, f"m{n}", inputs={"answer": n}) for n in range(100)))
        assert [result.value for result in results] == list(range(100))


async def test_different_policies_are_found_over_all_managers() -> None:
    async with running("answer", "unsure", "naps_a_little", cells=3, cells_per_manager=1) as swarm:
        result = await run(swarm, replicas=3, different_policies=True, early_stop=False)
        assert sorted(vote.policy for vote in result.replies) == ["answer", "naps_a_little", "unsure"]


async def test_what_fails_at_one_manager_is_tried_at_another() -> None:
    async with running("raises", "raises", "answer", cells=3, cells_per_manager=1) as swarm:
        results = await asyncio.gather(*(run(swarm, f"m{n}") for n in range(20)))
        assert {result.value for result in results} == {42}
