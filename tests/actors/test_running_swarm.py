"""The client's side of a swarm, before a coordinator that is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chimera.actors import cluster
from chimera.actors.outbox import Batch, Outbox
from chimera.actors.sessions import Submission
from chimera.core.errors import ChimeraError, InputError, Overloaded, SwarmError
from chimera.core.types import MissionState, Task, TaskResult, Vote
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.policy import check_reply
from chimera.system.wiring import RunningSwarm
from tests.actors.in_process import until

GRAPH = TaskGraph(nodes=(TaskNode(id="t", task=Task(goal="g")),), output="t")


class Head:
    """Accepts everything, and lets missions end when the test says so; `replace` makes it one that knows nothing."""

    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.heard: set[str] = set()
        self.attended: list[list[str]] = []
        self.known: set[str] = set()
        self.refusal: ChimeraError | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.collects = asyncio.Event()
        self.collects.set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self), f"on_{name}")
        return type("Method", (), {"remote": staticmethod(lambda *arguments: method(self, *arguments))})

    def replace(self, *known: str) -> None:
        self.outbox = Outbox()
        self.heard, self.known = set(), set(known)

    def end(self, mission_id: str) -> None:
        if mission_id in self.heard:
            result = TaskResult(mission_id=mission_id, state=MissionState.ANSWERED, value=mission_id)
            self.outbox.put([result.model_dump_json().encode()])

    async def on_submit(self, session: str, submissions: Sequence[Submission]) -> list[ChimeraError | None]:
        self.heard |= {submission.mission_id for submission in submissions}
        await self.answers.wait()
        return [self.refusal for _ in submissions]

    async def on_attend(self, session: str, mission_ids: list[str]) -> list[str]:
        self.attended.append(sorted(mission_ids))
        self.heard |= set(mission_ids) & self.known
        return [name for name in mission_ids if name not in self.heard]

    async def on_collect(self, session: str, acked: int, after: int, wait_s: float, origin: str) -> Batch[bytes]:
        await self.collects.wait()
        if origin != self.outbox.origin:
            acked, after, wait_s = 0, 0, 0.0
        self.outbox.forget(acked)
        return await self.outbox.collect(after=after, wait_s=min(wait_s, 0.05))


def swarm_of(head: Head) -> RunningSwarm:
    return RunningSwarm(name="swarm-x", connection=None, coordinator=head, own=False)  # type: ignore[arg-type]


async def test_a_coordinator_that_came_back_is_told_what_is_waited_for() -> None:
    head = Head()
    swarm = swarm_of(head)
    one, two = await asyncio.gather(swarm.submit(GRAPH, 5.0), swarm.submit(GRAPH, 5.0))
    head.end(one)
    assert (await swarm.result(one)).value == one
    head.replace(two)
    await until(lambda: two in head.heard)
    assert head.attended[-1] == [two], "and not the one that has ended"
    head.end(two)
    assert (await swarm.result(two)).value == two


async def test_one_that_came_back_before_it_ever_answered_is_told_too() -> None:
    head = Head()
    swarm = swarm_of(head)
    head.collects.clear()
    name = await swarm.submit(GRAPH, 5.0)
    head.replace(name)
    head.collects.set()
    await until(lambda: name in head.heard)
    head.end(name)
    assert (await swarm.result(name)).value == name


async def test_what_it_does_not_know_any_more_is_an_error_and_what_is_being_submitted_is_not() -> None:
    head = Head()
    swarm = swarm_of(head)
    lost = await swarm.submit(GRAPH, 5.0)
    head.answers.clear()
    submitting = asyncio.create_task(swarm.submit(GRAPH, 5.0))
    await until(lambda: len(head.heard) == 2)
    [coming] = head.heard - {lost}
    head.replace()
    with pytest.raises(InputError, match="not known any more"):
        await swarm.result(lost)
    head.heard.add(coming)
    head.answers.set()
    assert await submitting == coming
    head.end(coming)
    assert (await swarm.result(coming)).value == coming


async def test_results_that_were_let_go_before_they_were_collected_are_asked_for() -> None:
    head = Head()
    swarm = swarm_of(head)
    head.collects.clear()
    names = [await swarm.submit(GRAPH, 5.0) for _ in range(3)]
    head.known = set(names)
    for name in names:
        head.end(name)
    head.outbox.forget(2)
    head.collects.set()
    assert (await swarm.result(names[2])).value == names[2]
    await until(lambda: set(names[:2]) <= set(head.attended[-1]))
    for name in names[:2]:
        head.end(name)
        assert (await swarm.result(name)).value == name


async def test_a_refusal_reaches_who_submitted() -> None:
    head = Head()
    head.refusal = Overloaded("too much", 0.5)
    with pytest.raises(Overloaded, match="too much"):
        await swarm_of(head).submit(GRAPH, 5.0)


async def test_two_calls_that_are_answered_at_once_leave_nobody_waiting() -> None:
    """Who submits again as soon as it can does so before anything else has noticed that nobody sends any more."""
    head = Head()
    swarm = swarm_of(head)

    async def twice() -> None:
        await swarm.submit(GRAPH, 5.0)
        await swarm.submit(GRAPH, 5.0)

    head.answers.clear()
    first = asyncio.create_task(twice())
    await until(lambda: len(head.heard) == 1)
    second = asyncio.create_task(swarm.submit(GRAPH, 5.0))
    await until(lambda: len(head.heard) == 2)
    head.answers.set()
    async with asyncio.timeout(5):
        await asyncio.gather(first, second)
    assert len(head.heard) == 3


async def test_a_result_that_cannot_be_read_is_nobody_elses_misfortune() -> None:
    head = Head()
    swarm = swarm_of(head)
    name = await swarm.submit(GRAPH, 5.0)
    head.outbox.put([b"{", b'{"mission_id": "x"}'])
    head.end(name)
    assert (await swarm.result(name)).value == name


async def test_a_value_may_be_as_deep_as_a_reply_may() -> None:
    head = Head()
    swarm = swarm_of(head)
    name = await swarm.submit(GRAPH, 5.0)
    value: Any = 1
    for _ in range(197):
        value = [value]
    reply, _ = check_reply(value, max_bytes=10_000)
    vote = Vote(voter="replica-0", reply=reply)
    result = TaskResult(mission_id=name, state=MissionState.ANSWERED, value=reply.value, replies=(vote,))
    head.outbox.put([result.model_dump_json().encode()])
    assert (await swarm.result(name)).value == value


async def test_nobody_waits_for_a_client_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "disconnect", lambda connection: None)
    head = Head()
    swarm = swarm_of(head)
    name = await swarm.submit(GRAPH, 5.0)
    waiting = asyncio.create_task(swarm.result(name))
    head.answers.clear()
    submitting = [asyncio.create_task(swarm.submit(GRAPH, 5.0)) for _ in range(3)]
    await until(lambda: len(head.heard) == 4)
    later = asyncio.create_task(swarm.submit(GRAPH, 5.0))
    await asyncio.sleep(0)
    await swarm.close()
    for task in (waiting, *submitting, later):
        with pytest.raises(SwarmError, match="has been closed"):
            async with asyncio.timeout(5):
                await task
