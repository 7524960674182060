"""Reloads with coordinator and cell as plain objects: deaths and failures between any two steps.

One cell, since what these have in one process is shared: Python's modules. For many see test_many_reloads.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from chimera.actors import reloads
from chimera.actors.cell import Cell
from chimera.actors.reloads import Reloads
from chimera.core.config import Settings
from chimera.core.errors import Overloaded, ReloadError, StorageError
from chimera.core.events import EventKind
from chimera.core.types import AgentSpec, Reply, Task
from chimera.reload.messages import Answer, Commit, Parcel
from chimera.swarm.attempt import Attempt, Report, Work
from chimera.swarm.policy import Seat
from tests.actors.in_process import SWARM, Handle, Processes, graph, submit, until

MODULE = "reloads_test_module"

SOURCE = """
import asyncio

VERSION = {version}

class Counter:
    def __init__(self):
        self.calls = 0

    async def __call__(self, task, context):
        await asyncio.sleep(task.inputs.get("s", 0.0))
        self.calls += 1
        return [VERSION, self.calls]
"""


def source(version: int, more: str = "") -> Parcel:
    return Parcel((SOURCE.format(version=version) + more).encode())


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath(f"{MODULE}.py").write_bytes(source(1).code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


class Swarm:
    """A coordinator and its cells, each with agents of the module. `ask` is answered by one of a role."""

    def __init__(self, processes: Processes, coordinator: Handle) -> None:
        self.processes = processes
        self.coordinator = coordinator
        self._missions = 0

    @classmethod
    async def of(cls, tmp_path: Path, roles: int = 2, **settings: Any) -> Swarm:
        processes = Processes()
        handle = processes.coordinator(cells=1, journal_url=f"sqlite:///{tmp_path}/journal.db", **settings)
        swarm = cls(processes, handle)
        await swarm.spawn(*(f"role{n}" for n in range(roles)))
        return swarm

    async def spawn(self, *roles: str) -> None:
        specs = [AgentSpec(role=role, policy=f"{MODULE}:Counter") for role in roles]
        await self.coordinator.spawn_agents.remote([Seat.of(spec) for spec in specs])

    async def ask(self, role: str = "role0", **inputs: Any) -> Any:
        self._missions += 1
        mission = f"m{self._missions}"
        await submit(self.coordinator.actor, mission, graph(role=role, replicas=1, inputs=inputs))
        result = await self.coordinator.result.remote(mission, 20.0)
        assert result.value is not None, result.explanation
        return result.value

    async def reload(self, version: int, more: str = "") -> Any:
        return await self.coordinator.reload.remote(MODULE, source(version, more))

    async def runs(self, role: str = "role0") -> int:
        return int((await self.ask(role))[0])

    @property
    def cell(self) -> Handle:
        return self.processes.by_name[f"{SWARM}/Cell[0]"]

    async def back(self) -> None:
        """Until the cell has its agents again."""
        await until(lambda: len(self.cell.actor._residents))

    def before_record(self, kind: EventKind, act: Callable[[], Any]) -> None:
        """Have `act` happen once, just before a record of that kind is written. An error that it gives is raised."""
        actor = self.coordinator.actor
        note, done = actor._reloads._note, []

        async def noting(*facts: Any) -> None:
            if facts[0][0] is kind and not done:
                done.append(True)
                if (failure := act()) is not None:
                    raise failure
                await asyncio.sleep(0)  # if `act` ended this process, it goes no further
            await note(*facts)

        actor._reloads._note = noting


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    made = await Swarm.of(tmp_path)
    yield made
    await made.coordinator.close.remote()


async def _refuse(line: Any, parcel: Parcel) -> Any:
    raise ReloadError("refused here")


async def test_every_agent_runs_the_new_version_with_its_state(swarm: Swarm) -> None:
    assert await swarm.ask("role0") == [1, 1]
    done = await swarm.reload(2)
    assert (done.version, done.actors, done.changed, done.settled) == (2, 1, True, True)
    assert await swarm.ask("role0") == [2, 2]
    assert await swarm.ask("role1") == [2, 1]


async def test_what_is_in_use_already_changes_nothing(swarm: Swarm) -> None:
    assert not (await swarm.reload(1)).changed
    await swarm.reload(2)
    again = await swarm.reload(2)
    assert (again.changed, again.version) == (False, 2)
    assert (await swarm.coordinator.reload_status.remote()).reloaded == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("raise RuntimeError('at import')", "at import"),
        ("\ndef __smoke__():\n    return False\n", "says False"),
        ("\ndel Counter\n", "has no Counter"),
        ("\ndef migrate(state, old):\n    return 7\n", "gave a int"),
        ("\ndef migrate(state, old):\n    raise KeyError('x')\n", "KeyError"),
        ("\nthis is no Python\n", "invalid syntax"),
    ],
)
async def test_what_one_cannot_take_nobody_gets(swarm: Swarm, bad: str, why: str) -> None:
    with pytest.raises(ReloadError, match=why):
        await swarm.reload(2, bad)
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (1, 1)
    assert (await swarm.reload(3)).settled
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (3, 3)


async def test_states_go_through_migrate_and_back(swarm: Swarm) -> None:
    await swarm.ask()
    both = "\ndef migrate(state, old):\n    return {'calls': state['calls'] + 100 * old}\n"
    back = "\ndef migrate_back(state, old):\n    return {'calls': state['calls'] - 100 * old}\n"
    await swarm.reload(2, both + back)
    assert await swarm.ask() == [2, 102]
    undone = await swarm.coordinator.roll_back.remote(MODULE)
    assert (undone.version, await swarm.ask()) == (1, [1, 3])


MIGRATES = "\ndef migrate(state, old):\n    return dict(state)\n"


@pytest.mark.parametrize("more", ["", MIGRATES], ids=["shared", "migrated"])
async def test_what_an_agent_does_while_its_code_is_changed_is_not_lost(swarm: Swarm, more: str) -> None:
    at_work = asyncio.create_task(swarm.ask(s=1.5))
    await asyncio.sleep(0.2)
    for version in (2, 3):
        assert (await swarm.reload(version, more)).settled
    assert not at_work.done(), "a reload waits for nobody's work"
    assert await at_work == [1, 1]
    assert await swarm.ask() == [3, 2]
    assert (await swarm.cell.reload_status.remote())["begun_anew"] == 0


async def test_an_attempt_for_an_agent_that_is_about_to_change_waits_for_it(home: Path) -> None:
    cell = Cell(named="c", swarm="s", settings=Settings(state_url="memory://"), find=lambda name: None)
    await cell.host([Seat.of(AgentSpec(role="r", policy=f"{MODULE}:Counter"), agent_id="a")])
    life = (await cell.reload_status())["life"]
    work = Work(Task(goal="g", inputs={"s": 0.3})).pack()
    first, second = (Attempt(f"m/t/0/{n}", "m", "t", 0, n, "r", 5.0, work) for n in (1, 2))
    await cell.run([("a", first)])
    new = source(2, MIGRATES)
    assert await cell.reload(life, MODULE, Commit("c", 1, new.digest), new) == Answer("running", agents=1)
    await cell.run([("a", second)])
    reports: list[Report] = []
    async with asyncio.timeout(20.0):
        while len(reports) < 2:
            reports += (await cell.collect(0, len(reports), 1.0)).reports
    assert [Reply.model_validate_json(report.reply or b"").value for report in reports] == [[1, 1], [2, 2]]


async def test_one_way_migrations_go_back_only_to_what_was_left(swarm: Swarm) -> None:
    await swarm.ask()
    await swarm.reload(2, "\ndef migrate(state, old):\n    return {'calls': 1000}\n")
    assert await swarm.ask() == [2, 1001]
    with pytest.raises(ReloadError, match="no migrate_back"):
        await swarm.coordinator.roll_back.remote(MODULE)
    assert await swarm.runs() == 2
    await swarm.coordinator.roll_back.remote(MODULE, True)
    assert await swarm.ask() == [1, 2]


async def test_rolling_back_twice_goes_two_versions_back_and_a_repeat_goes_nowhere(swarm: Swarm) -> None:
    for version in (2, 3):
        await swarm.reload(version)
    assert (await swarm.coordinator.roll_back.remote(MODULE, False, 3)).version == 2
    repeated = await swarm.coordinator.roll_back.remote(MODULE, False, 3)
    assert (repeated.changed, await swarm.runs()) == (False, 2)
    assert (await swarm.coordinator.roll_back.remote(MODULE)).version == 1
    with pytest.raises(ReloadError, match="nothing to roll back"):
        await swarm.coordinator.roll_back.remote(MODULE)
    assert (await swarm.reload(6)).version == 6, "numbers are never used twice"


async def test_nothing_to_roll_back(swarm: Swarm) -> None:
    with pytest.raises(ReloadError, match="has not been reloaded"):
        await swarm.coordinator.roll_back.remote(MODULE)
    with pytest.raises(ReloadError, match="no"):
        await swarm.reload(2, "\nraise RuntimeError('no')")
    with pytest.raises(ReloadError, match="is at the version that was deployed"):
        await swarm.coordinator.roll_back.remote(MODULE)


async def test_the_coordinator_imports_nothing_of_what_it_is_given(
    swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "reloads_test_slow"
    package.mkdir()
    package.joinpath("__init__.py").write_text("")
    imported: list[str] = []
    monkeypatch.setattr("chimera.actors.reloads.compiled", lambda source: imported.extend(sys.modules))
    monkeypatch.setattr("chimera.actors.reload_line.ReloadLine.propose", _refuse)
    with pytest.raises(ReloadError, match="refused here"):
        await swarm.coordinator.reload.remote("reloads_test_slow.module", Parcel(b"a = 1"))
    assert imported and "reloads_test_slow" not in imported


async def test_a_package_stays_one_wherever_its_source_comes_from(swarm: Swarm, tmp_path: Path) -> None:
    package = tmp_path / "reloads_test_package"
    package.mkdir()
    package.joinpath("__init__.py").write_text("async def policy(task, context): return 'old'")
    package.joinpath("late.py").write_text("async def policy(task, context): return 'late'")
    new = Parcel(b"async def policy(task, context): return 'new'", "/elsewhere/new.py")
    await swarm.coordinator.reload.remote("reloads_test_package", new)
    names = ("reloads_test_package", "reloads_test_package.late")
    specs = [AgentSpec(role=name, policy=f"{name}:policy") for name in names]
    await swarm.coordinator.spawn_agents.remote([Seat.of(spec) for spec in specs])
    assert [await swarm.ask(name) for name in names] == ["new", "late"]


async def test_late_and_restarted_cells_take_what_is_committed(swarm: Swarm) -> None:
    await swarm.reload(2)
    await swarm.spawn("late")
    assert await swarm.runs("late") == 2
    swarm.processes.crash("Cell[0]")
    await swarm.back()
    assert await swarm.ask("role0") == [2, 1]


async def test_an_actor_that_dies_between_prepare_and_commit_comes_back_on_what_is_committed(swarm: Swarm) -> None:
    swarm.before_record(EventKind.RELOAD_COMMITTED, lambda: swarm.processes.crash("Cell[0]"))
    assert (await swarm.reload(2)).version == 2
    await swarm.back()
    assert (await swarm.ask("role0"), await swarm.ask("role1")) == ([2, 1], [2, 1])


@pytest.mark.parametrize("kind", [EventKind.RELOAD_PROPOSED, EventKind.RELOAD_COMMITTED])
async def test_a_coordinator_that_dies_before_it_has_decided_changes_nothing(swarm: Swarm, kind: EventKind) -> None:
    swarm.before_record(kind, lambda: swarm.processes.crash("Coordinator"))
    with pytest.raises(Exception, match="died"):
        await swarm.reload(2)
    await swarm.coordinator.start.remote()
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (1, 1)
    assert (await swarm.reload(3)).actors == 1
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (3, 3)


async def test_a_coordinator_that_dies_after_it_has_decided_finishes(swarm: Swarm) -> None:
    reloading = swarm.coordinator.actor._reloads
    note = reloading._note

    async def noting(*facts: Any) -> None:
        await note(*facts)
        if facts[0][0] is EventKind.RELOAD_COMMITTED:
            swarm.processes.crash("Coordinator")

    reloading._note = noting
    with pytest.raises(Exception, match="died"):
        await swarm.reload(2)
    await swarm.coordinator.start.remote()

    async def all_run() -> bool:
        return (await swarm.runs("role0"), await swarm.runs("role1")) == (2, 2)

    await until(all_run)
    assert (await swarm.coordinator.roll_back.remote(MODULE)).version == 1


@pytest.mark.parametrize("kind", [EventKind.RELOAD_PROPOSED, EventKind.RELOAD_COMMITTED])
async def test_what_cannot_be_written_has_not_happened(swarm: Swarm, kind: EventKind) -> None:
    await swarm.reload(2)
    swarm.before_record(kind, lambda: StorageError("the disk is full"))
    with pytest.raises(ReloadError, match="the disk is full"):
        await swarm.reload(3)
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (2, 2)
    assert (await swarm.reload(4)).settled
    assert (await swarm.runs("role0"), await swarm.runs("role1")) == (4, 4)


async def test_a_module_that_nobody_has_yet_is_there_for_who_comes(swarm: Swarm) -> None:
    await swarm.coordinator.reload.remote(
        "reloads_test_other", Parcel(b"async def policy(task, context): return 'new'")
    )
    spec = AgentSpec(role="new", policy="reloads_test_other:policy")
    await swarm.coordinator.spawn_agents.remote([Seat.of(spec)])
    assert await swarm.ask("new") == "new"


async def test_reloads_of_one_module_take_turns_and_too_many_are_refused(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloads, "MAX_PROPOSALS", 3)
    answers = await asyncio.gather(*(swarm.reload(number) for number in range(2, 7)), return_exceptions=True)
    assert [isinstance(answer, Overloaded) for answer in answers] == [False] * 3 + [True] * 2
    assert await swarm.runs() == 4


async def test_there_is_a_limit_on_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloads, "MAX_MODULES", 0)

    async def none() -> list[str]:
        return []

    with pytest.raises(ReloadError, match="0 modules"):
        await Reloads(cells=none).reload("some_module", Parcel(b""))
