"""Processes of a swarm die at any moment: nothing is lost, nothing is accepted twice. In one process, without Ray."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chimera.actors.outbox import Batch
from chimera.actors.sessions import Results, Submission
from chimera.core.errors import ChimeraError, InputError, PolicyError, StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Isolation, MissionState, Spend, TaskResult
from chimera.storage.journal import open_journal
from chimera.storage.sqlite import SqliteJournal
from chimera.swarm.instructions import Cancelled
from tests.actors.in_process import SWARM, Handle, Processes, coordinator_with, graph, seats, until
from tests.policies import DONE


class Swarm:
    """A swarm whose parts can be killed."""

    def __init__(self, journal: str, *, cells: int = 2, **settings: Any) -> None:
        self.journal = journal
        self.processes = Processes()
        self.handle = self.processes.coordinator(cells=cells, journal_url=journal, stall_s=2.0, **settings)

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.handle, method).remote(*arguments)

    async def spawn(self, *policies: str, request: str = "", **spec: Any) -> list[str]:
        ids: list[str] = await self.call("spawn_agents", seats(*policies, **spec), request)
        return ids

    async def submit(self, mission_id: str, **task: Any) -> ChimeraError | None:
        [answer] = await self.call("submit", "tests", [Submission.of(mission_id, graph(**task), 30.0)])
        refusal: ChimeraError | None = answer
        return refusal

    async def result(self, mission_id: str) -> TaskResult:
        found: TaskResult | None = await self.call("result", mission_id, 20.0)
        assert found is not None, f"{mission_id} never ended"
        return found

    def manager(self, number: int = 0) -> Handle:
        return self.processes.by_name[f"{SWARM}/Manager[{number}]"]

    async def crash_coordinator(self) -> None:
        """kill -9 of the coordinator: the next call finds a new one."""
        journal = self.handle.actor._journal
        self.processes.crash("Coordinator")
        if journal is not None:
            await journal.close()  # what was on its way to the disk is there, as it may be after a kill

    async def close(self) -> None:
        await self.call("close")
        self.processes.kill(self.handle)


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    DONE.clear()
    made = Swarm(f"sqlite:///{tmp_path / 'journal.db'}")
    yield made
    await made.close()


async def events_of(journal: str, mission_ids: list[str]) -> dict[str, list[Event]]:
    opened = open_journal(journal)
    try:
        return {mission_id: await opened.read(mission_id) for mission_id in mission_ids}
    finally:
        await opened.close()


def named_in(batch: Batch[bytes]) -> list[str]:
    """The missions whose results these are."""
    return [TaskResult.model_validate_json(packed).mission_id for packed in batch.reports]


def audit(events: list[Event]) -> None:
    """Numbered without a gap, each replica accepted once, each task decided once, the mission ended once."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    accepted = Counter((e.task_id, e.data["replica"]) for e in events if e.kind is EventKind.REPLY_ACCEPTED)
    decided = Counter(event.task_id for event in events if event.kind is EventKind.TASK_DECIDED)
    assert max(accepted.values()) == max(decided.values()) == 1
    assert [event.kind for event in events].count(EventKind.MISSION_ENDED) == 1
    assert events[-1].kind is EventKind.MISSION_ENDED


async def test_a_coordinator_that_died_goes_on_and_what_living_agents_did_meanwhile_counts(swarm: Swarm) -> None:
    await swarm.spawn(*["counts_itself"] * 30)
    names = [f"m{n}" for n in range(60)]
    for n, name in enumerate(names):
        assert await swarm.submit(name, inputs={"answer": n, "seconds": 0.1}, attempt_timeout_s=20.0) is None
    await until(lambda: len(DONE) >= 10)
    await swarm.crash_coordinator()
    await until(lambda: len(swarm.manager().actor._outbox) > 5)
    results = await asyncio.gather(*(swarm.result(name) for name in names))
    assert [result.value for result in results] == list(range(60))
    assert dict(DONE) == {f"{name}/t/0": 1 for name in names}, "nothing is done twice: the managers have it"
    for events in (await events_of(swarm.journal, names)).values():
        audit(events)


class SlowDisk:
    """A journal whose appends take a while."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    async def append(self, events: Any) -> None:
        await asyncio.sleep(0.1)
        await self._journal.append(events)


async def test_what_a_client_was_told_is_admitted_is_never_lost(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    scribe = swarm.handle.actor._scribe
    scribe._journal = SlowDisk(scribe._journal)
    assert await swarm.submit("m") is None
    await swarm.crash_coordinator()
    assert (await swarm.result("m")).value == 42


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_dies_each_mission_has_its_answer_and_each_replica_is_accepted_once(
    swarm: Swarm, seed: int
) -> None:
    rng = random.Random(seed)
    await swarm.spawn(*["counts_itself"] * 20)
    names = [f"m{n}" for n in range(80)]
    for n, name in enumerate(names):
        await swarm.submit(name, inputs={"answer": n, "seconds": 0.02}, replicas=2, early_stop=False, max_attempts=10)
    for _ in range(5):
        await asyncio.sleep(rng.uniform(0.0, 0.06))
        match rng.choice(["Coordinator", "Manager[0]", "Cell[0]", "all"]):
            case "Coordinator":
                await swarm.crash_coordinator()
            case "all":
                for name in ("Manager[0]", "Cell[0]", "Cell[1]"):
                    swarm.processes.crash(name)
                await swarm.crash_coordinator()
            case name:
                swarm.processes.crash(name)
    results = await asyncio.gather(*(swarm.result(name) for name in names))
    assert [result.value for result in results] == list(range(80))
    for events in (await events_of(swarm.journal, names)).values():
        audit(events)
    status = await swarm.call("status")
    assert (status.agents, status.busy, status.waiting) == (20, 0, 0)


async def test_managers_that_ended_for_good_are_replaced(swarm: Swarm) -> None:
    await swarm.spawn(*["counts_itself"] * 4)
    await swarm.submit("m", inputs={"seconds": 0.3})
    await until(lambda: DONE)
    swarm.processes.end(f"{SWARM}/Manager[0]")
    assert (await swarm.result("m")).value == 42


async def test_a_spawn_that_is_asked_for_again_is_answered_as_before(swarm: Swarm) -> None:
    ids = await swarm.spawn("answer", "answer", request="r1")
    assert await swarm.spawn("answer", "answer", request="r1") == ids
    await swarm.crash_coordinator()
    assert await swarm.spawn("answer", "answer", request="r1") == ids
    more = await swarm.spawn("answer", request="r2")
    assert set(more).isdisjoint(ids) and (await swarm.call("status")).agents == 3


@pytest.mark.parametrize("policy", ["answer", "no_such"])
async def test_a_coordinator_that_dies_while_it_spawns_has_all_of_them_or_none(swarm: Swarm, policy: str) -> None:
    await swarm.spawn("answer")
    held = swarm.manager().slow["spawn"] = asyncio.Event()
    spawning = asyncio.create_task(swarm.spawn(policy, policy, request="r"))
    await until(swarm.handle.actor._spawning.locked)
    await asyncio.sleep(0.1)
    await swarm.crash_coordinator()
    with pytest.raises(Exception, match="died"):
        await spawning
    held.set()
    if policy == "answer":
        assert len(await swarm.spawn(policy, policy, request="r")) == 2
    else:
        with pytest.raises(PolicyError, match="no_such"):
            await swarm.spawn(policy, policy, request="r")
    status = await swarm.call("status")
    assert status.agents == (3 if policy == "answer" else 1)
    assert swarm.handle.actor._crew.router.agents_of("Manager[0]") == status.agents


async def test_agents_that_were_refused_are_not_remembered(swarm: Swarm) -> None:
    with pytest.raises(PolicyError):
        await swarm.spawn("answer", "no_such", request="r")
    await swarm.crash_coordinator()
    assert (await swarm.call("status")).agents == 0
    with pytest.raises(PolicyError):
        await swarm.spawn("answer", "no_such", request="r")


async def test_a_mission_that_is_submitted_again_to_a_coordinator_that_came_back_runs_once(swarm: Swarm) -> None:
    """A client asks again when its coordinator dies, and cannot know whether it had been heard."""
    await swarm.spawn("counts_itself")
    await swarm.submit("ended")
    assert (await swarm.result("ended")).value == 42
    await swarm.submit("open", inputs={"seconds": 0.3})
    await until(lambda: "open/t/0" in DONE)
    await swarm.crash_coordinator()
    assert await swarm.submit("ended") is None
    assert await swarm.submit("open", inputs={"seconds": 0.3}) is None
    told: list[TaskResult] = []
    while len(told) < 2:
        batch = await swarm.call("collect", "tests", len(told), len(told), 5.0)
        told += map(TaskResult.model_validate_json, batch.reports)
    assert {result.mission_id: (result.state, result.value) for result in told} == {
        "ended": (MissionState.ANSWERED, 42),
        "open": (MissionState.ANSWERED, 42),
    }
    assert DONE == {"ended/t/0": 1, "open/t/0": 1}


async def test_a_mission_that_is_submitted_again_long_after_it_ended_is_answered_from_the_journal(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    await swarm.submit("m", inputs={"answer": 1})
    await swarm.result("m")
    swarm.handle.actor._missions._results = Results()  # as after many others
    await swarm.submit("m", inputs={"answer": 2})
    told: list[TaskResult] = []
    while len(told) < 2:
        batch = await swarm.call("collect", "tests", 0, len(told), 5.0)
        told += map(TaskResult.model_validate_json, batch.reports)
    assert [(result.state, result.value) for result in told] == [(MissionState.ANSWERED, 1)] * 2
    assert dict(DONE) == {"m/t/0": 1}


async def test_a_session_attends_what_it_waited_for_before(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    await swarm.submit("ended")
    await swarm.result("ended")
    await swarm.submit("open", inputs={"seconds": 0.3})
    before = (await swarm.call("collect", "tests", 0, 0, 1.0)).origin
    await swarm.crash_coordinator()
    assert await swarm.call("attend", "tests", ["ended", "open", "nothing"]) == ["nothing"]
    batch = await swarm.call("collect", "tests", 0, 0, 5.0)
    assert named_in(batch) == ["ended"] and batch.origin != before
    batch = await swarm.call("collect", "tests", 1, 1, 5.0)
    assert named_in(batch) == ["open"]


async def test_a_client_learns_at_once_that_its_coordinator_is_a_new_one(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    await swarm.submit("m")
    first = await swarm.call("collect", "tests", 0, 0, 30.0, "")
    assert first.origin
    await swarm.crash_coordinator()
    await swarm.submit("other", inputs={"seconds": 0.0})
    await swarm.result("other")
    second = await asyncio.wait_for(swarm.call("collect", "tests", 1, 1, 30.0, first.origin), 10.0)
    assert second.origin != first.origin and named_in(second) == ["other"], "an ack of the old one forgets nothing"


async def test_a_mission_that_was_cancelled_stays_so(swarm: Swarm) -> None:
    await swarm.spawn("hangs")
    await swarm.submit("m")
    await swarm.call("cancel", "m", "enough")
    await swarm.crash_coordinator()
    result = await swarm.result("m")
    assert result.state is MissionState.CANCELLED and "enough" in result.explanation
    with pytest.raises(InputError, match="no mission 'other'"):
        await swarm.call("result", "other", 0.0)


async def test_a_deadline_goes_on_while_nobody_looks(swarm: Swarm) -> None:
    await swarm.spawn("hangs")
    await swarm.submit("m", deadline_s=0.5, attempt_timeout_s=30.0)
    await swarm.crash_coordinator()
    await asyncio.sleep(0.6)
    result = await swarm.result("m")
    assert result.state is not MissionState.RUNNING and result.value is None
    [events] = (await events_of(swarm.journal, ["m"])).values()
    assert [event.kind for event in events][-2:] == [EventKind.TASK_DECIDED, EventKind.MISSION_ENDED]


async def test_dedicated_agents_come_back_too(swarm: Swarm) -> None:
    [alone] = await swarm.spawn("counts_itself", isolation=Isolation.DEDICATED)
    for name in ("Manager[0]", f"Agent[{alone}]"):
        swarm.processes.crash(name)
    await swarm.crash_coordinator()
    await swarm.submit("m")
    assert (await swarm.result("m")).value == 42


async def test_another_swarm_takes_over_what_one_left(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    await swarm.submit("m", inputs={"seconds": 20.0}, attempt_timeout_s=20.0)
    await swarm.submit("ended", inputs={"answer": 1})
    await until(lambda: DONE)
    await swarm.crash_coordinator()
    other = coordinator_with(swarm.processes, swarm="swarm-other", journal_url=swarm.journal)
    try:
        with pytest.raises(InputError, match="chimera missions resume m"):
            await other.result("m", 0.0)
        await other.resume("m")
        await until(lambda: DONE["m/t/0"] == 2)
        assert (await other.status()).agents == 1, "the agents that the mission needs came with it"
        result = await other.cancel("m")
        assert result is not None and result.state is MissionState.CANCELLED
        with pytest.raises(InputError, match="no mission 'nothing'"):
            await other.resume("nothing")
    finally:
        await other.close()
    [events] = (await events_of(swarm.journal, ["m"])).values()
    assert {event.swarm for event in events} == {SWARM, "swarm-other"}
    assert EventKind.MISSION_RESUMED in {event.kind for event in events}


async def test_two_who_take_a_mission_over_at_once_are_one(swarm: Swarm) -> None:
    await swarm.spawn("counts_itself")
    await swarm.submit("m", inputs={"seconds": 0.3}, attempt_timeout_s=20.0)
    await until(lambda: DONE)
    await swarm.crash_coordinator()
    other = coordinator_with(swarm.processes, swarm="swarm-other", journal_url=swarm.journal)
    try:
        assert await asyncio.gather(*(other.resume("m") for _ in range(3))) == [None] * 3
        result = await other.result("m", 20.0)
        assert result is not None and (result.state, result.value) == (MissionState.ANSWERED, 42)
        assert await other.resume("m") == result
    finally:
        await other.close()
    [events] = (await events_of(swarm.journal, ["m"])).values()
    audit(events)
    assert [event.kind for event in events].count(EventKind.MISSION_RESUMED) == 1


async def test_a_start_that_fails_half_way_leaves_nothing_that_acts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DONE.clear()
    processes, url = Processes(), f"sqlite:///{tmp_path / 'journal.db'}"
    first = coordinator_with(processes, journal_url=url)
    await first.spawn_agents(seats("counts_itself"))
    submission = Submission.of("m", graph(inputs={"seconds": 0.5}, attempt_timeout_s=20.0), 30.0)
    await first.submit("tests", [submission])
    await until(lambda: DONE)
    await first.close()

    second = coordinator_with(processes, journal_url=url)
    listed = SqliteJournal.missions

    async def fails(self: SqliteJournal, limit: int = 100, *, swarm: str | None = None, running: bool = False) -> Any:
        if not running:
            raise StorageError("a disk that fails")
        return await listed(self, limit, swarm=swarm, running=running)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteJournal, "missions", fails)
        with pytest.raises(StorageError, match="a disk that fails"):
            await second.start()
    left, crew = second._missions, second._crew
    assert processes.living == set(), "its managers have ended"
    assert all(mission.alarm is None or mission.alarm.cancelled() for mission in left._missions.values())
    for mission_id in list(left._missions):
        left.tell(mission_id, Cancelled("of a start that failed"))
    try:
        await second.start()
        assert second._missions is not left and second._crew is not crew
        result = await second.result("m", 20.0)
        assert result is not None and result.value == 42
        assert sum(second._tally.snapshot(0.0, running=0, reserved=Spend(), scheme="").missions.ended.values()) == 1
    finally:
        await second.close()
