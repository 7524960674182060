"""What becomes of attempts, agents and reports when a manager dies at an awkward moment. No Ray, one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chimera.actors.coordinator import Coordinator
from chimera.actors.crew import Crew
from chimera.actors.outbox import Batch, Outbox
from chimera.core.clock import SystemClock
from chimera.core.config import Settings
from chimera.core.errors import NotBegun
from chimera.core.types import Budget, MissionState, Task
from chimera.swarm.attempt import Report
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.tally import Tally
from tests.actors.in_process import SWARM, Handle, Processes, coordinator_with, graph, run, seats, submit, until
from tests.policies import SPENT


class Shard:
    """A manager that reports what the test says, at most five at a time; `die` makes it another one."""

    door = None

    def __init__(self) -> None:
        self.outbox: Outbox[Report] = Outbox()
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(type(self), f"on_{name}")
        return type("Method", (), {"remote": staticmethod(lambda *arguments: method(self, *arguments))})

    def die(self) -> None:
        self.dead = True
        self.outbox = Outbox()

    async def on_begin(self, *arguments: Any) -> dict[str, str]:
        self.dead = False
        return {}

    async def on_collect(self, acked: int, after: int, wait_s: float) -> Batch[Report]:
        if self.dead:
            raise NotBegun("a new one")
        outbox = self.outbox
        outbox.forget(acked)
        batch = await outbox.collect(after=after, wait_s=0.02, most=5)
        if outbox is not self.outbox:
            raise NotBegun("a new one")
        return batch


async def test_what_was_made_durable_too_late_is_not_taken_for_reports_of_the_managers_successor() -> None:
    shard = Shard()
    heard: list[str] = []
    durable: list[Callable[[], None]] = []

    async def take(reports: Sequence[Report], done: Callable[[], None]) -> None:
        heard.extend(report.attempt_id for report in reports)
        durable.append(done)
        if len(heard) > 7:
            durable[1]()  # the journal was slow: this says that seven are there

    crew = Crew(
        swarm="s",
        settings=Settings(),
        spawn=lambda *arguments, **options: shard,
        kill=lambda *arguments, **options: None,
        heard=take,
        again=lambda ids: [],
        clock=SystemClock(),
        tally=Tally(0.0),
    )
    await crew.start({"Manager[0]": ["Cell[0]"]})
    crew.listen()
    shard.outbox.put([Report(f"old-{n}", "m") for n in range(7)])
    await until(lambda: len(heard) == 7)
    shard.die()
    await until(lambda: not shard.dead)
    shard.outbox.put([Report(f"new-{n}", "m") for n in range(8)])
    await until(lambda: len(heard) == 15)
    assert heard[7:] == [f"new-{n}" for n in range(8)]
    for task in crew._tasks:
        task.cancel()


class Swarm:
    """A coordinator whose managers can be killed."""

    def __init__(self, **settings: Any) -> None:
        self.processes = Processes()
        self.head: Coordinator = coordinator_with(self.processes, orphan_s=60.0, **settings)

    async def start(self, *policies: str) -> None:
        await self.head.start()
        if policies:
            await self.head.spawn_agents(seats(*policies))

    def actor(self, name: str) -> Handle:
        return self.processes.by_name[f"{SWARM}/{name}"]


@pytest.mark.parametrize("victim", ["Cell[0]", "Manager[0]"])
async def test_one_that_ray_cannot_start_again_just_now_is_had_back_later(
    victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = Swarm(cells=1)
    faults = ["start"]
    for name in ("spawn", "spawn_cell"):
        monkeypatch.setattr(swarm.processes, name, _failing(getattr(swarm.processes, name), faults))
    swarm.head = coordinator_with(swarm.processes, orphan_s=60.0, cells=1)
    faults.clear()
    await swarm.start("answer")
    faults.append("Ray is away")
    handle = swarm.actor(victim)
    first = asyncio.Event()
    if victim == "Manager[0]":
        monkeypatch.setattr(handle, "_call", _failing_once(handle, "begin", first))
    swarm.processes.crash(victim)
    result = await run(swarm.head, "m", inputs={"answer": 7})
    assert (result.state, result.value, faults) == (MissionState.ANSWERED, 7, [])
    await swarm.head.close()


def _failing(start: Callable[..., Any], faults: list[str]) -> Callable[..., Any]:
    def started(*arguments: Any, **options: Any) -> Any:
        if faults:
            raise ConnectionError(faults.pop())
        return start(*arguments, **options)

    return started


def _failing_once(handle: Handle, method: str, failed: asyncio.Event) -> Callable[..., Any]:
    call = handle._call

    def calls(name: str, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        if name == method and not failed.is_set():
            failed.set()
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_exception(ConnectionError("it is not there"))
            return refused
        return call(name, arguments)

    return calls


async def test_new_agents_are_with_their_manager_also_when_it_dies_before_the_others_have_theirs() -> None:
    swarm = Swarm(cells=2, cells_per_manager=1)
    await swarm.start()
    swarm.actor("Manager[1]").slow["spawn"] = held = asyncio.Event()
    spawning = asyncio.create_task(swarm.head.spawn_agents(seats("answer", "answer")))
    first = swarm.actor("Manager[0]")
    await until(lambda: len(first.actor._roster) == 1)
    swarm.processes.crash("Manager[0]")
    await until(lambda: first.actor._begun)
    held.set()
    assert len(await spawning) == 2
    await until(lambda: len(first.actor._roster) == 1)
    assert (await run(swarm.head, replicas=2, consensus="unanimous")).state is MissionState.ANSWERED
    await swarm.head.close()


async def test_a_replica_waits_for_its_manager_where_all_agents_of_the_others_have_voted() -> None:
    swarm = Swarm(cells=2, cells_per_manager=1)
    await swarm.start("slow_second", "slow_second")
    running = asyncio.create_task(run(swarm.head, replicas=2, consensus="unanimous"))
    second = swarm.actor("Manager[1]")
    await until(lambda: second.actor._roster.busy == 1 and swarm.actor("Manager[0]").actor._roster.busy == 0)
    swarm.processes.crash("Manager[1]")
    assert (await running).state is MissionState.ANSWERED
    await swarm.head.close()


async def test_money_that_was_held_for_attempts_that_died_with_their_manager_is_not_waited_for() -> None:
    """The first task is decided; its third attempt is being called off when the manager dies."""
    swarm = Swarm()
    await swarm.start(*["hangs_third"] * 4)
    tasks = [
        Task(goal="g", replicas=3, spend=Budget(usd=1.0), attempt_timeout_s=15.0),
        Task(goal="g", spend=Budget(usd=2.5), attempt_timeout_s=15.0),
    ]
    nodes = (TaskNode(id="a", task=tasks[0]), TaskNode(id="b", after=("a",), task=tasks[1]))
    swarm.actor("Manager[0]").slow["cancel"] = asyncio.Event()
    await submit(swarm.head, "m", TaskGraph(nodes=nodes, output="b"), 15.0, Budget(usd=3.0))
    await until(lambda: "a" in swarm.head._missions._missions["m"].brain._progress.settled)  # type: ignore[union-attr]
    swarm.processes.crash("Manager[0]")
    result = await swarm.head.result("m", 10.0)
    assert result is not None and result.state is not MissionState.EXPIRED
    await swarm.head.close()


async def test_what_an_attempt_spent_whose_manager_died_is_not_spent_again() -> None:
    swarm = Swarm()
    await swarm.start(*["spends_all_and_waits"] * 2)
    SPENT.clear()
    await submit(swarm.head, "m", graph(attempt_timeout_s=0.5, max_attempts=1), 10.0, Budget(usd=1.0))
    await until(lambda: SPENT)
    swarm.processes.crash("Manager[0]")
    result = await swarm.head.result("m", 10.0)
    assert result is not None
    assert sum(SPENT) <= 1.0
    await swarm.head.close()
