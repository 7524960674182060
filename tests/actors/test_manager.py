"""A manager and its cells, in one process without Ray."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from chimera.actors.manager import Manager
from chimera.core.config import Settings
from chimera.core.errors import ClusterError, NotBegun
from chimera.core.types import FailureKind, Isolation, Reply, Task
from chimera.swarm.attempt import Appraisal, Attempt, Report, Work
from chimera.swarm.policy import Seat
from tests.actors.in_process import SWARM, Handle, Processes, seats, until
from tests.policies import MAKING_MAY_END

CELLS = ["Cell[0]", "Cell[1]"]


def attempt(number: int, timeout_s: float = 10.0, **fields: Any) -> Attempt:
    work = Work(Task(goal="g", inputs=fields.pop("inputs", {}))).pack()
    return Attempt(f"m/t{number}/0/1", "m", f"t{number}", 0, 1, fields.pop("role", "worker"), timeout_s, work, **fields)


def named(found: list[Seat], first: int = 0) -> list[Seat]:
    return [replace(seat, agent_id=f"worker-{first + n}") for n, seat in enumerate(found)]


class Shard:
    """A manager, and everything that it has reported."""

    def __init__(self, **settings: Any) -> None:
        self.processes = Processes()
        made = Settings(**{"state_url": "memory://", "stall_s": 0.6, **settings})
        self.handle: Handle = self.processes.spawn(
            Manager, name=f"{SWARM}/Manager[0]", named="Manager[0]", swarm=SWARM, settings=made
        )
        self.reports: list[Report] = []
        self._collector = asyncio.create_task(self._collect())

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.handle, method).remote(*arguments)

    async def begin(self, found: list[Seat], cells: list[str] = CELLS, standing: Any = None) -> dict[str, str]:
        refused: dict[str, str] = await self.call("begin", cells, found, standing)
        return refused

    async def status(self) -> dict[str, Any]:
        told: dict[str, Any] = await self.call("status")
        return told

    async def hosted(self) -> dict[str, int]:
        """How many agents each cell has, by its own account."""
        cells = {name for name in self.processes.living if name != "Manager[0]"}
        return {name: int(repr(self.cell(name).actor).split()[-2]) for name in sorted(cells)}

    def cell(self, name: str) -> Handle:
        return self.processes.by_name[f"{SWARM}/{name}"]

    @property
    def outcomes(self) -> dict[str, str]:
        """How each attempt ended. Fails when one ended twice."""
        assert max(Counter(report.attempt_id for report in self.reports).values(), default=1) == 1
        return {report.attempt_id: report.failure or "reply" for report in self.reports}

    @property
    def values(self) -> list[Any]:
        return [Reply.model_validate_json(report.reply).value for report in self.reports if report.reply]

    def close(self) -> None:
        self._collector.cancel()
        for name in self.processes.living:
            self.processes.end(f"{SWARM}/{name}")

    async def _collect(self) -> None:
        after = 0
        while True:
            try:
                batch = await self.call("collect", after, after, 0.2)
            except NotBegun:
                await asyncio.sleep(0.01)
                continue
            except Exception:
                after = 0
                await asyncio.sleep(0.01)
                continue
            self.reports += batch.reports
            after = batch.last


@pytest.fixture
async def shard() -> AsyncIterator[Shard]:
    made = Shard()
    yield made
    made.close()


async def test_nothing_can_be_asked_of_a_manager_that_has_not_begun(shard: Shard) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("dispatch", ([],)),
        ("collect", (0, 0, 0.0)),
        ("spawn", ([],)),
        ("set_cells", ([],)),
    ]
    for method, arguments in calls:
        with pytest.raises(NotBegun, match=r"Manager\[0\]"):
            await shard.call(method, *arguments)


async def test_agents_are_spread_and_every_attempt_ends_once(shard: Shard) -> None:
    assert await shard.begin(named(seats(*["answer"] * 10))) == {}
    assert await shard.hosted() == {"Cell[0]": 5, "Cell[1]": 5}
    await shard.call("dispatch", [attempt(n, inputs={"answer": n}) for n in range(100)])
    await until(lambda: len(shard.reports) == 100)
    assert sorted(shard.values) == list(range(100)) and set(shard.outcomes.values()) == {"reply"}
    status = await shard.status()
    assert (status["agents"], status["busy"], status["waiting"]) == (10, 0, 0)
    assert status["roles"] == {"worker": (10, 0, 0)} and set(status["cells"]) == set(CELLS)


async def test_who_cannot_be_loaded_is_named_and_the_others_begin(shard: Shard) -> None:
    refused = await shard.begin(named(seats("answer", "no_such", "answer")))
    assert list(refused) == ["worker-1"] and "no_such" in refused["worker-1"]
    assert (await shard.status())["agents"] == 2
    assert sum((await shard.hosted()).values()) == 2


async def test_spawning_is_all_or_none(shard: Shard) -> None:
    await shard.begin(named(seats("answer")))
    alone = seats("answer", isolation=Isolation.DEDICATED)
    refused = await shard.call("spawn", named([*seats("answer", "no_such"), *alone], first=1))
    assert list(refused) == ["worker-2"]
    assert (await shard.status())["agents"] == 1
    await until(lambda: shard.processes.living == {"Manager[0]", *CELLS}, 5.0)
    assert sum((await shard.hosted()).values()) == 1
    assert await shard.call("spawn", named([*seats("answer"), *alone], first=5)) == {}
    assert await shard.hosted() == {"Agent[worker-6]": 1, "Cell[0]": 1, "Cell[1]": 1}


async def test_beginning_again_keeps_adds_and_dismisses(shard: Shard) -> None:
    """As a coordinator that came back asks for it: what is in hand goes on."""
    await shard.begin(named(seats("hangs", "answer", "answer")))
    await shard.call("dispatch", [attempt(0, skill="", policy="tests.policies:hangs")])
    await until(lambda: shard.cell("Cell[0]").actor._running)
    assert await shard.begin([*named(seats("hangs", "answer")), *named(seats("unsure"), first=7)]) == {}
    status = await shard.status()
    assert (status["agents"], status["busy"]) == (3, 1)
    assert sum((await shard.hosted()).values()) == 3
    await shard.call("dispatch", [attempt(1, policy="tests.policies:unsure")])
    await until(lambda: shard.reports)
    assert shard.outcomes == {"m/t1/0/1": "reply"}
    await shard.call("cancel", ["m/t0/0/1"])
    await until(lambda: len(shard.reports) == 2)
    assert shard.outcomes["m/t0/0/1"] == FailureKind.CANCELLED


async def test_work_of_an_agent_that_is_dismissed_is_lost_and_told(shard: Shard) -> None:
    await shard.begin(named(seats("hangs", "answer")))
    await shard.call("dispatch", [attempt(0, policy="tests.policies:hangs")])
    await until(lambda: shard.cell("Cell[0]").actor._running)
    await shard.begin(named(seats("answer"), first=1))
    await until(lambda: shard.reports)
    assert shard.outcomes == {"m/t0/0/1": FailureKind.LOST}
    assert (await shard.status())["agents"] == 1


async def test_two_who_begin_it_at_once_do_no_harm(shard: Shard) -> None:
    agents = named(seats(*["answer"] * 6))
    first, second = await asyncio.gather(shard.begin(agents), shard.begin(agents))
    assert first == second == {}
    assert await shard.hosted() == {"Cell[0]": 3, "Cell[1]": 3}


async def test_a_manager_that_died_takes_over_cells_that_go_on(shard: Shard) -> None:
    agents = named(seats(*["hangs"] * 4))
    await shard.begin(agents)
    await shard.call("dispatch", [attempt(n) for n in range(4)])
    await until(lambda: sum(len(shard.cell(name).actor._running) for name in CELLS) == 4)
    shard.processes.crash("Manager[0]")
    assert await shard.begin(agents, standing={"worker-0": {"": (5.0, 1.0, 0.0)}}) == {}
    assert [shard.cell(name).lives for name in CELLS] == [1, 1]
    assert all(not shard.cell(name).actor._running for name in CELLS), "what nobody knows of is dropped"
    await shard.call("dispatch", [attempt(n, timeout_s=0.2) for n in range(4)])
    await until(lambda: len(shard.reports) == 4)
    assert set(shard.outcomes.values()) == {FailureKind.TIMEOUT}, "and not as cancelled by the old one's end"
    assert (await shard.call("standing")).keys() == {"worker-0"}


async def test_a_node_that_dies_with_its_manager_and_cells_is_had_back(shard: Shard) -> None:
    agents = named(seats(*["answer"] * 4))
    await shard.begin(agents)
    for name in ("Manager[0]", *CELLS):
        shard.processes.crash(name)
    shard.cell("Cell[1]").living = False  # it takes a while until Ray has this one back
    assert await shard.begin(agents) == {}, "nobody is refused for that"
    await shard.call("dispatch", [attempt(n) for n in range(20)])
    await until(lambda: len(shard.reports) == 20)
    assert set(shard.outcomes.values()) == {"reply"}
    await until(lambda: shard.processes.living >= set(CELLS))
    assert await shard.hosted() == {"Cell[0]": 2, "Cell[1]": 2}


async def test_agents_whose_loading_takes_too_long_are_there_when_it_is_done_at_last() -> None:
    shard = Shard(spawn_timeout_s=0.3)
    try:
        agents = [*named(seats("HangsWhenFirstMade")), *named(seats("answer"), first=1)]
        assert await shard.begin(agents, cells=["Cell[0]"]) == {}
        await shard.call("dispatch", [attempt(n, policy="tests.policies:HangsWhenFirstMade") for n in range(5)])
        await until(lambda: len(shard.reports) == 5)
        assert set(shard.outcomes.values()) == {"reply"}
    finally:
        MAKING_MAY_END.set()
        shard.close()


async def test_what_is_dispatched_again_is_ignored(shard: Shard) -> None:
    await shard.begin(named(seats("Counting")))
    for _ in range(3):
        await shard.call("dispatch", [attempt(0), attempt(1)])
    await until(lambda: len(shard.reports) == 2)
    await shard.call("dispatch", [attempt(2)])
    await until(lambda: len(shard.reports) == 3)
    assert sorted(shard.values) == [1, 2, 3] and len(shard.outcomes) == 3


async def test_a_cancel_reaches_what_waits_what_is_unsent_and_what_runs_and_each_is_told_once(shard: Shard) -> None:
    await shard.begin(named(seats(*["hangs"] * 4)), cells=["Cell[0]"])
    held = shard.cell("Cell[0]").slow["run"] = asyncio.Event()
    await shard.call("dispatch", [attempt(0)])
    await asyncio.sleep(0.02)  # it is on its way to the cell, and held up there
    await shard.call("dispatch", [attempt(n) for n in range(1, 10)])
    status = await shard.status()
    assert (status["busy"], status["waiting"]) == (4, 6)
    ids = [f"m/t{n}/0/1" for n in range(12)]
    twice = [shard.call("cancel", ids), shard.call("cancel", ids)]
    await asyncio.gather(*twice, shard.call("dispatch", [attempt(11)]))
    held.set()
    await until(lambda: len(shard.reports) == 12)
    await until(lambda: not shard.cell("Cell[0]").actor._running)
    status = await shard.status()
    assert (status["busy"], status["waiting"]) == (0, 0)
    assert set(shard.outcomes.values()) == {FailureKind.CANCELLED}


async def test_a_cell_that_dies_comes_back_with_its_agents_and_what_it_had_is_told_lost(shard: Shard) -> None:
    await shard.begin(named([*seats("hangs"), *seats("answer")]))
    await shard.call("dispatch", [attempt(0, policy="tests.policies:hangs")])
    await until(lambda: shard.cell("Cell[0]").actor._running)
    shard.processes.crash("Cell[0]")
    await until(lambda: shard.reports)
    [lost] = shard.reports
    assert (lost.failure, lost.detail, lost.agent) == (FailureKind.LOST, "Cell[0] died", "worker-0")
    await until(lambda: repr(shard.cell("Cell[0]").actor) == "Cell[0] 1 agents")
    await shard.call("dispatch", [attempt(1, timeout_s=0.1, policy="tests.policies:hangs")])
    await until(lambda: len(shard.reports) == 2)
    assert shard.outcomes["m/t1/0/1"] == FailureKind.TIMEOUT


async def test_a_cell_that_ended_for_good_is_replaced(shard: Shard) -> None:
    await shard.begin(named(seats("answer", "answer")))
    shard.processes.end(f"{SWARM}/Cell[0]")
    await until(lambda: "Cell[0]" in shard.processes.living)
    await shard.call("dispatch", [attempt(n) for n in range(10)])
    await until(lambda: len(shard.reports) == 10)
    assert set(shard.outcomes.values()) == {"reply"}


async def test_a_cell_that_says_nothing_is_started_again(shard: Shard) -> None:
    await shard.begin(named(seats("hangs", "answer")))
    await shard.call("dispatch", [attempt(0, policy="tests.policies:hangs")])
    await until(lambda: shard.cell("Cell[0]").actor._running)
    shard.cell("Cell[0]").slow["collect"] = asyncio.Event()
    await until(lambda: shard.reports)
    assert shard.reports[0].detail == "Cell[0] stalled"
    shard.cell("Cell[0]").slow.clear()
    await until(lambda: repr(shard.cell("Cell[0]").actor) == "Cell[0] 1 agents")


async def test_agents_that_come_while_their_cell_is_dying_are_there_when_it_is_back(shard: Shard) -> None:
    await shard.begin(named(seats("answer", "answer")))
    held = shard.cell("Cell[1]").slow["host"] = asyncio.Event()
    begun = shard.cell("Cell[0]").answers["host"]
    spawning = asyncio.create_task(shard.call("spawn", named(seats("unsure", "unsure"), first=2)))
    await until(lambda: shard.cell("Cell[0]").answers["host"] > begun)
    assert repr(shard.cell("Cell[0]").actor) == "Cell[0] 2 agents"
    shard.processes.crash("Cell[0]")  # it has taken them in and said so, but the spawn is not over
    await until(lambda: repr(shard.cell("Cell[0]").actor) == "Cell[0] 2 agents")
    held.set()
    assert await spawning == {}
    await shard.call("dispatch", [attempt(n, policy="tests.policies:unsure") for n in range(10)])
    await until(lambda: len(shard.reports) == 10)
    assert set(shard.outcomes.values()) == {"reply"}


async def test_a_new_cell_takes_over_a_share_of_the_agents_also_of_busy_ones(shard: Shard) -> None:
    await shard.begin(named(seats(*["naps_a_little"] * 6)), cells=["Cell[0]"])
    await shard.call("dispatch", [attempt(n) for n in range(120)])
    await shard.call("set_cells", ["Cell[0]", "Cell[1]", "Cell[2]"])
    assert await shard.hosted() == {"Cell[0]": 2, "Cell[1]": 2, "Cell[2]": 2}
    assert (await shard.status())["waiting"] > 0, "they moved while there was work for all"
    await until(lambda: len(shard.reports) == 120)
    assert set(shard.outcomes.values()) == {"reply"}


async def test_a_cell_that_goes_finishes_what_it_has_and_loses_nothing(shard: Shard) -> None:
    await shard.begin(named(seats(*["naps_a_little"] * 8)), cells=["Cell[0]", "Cell[1]", "Cell[2]"])
    await shard.call("dispatch", [attempt(n) for n in range(150)])
    await shard.call("set_cells", ["Cell[1]"])
    assert await shard.hosted() == {"Cell[1]": 8} and shard.processes.living == {"Manager[0]", "Cell[1]"}
    assert (await shard.status())["waiting"] > 0
    await until(lambda: len(shard.reports) == 150)
    assert set(shard.outcomes.values()) == {"reply"}


async def test_a_cell_that_dies_while_it_goes_is_gone_and_its_agents_are_not(shard: Shard) -> None:
    await shard.begin(named(seats(*["hangs"] * 4)))
    await shard.call("dispatch", [attempt(n) for n in range(4)])
    await until(lambda: len(shard.cell("Cell[0]").actor._running) == 2)
    going = asyncio.create_task(shard.call("set_cells", ["Cell[1]"]))
    await asyncio.sleep(0.1)
    assert not going.done(), "it waits for who is at work"
    shard.processes.crash("Cell[0]")
    await going
    assert await shard.hosted() == {"Cell[1]": 4} and "Cell[0]" not in shard.processes.living
    assert Counter(shard.outcomes.values()) == {FailureKind.LOST: 2}


async def test_other_cells_than_a_coordinator_that_came_back_wants_are_changed(shard: Shard) -> None:
    agents = named(seats(*["answer"] * 4))
    await shard.begin(agents)
    assert await shard.begin(agents, cells=["Cell[1]", "Cell[2]"]) == {}
    await until(lambda: shard.processes.living == {"Manager[0]", "Cell[1]", "Cell[2]"})
    assert await shard.hosted() == {"Cell[1]": 2, "Cell[2]": 2}


async def test_what_agents_are_worth_survives(shard: Shard) -> None:
    agents = named(seats("answer", "answer"))
    await shard.begin(agents)
    await shard.call("appraise", [Appraisal("worker-0", "", 0.0)] * 3)
    standing = await shard.call("standing")
    shard.processes.crash("Manager[0]")
    await shard.begin(agents, standing=standing)
    assert await shard.call("standing") == standing and standing


async def test_a_manager_that_nobody_asks_ends_with_its_cells() -> None:
    shard = Shard(orphan_s=0.3)
    await shard.begin(named(seats("answer", "hangs")))
    await asyncio.sleep(0.6)
    assert shard.processes.living == {"Manager[0]", *CELLS}, "it is asked all the time"
    shard._collector.cancel()
    await until(lambda: not shard.processes.living)


async def test_processes_that_nobody_ever_asks_end_too() -> None:
    """Those that Ray starts again after everyone who knew them has died."""
    shard = Shard(orphan_s=0.3)
    await shard.begin(named(seats("answer")))
    shard._collector.cancel()
    for name in ("Manager[0]", *CELLS):
        shard.processes.crash(name)
    await until(lambda: not shard.processes.living)


async def test_an_attempt_that_comes_after_its_cancel_is_not_begun(shard: Shard) -> None:
    await shard.begin(named(seats("hangs")))
    await shard.call("cancel", [attempt(1).id])
    await until(lambda: shard.outcomes == {attempt(1).id: "cancelled"})
    await until(lambda: not shard.handle.actor._told)  # acknowledged, and so forgotten
    await shard.call("dispatch", [attempt(1), attempt(2)])
    await until(lambda: shard.handle.actor._roster.busy)
    assert (await shard.status())["busy"] == 1


async def test_cells_stay_when_those_that_come_in_their_place_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shard = Shard(spawn_timeout_s=0.3)
    await shard.begin(named(seats("answer", "answer")))
    start = shard.handle.actor._housing._start

    def refuse(name: str) -> Any:
        handle = start(name)
        handle.slow["host"] = asyncio.Event()  # no node has room for it
        return handle

    monkeypatch.setattr(shard.handle.actor._housing, "_start", refuse)
    with pytest.raises(ClusterError, match=r"Cell\[2\] could not be started"):
        await shard.call("set_cells", ["Cell[0]", "Cell[2]"])
    assert shard.processes.living == {"Manager[0]", "Cell[0]", "Cell[1]"}
    await shard.call("dispatch", [attempt(1, inputs={"answer": 5}), attempt(2, inputs={"answer": 5})])
    await until(lambda: shard.values == [5, 5])
    shard.close()
