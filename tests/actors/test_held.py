"""Missions that wait for a person: nobody works meanwhile, and whatever dies, the answer finds its mission."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chimera.actors.admission import check_load
from chimera.actors.coordinator import Coordinator
from chimera.actors.questions import MAX_SHOWN
from chimera.actors.sessions import Submission
from chimera.cli.missions import execute_list
from chimera.core.config import Settings
from chimera.core.errors import InputError, NotThere, Overloaded, StorageError
from chimera.core.events import EventKind
from chimera.core.types import MissionState, Task, TaskResult
from chimera.storage.journal import MAX_READ, open_journal
from chimera.storage.sqlite import SqliteJournal
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.held import Review
from tests.actors.in_process import Processes, coordinator_with, graph, seats, submit, until

YES = Review(verdict="approve", by="ada")


@asynccontextmanager
async def running(*policies: str, **settings: Any) -> AsyncIterator[Coordinator]:
    swarm = coordinator_with(Processes(), cells=1, **settings)
    await swarm.start()
    try:
        await swarm.spawn_agents(seats(*policies))
        yield swarm
    finally:
        await swarm.close()


async def held(swarm: Coordinator, count: int = 1) -> list[str]:
    """The keys of what waits, once so many do."""

    async def there() -> bool:
        return len(await swarm.held()) == count

    await until(there)
    return [f"{each.mission_id}/{each.task_id}" for each in await swarm.held()]


async def result(swarm: Coordinator, mission_id: str = "m") -> TaskResult:
    found = await swarm.result(mission_id, 20.0)
    assert found is not None, "it never ended"
    return found


async def test_a_mission_waits_without_a_worker_and_goes_on_with_what_a_person_says() -> None:
    async with running("unsure") as swarm:
        first = Task(goal="first", review="policy")
        last = Task(goal="last")
        tasks = TaskGraph(
            nodes=(TaskNode(id="first", task=first), TaskNode(id="last", task=last, after=("first",))), output="last"
        )
        await submit(swarm, "m", tasks)
        assert await held(swarm) == ["m/first"]
        status = await swarm.status()
        assert (status.busy, status.waiting, status.missions.running, status.missions.held) == (0, 0, 0, 1)
        assert [(each.task_id, each.proposed, each.confidence) for each in status.held] == [("first", '"maybe"', 0.2)]
        shown = await swarm.held_task("m", "first")
        assert (shown.proposal.value, shown.goal, shown.until_s - shown.since_s) == ("maybe", "first", 604_800.0)
        assert await swarm.result("m", 0.0) is None
        await swarm.reviewed("m", "first", YES)
        ended = await result(swarm)
        assert (ended.state, ended.value) == (MissionState.ANSWERED, "maybe")
        assert await swarm.held() == [] and (await swarm.status()).missions.held == 0


async def test_an_answer_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    async with running("unsure") as swarm:
        await submit(swarm, "m", graph(review="always"))
        await held(swarm)
        with pytest.raises(InputError, match="task 'other' is not held"):
            await swarm.reviewed("m", "other", YES)
        with pytest.raises(InputError, match="no mission 'n'"):
            await swarm.reviewed("n", "t", YES)
        with pytest.raises(NotThere, match="not held for a person here"):
            await swarm.held_task("m", "other")
        no = Review(verdict="reject", by="bob", reason="not so")
        await swarm.reviewed("m", "t", no)
        ended = await result(swarm)
        assert ended.state is MissionState.FAILED and "rejected by bob: not so" in ended.explanation
        await swarm.reviewed("m", "t", no)
        with pytest.raises(InputError, match="has its answer already, and another one: rejected by bob: not so"):
            await swarm.reviewed("m", "t", YES)
        events = await swarm.events("m", 0, 0.0)
        assert [event.kind for event in events].count(EventKind.TASK_REVIEWED) == 1


async def test_of_two_people_who_answer_at_once_one_is_heard() -> None:
    async with running("unsure") as swarm:
        await submit(swarm, "m", graph(review="always"))
        await held(swarm)
        said = [Review(verdict="edit", by=name, value=name) for name in ("ada", "bob", "cid")]
        told = await asyncio.gather(*(swarm.reviewed("m", "t", each) for each in said), return_exceptions=True)
        assert told[0] is None and all(isinstance(each, InputError) for each in told[1:])
        assert (await result(swarm)).value == "ada"


async def test_an_answer_that_cannot_be_written_down_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running("unsure") as swarm:
        await submit(swarm, "m", graph(review="always"))
        await held(swarm)

        async def fails(events: Any) -> None:
            raise StorageError("a disk that is full")

        assert swarm._journal is not None
        monkeypatch.setattr(swarm._journal, "append", fails)
        with pytest.raises(InputError, match="is not running here"):
            await swarm.reviewed("m", "t", YES)
        assert (await result(swarm)).state is MissionState.FAILED


async def test_what_waits_is_listed_a_part_at_a_time_and_the_status_shows_the_longest() -> None:
    async with running("unsure") as swarm:
        names = [f"m{n:02}" for n in range(MAX_SHOWN + 5)]
        for name in names:
            await submit(swarm, name, graph(review="always", goal="g" * 1_000))
        keys = await held(swarm, len(names))
        assert keys == [f"{name}/t" for name in names]
        assert [each.mission_id for each in await swarm.held(limit=3)] == names[:3]
        assert [each.mission_id for each in await swarm.held(after=keys[2], limit=3)] == names[3:6]
        status = await swarm.status()
        assert len(status.held) == MAX_SHOWN and status.missions.held == len(names)
        assert all(len(each.goal) == 300 for each in status.held)


async def test_missions_that_wait_leave_room_for_others() -> None:
    async with running("unsure", "answer", max_missions=1) as swarm:
        await submit(swarm, "waits", graph(review="always"))
        await held(swarm)
        await submit(swarm, "next", graph())
        await result(swarm, "next")


def test_no_more_may_wait_than_a_restart_finds() -> None:
    class Many:
        running, held = 5, MAX_READ - 5

    with pytest.raises(Overloaded, match="wait for a person"):
        check_load(Settings(), 9, Many(), 0.0)  # type: ignore[arg-type]
    Many.held -= 1
    check_load(Settings(), 9, Many(), 0.0)  # type: ignore[arg-type]


async def test_time_that_is_up_is_a_rejection() -> None:
    async with running("unsure") as swarm:
        await submit(swarm, "m", graph(review="always", review_s=0.2))
        ended = await result(swarm)
        assert ended.state is MissionState.FAILED and "nobody decided in time" in ended.explanation
        with pytest.raises(InputError, match="is not held for a person"):
            await swarm.reviewed("m", "t", YES)


async def test_the_voters_reputations_hear_of_it() -> None:
    async with running("unsure") as swarm:
        await submit(swarm, "m", graph(review="always"))
        await held(swarm)
        await asyncio.sleep(0)
        assert not any(swarm._crew._appraisals.values()), "nobody has judged yet"
        await swarm.reviewed("m", "t", Review(verdict="edit", by="ada", value="surely"))
        found = [each for several in swarm._crew._appraisals.values() for each in several]
        assert [(each.agent, each.good) for each in found] == [("worker-0", 0.5)]


@pytest.mark.parametrize("verdict", ["approve", "edit", "reject"])
async def test_a_coordinator_that_died_while_a_task_was_held_goes_on_after_the_answer(
    tmp_path: Path, verdict: Any
) -> None:
    journal = f"sqlite:///{tmp_path / 'journal.db'}"
    processes = Processes()
    handle = processes.coordinator(cells=1, journal_url=journal)

    async def call(method: str, *arguments: Any) -> Any:
        return await getattr(handle, method).remote(*arguments)

    async def waits() -> bool:
        return len(await call("held")) == 1

    async def crash() -> None:
        dying = handle.actor._journal
        processes.crash("Coordinator")
        await dying.close()

    await call("spawn_agents", seats("unsure"))
    [refusal] = await call("submit", "tests", [Submission.of("m", graph(review="always"), 30.0)])
    assert refusal is None
    await until(waits)
    before = await call("held_task", "m", "t")
    await crash()
    await until(waits)
    assert await call("held_task", "m", "t") == before
    assert (await call("status")).missions.held == 1
    reason = "because" if verdict == "reject" else ""
    said = Review(verdict=verdict, by="ada", reason=reason, value="so" if verdict == "edit" else None)
    await call("reviewed", "m", "t", said)
    await crash()
    await call("reviewed", "m", "t", said)  # whoever was not told asks again
    ended = await call("result", "m", 20.0)
    state, value = {
        "approve": (MissionState.ANSWERED, "maybe"),
        "edit": (MissionState.ANSWERED, "so"),
        "reject": (MissionState.FAILED, None),
    }[verdict]
    assert (ended.state, ended.value) == (state, value)
    opened = open_journal(journal)
    kinds = [event.kind for event in await opened.read("m")]
    await opened.close()
    once = (EventKind.TASK_HELD, EventKind.TASK_REVIEWED, EventKind.TASK_DECIDED)
    assert [kinds.count(kind) for kind in once] == [1, 1, 1]
    await call("close")


async def test_a_list_of_missions_says_which_one_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"

    async def states() -> dict[str, str]:
        code = await asyncio.to_thread(execute_list, url, running=False, limit=10, as_json=True)
        assert code == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {each["mission_id"]: each["state"] for each in found}

    async with running("unsure", journal_url=url) as swarm:
        await submit(swarm, "m", graph(review="always"))
        await held(swarm)
        assert await states() == {"m": "held"}
        await swarm.reviewed("m", "t", YES)
        await result(swarm)
        assert await states() == {"m": "ended"}


async def test_another_swarm_takes_over_a_mission_that_waits(tmp_path: Path) -> None:
    journal = f"sqlite:///{tmp_path / 'journal.db'}"
    processes = Processes()
    first = processes.coordinator(cells=1, journal_url=journal)
    await first.spawn_agents.remote(seats("unsure"))
    await first.submit.remote("tests", [Submission.of("m", graph(review="always", review_s=5.0), 30.0)])

    async def waits() -> bool:
        return len(await first.held.remote()) == 1

    await until(waits)
    dying: SqliteJournal = first.actor._journal
    first.end(restart=False)
    await dying.close()
    other = coordinator_with(processes, swarm="swarm-other", journal_url=journal)
    try:
        with pytest.raises(InputError, match="chimera missions resume m"):
            await other.reviewed("m", "t", YES)
        await other.resume("m")
        assert await held(other) == ["m/t"]
        assert (await other.held_task("m", "t")).until_s > (await other.held_task("m", "t")).since_s + 5.0
        await other.reviewed("m", "t", YES)
        assert (await result(other)).value == "maybe"
    finally:
        await other.close()
