"""What becomes of agents of all kinds when the code of their policies changes: objects, slots, models, functions."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chimera.actors import reloading, residents
from chimera.core.errors import ReloadError
from chimera.core.types import AgentSpec
from chimera.reload.messages import Parcel
from chimera.reload.reloader import KEEP
from chimera.swarm.policy import Seat
from tests.actors.in_process import until
from tests.actors.test_reloads import Swarm as _Swarm

MODULE = "reload_agents_module"

HELPER = "reload_agents_helper"

KINDS = {
    "object with a lock": """
import threading
class Agent:
    def __init__(self):
        self.calls, self.lock = 0, threading.Lock()
    async def __call__(self, task, context):
        self.calls += 1
        return [VERSION, self.calls]
""",
    "slots": """
import asyncio
from dataclasses import dataclass
@dataclass(slots=True)
class Agent:
    calls: int = 0
    async def __call__(self, task, context):
        await asyncio.sleep(task.inputs.get("s", 0.0))
        self.calls += 1
        return [VERSION, self.calls]
""",
    "slots below a dict": """
class Base:
    pass
class Agent(Base):
    __slots__ = ("calls",)
    def __init__(self):
        self.calls, self.more = 0, 0
    async def __call__(self, task, context):
        self.calls, self.more = self.calls + 1, self.more + 1
        assert self.calls == self.more
        return [VERSION, self.calls]
""",
    "model": """
from pydantic import BaseModel, PrivateAttr
class Agent(BaseModel):
    calls: int = 0
    _private: int = PrivateAttr(default=0)
    async def __call__(self, task, context):
        self.calls += 1
        self._private += 1
        assert self.calls == self._private
        return [VERSION, self.calls]
""",
    "bound method": """
class Counter:
    calls = 0
    async def go(self, task, context):
        self.calls += 1
        return [VERSION, self.calls]
counter = Counter()
Agent = counter.go
""",
    "made by __new__": """
class Agent:
    def __new__(cls, **options):
        made = super().__new__(cls)
        made.calls = 0
        return made
    async def __call__(self, task, context):
        self.calls += 1
        return [VERSION, self.calls]
""",
    "what another module makes": """
import itertools
from types import SimpleNamespace
class Counter(SimpleNamespace):
    pass
from functools import partial
async def go(calls, task, context):
    return [VERSION, next(calls)]
import sys
kept = sys.modules.setdefault("reload_agents_kept", SimpleNamespace(calls=itertools.count(1)))
Agent = partial(go, kept.calls)
""",
}

MIGRATES = "\ndef migrate(state, old):\n    return dict(state)\n"


class Swarm(_Swarm):
    """Its module is made of what a test gives; `deploy` is version 1."""

    folder: Path

    def deploy(self, text: str, module: str = MODULE) -> None:
        (self.folder / f"{module}.py").write_text(f"VERSION = 1\n{text}", encoding="utf-8")

    async def load(self, version: int, text: str, module: str = MODULE) -> Any:
        return await self.coordinator.reload.remote(module, Parcel(f"VERSION = {version}\n{text}".encode()))

    async def agents(self, *roles: str, policy: str = f"{MODULE}:Agent") -> None:
        seats = [Seat.of(AgentSpec(role=role, policy=policy)) for role in roles]
        await self.coordinator.spawn_agents.remote(seats)

    async def lost(self) -> int:
        return int((await self.cell.reload_status.remote())["begun_anew"])


@pytest.fixture
async def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Swarm]:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (MODULE, HELPER, "reload_agents_kept"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = await Swarm.of(tmp_path, roles=0)
    assert isinstance(made, Swarm)
    made.folder = tmp_path
    yield made
    await made.coordinator.close.remote()


@pytest.mark.parametrize("kind", KINDS)
async def test_agents_of_every_kind_keep_what_they_know(swarm: Swarm, kind: str) -> None:
    swarm.deploy(KINDS[kind])
    await swarm.agents("r")
    assert await swarm.ask("r") == [1, 1]
    for version in (2, 3):
        assert (await swarm.load(version, KINDS[kind])).agents == 1
        assert await swarm.ask("r") == [version, version]
    await swarm.coordinator.roll_back.remote(MODULE)
    assert (await swarm.ask("r"), await swarm.lost()) == ([2, 4], 0)


@pytest.mark.parametrize("kind", ["slots", "slots below a dict", "model"])
async def test_what_is_in_slots_goes_through_migrate(swarm: Swarm, kind: str) -> None:
    swarm.deploy(KINDS[kind])
    await swarm.agents("r")
    await swarm.ask("r")
    ten_more = "\ndef migrate(state, old):\n    return {k: v + 10 if k != 'x' else v for k, v in state.items()}\n"
    if kind == "model":  # whose private part stays as it is, and is not for the user to give
        ten_more = "\ndef migrate(state, old):\n    return {'calls': state['calls']}\n"
    await swarm.load(2, KINDS[kind] + ten_more)
    assert await swarm.ask("r") == [2, 2 if kind == "model" else 12]


async def test_what_cannot_be_shared_changes_when_its_agent_is_idle(swarm: Swarm) -> None:
    swarm.deploy(KINDS["slots"])
    await swarm.agents("r")
    at_work = asyncio.create_task(swarm.ask("r", s=0.3))
    await asyncio.sleep(0.1)
    assert (await swarm.load(2, KINDS["slots"])).settled
    assert (at_work.done(), await at_work, await swarm.ask("r")) == (False, [1, 1], [2, 2])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (KINDS["object with a lock"] + MIGRATES, r"cannot be copied for migrate.*__deepcopy__"),
        ("class Agent(dict):\n    async def __call__(self, task, context):\n        return 1\n", "is a dict"),
        (KINDS["slots"] + "\ndef migrate(state, old):\n    return {'other': 1}\n", "no slot for 'other'"),
        (
            KINDS["slots"].replace("calls: int = 0", "calls: int = 0\n    if VERSION < 2:\n        more: int = 0"),
            "no slot for 'more'",
        ),
        (
            "import abc\nclass Agent(abc.ABC):\n    async def __call__(self, task, context):\n        return 1\n"
            "    if VERSION > 1:\n        @abc.abstractmethod\n        def other(self): ...\n",
            "is abstract",
        ),
    ],
)
async def test_a_state_that_cannot_be_taken_over_is_refused_and_kept(swarm: Swarm, text: str, why: str) -> None:
    swarm.deploy(text)
    await swarm.agents("r")
    before = await swarm.ask("r")
    with pytest.raises(ReloadError, match=why):
        await swarm.load(2, text)
    after = await swarm.ask("r")
    assert before == after == 1 or (before, after) == ([1, 1], [1, 2])
    assert await swarm.lost() == 0


async def test_what_has_no_name_is_refused_and_it_is_said_why(swarm: Swarm) -> None:
    text = (
        KINDS["made by __new__"]
        + "\ndef make():\n    async def inner(task, context):\n        return 1\n    return inner\n"
    )
    swarm.deploy(text)
    module = __import__(MODULE)
    for nameless in (module.make(), module.Agent().__call__):
        [name] = await swarm.coordinator.spawn_agents.remote([Seat.of(AgentSpec(role="r", policy=nameless))])
        with pytest.raises(ReloadError, match=rf"agent {name} is .*give such a policy as 'package.module:name'"):
            await swarm.load(2, text)
        await swarm.cell.evict.remote([name])
    assert (await swarm.load(2, text)).agents == 0


ONE_FOR_ALL = """
import asyncio
class Agent:
    calls = 0
    async def __call__(self, task, context):
        await asyncio.sleep(task.inputs.get("s", 0.0))
        self.calls += 1
        return [VERSION, self.calls]
agent = Agent()
"""


async def test_agents_that_are_one_object_change_together_and_stay_one(swarm: Swarm) -> None:
    swarm.deploy(ONE_FOR_ALL)
    await swarm.agents("a", "b", policy=f"{MODULE}:agent")
    assert (await swarm.ask("a"), await swarm.ask("b")) == ([1, 1], [1, 2])
    at_work = asyncio.create_task(swarm.ask("a", s=0.3))
    await asyncio.sleep(0.1)
    await swarm.load(2, ONE_FOR_ALL + MIGRATES)
    behind = asyncio.create_task(swarm.ask("b"))  # whatever it did now would be lost when the other changes
    await asyncio.sleep(0.05)
    assert not behind.done()
    assert (await at_work, await behind, await swarm.ask("a")) == ([1, 3], [2, 4], [2, 5])


async def test_a_helper_reaches_no_agent_that_took_it_from_its_module_and_that_is_counted(swarm: Swarm) -> None:
    swarm.deploy("", HELPER)
    swarm.deploy(f"from {HELPER} import VERSION\nasync def Agent(task, context):\n    return VERSION\n")
    await swarm.agents("r")
    assert (await swarm.load(2, "", HELPER)).agents == 0
    assert await swarm.ask("r") == 1


async def test_who_comes_late_by_a_name_in_another_module_gets_the_version_in_use(swarm: Swarm) -> None:
    swarm.deploy(KINDS["made by __new__"])
    (swarm.folder / f"{HELPER}.py").write_text(f"from {MODULE} import Agent\n", encoding="utf-8")
    await swarm.agents("early", policy=f"{HELPER}:Agent")
    assert (await swarm.load(2, KINDS["made by __new__"])).agents == 1
    await swarm.agents("late", policy=f"{HELPER}:Agent")
    assert (await swarm.ask("early"), await swarm.ask("late")) == ([2, 1], [2, 1])


async def test_a_file_that_changed_after_its_module_was_imported_is_not_what_was_deployed(swarm: Swarm) -> None:
    swarm.deploy(KINDS["made by __new__"])
    __import__(MODULE)
    (swarm.folder / f"{MODULE}.py").write_text(f"VERSION = 2\n{KINDS['made by __new__']}", encoding="utf-8")
    later_ns = time.time_ns() + 10**9
    os.utime(swarm.folder / f"{MODULE}.py", ns=(later_ns, later_ns))
    await swarm.agents("r")
    assert await swarm.ask("r") == [1, 1]
    assert (await swarm.load(2, KINDS["made by __new__"])).changed
    assert await swarm.ask("r") == [2, 2]


async def test_the_state_that_was_left_outlives_versions_that_migrate_nothing(swarm: Swarm) -> None:
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("r")
    await swarm.ask("r")
    await swarm.load(2, text + "\ndef migrate(state, old):\n    return {'calls': 100}\n")
    await swarm.load(3, text)
    assert await swarm.ask("r") == [3, 101]
    await swarm.coordinator.roll_back.remote(MODULE)
    await swarm.coordinator.roll_back.remote(MODULE, True)
    assert await swarm.ask("r") == [1, 2]


@pytest.mark.parametrize(
    "ends",
    [
        "\nclass Exits(type(Agent)):\n    pass\ndef migrate(state, old):\n    raise SystemExit('out')\n",
        "\ndef __smoke__():\n    raise SystemExit('out')\n",
        "\nraise SystemExit('out')\n",
    ],
)
async def test_code_that_would_end_the_process_is_refused(swarm: Swarm, ends: str) -> None:
    swarm.deploy(KINDS["made by __new__"])
    await swarm.agents("r")
    with pytest.raises(ReloadError, match="SystemExit: out"):
        await swarm.load(2, KINDS["made by __new__"] + ends)
    assert await swarm.ask("r") == [1, 1]


async def test_a_deployed_file_that_ends_its_process_ends_no_cell(swarm: Swarm) -> None:
    swarm.deploy("raise SystemExit('a script')\n")
    assert (await swarm.load(2, KINDS["made by __new__"])).version == 2
    await swarm.agents("r")
    assert await swarm.ask("r") == [2, 1]


async def test_a_new_class_whose_making_raises_at_last_ends_no_cell(swarm: Swarm) -> None:
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("r")
    await swarm.load(2, text + "\ndef migrate(state, old):\n    return {'calls': 100}\n")
    exits = (
        "\ndef migrate(state, old):\n    import threading\n"
        "    if threading.current_thread() is threading.main_thread():\n        raise SystemExit('out')\n"
        "    return state\n"
    )
    await swarm.load(3, text + exits)
    assert (await swarm.ask("r"), await swarm.lost()) == ([3, 1], 1)


async def test_a_migrate_that_does_not_end_is_stopped_and_the_next_version_comes(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "TRIAL_S", 0.2)
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("a", "b")
    with pytest.raises(ReloadError, match=r"migrate\(\) of .* over the states of 2 agents took more than 0.2 s"):
        await swarm.load(2, text + "\ndef migrate(state, old):\n    while True:\n        pass\n")
    assert (await swarm.load(3, text)).settled
    assert await swarm.ask("a") == [3, 1]


async def test_what_cannot_be_stopped_holds_up_no_other_version(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "TRY_S", 0.5)
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("r")
    with pytest.raises(ReloadError, match=r"tried for 0.5 s and does not end"):
        await swarm.load(
            2, text + "\ndef migrate(state, old):\n    import time\n    time.sleep(1.5)\n    return state\n"
        )
    assert (await swarm.load(3, text)).settled
    assert await swarm.ask("r") == [3, 1]
    prepared = swarm.cell.actor._reloading._reloader._prepared
    await until(lambda: not prepared)


async def test_agents_that_come_during_reloads_are_written_beside_them(swarm: Swarm) -> None:
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("first")
    work = [swarm.load(version, text) for version in range(2, 6)] + [swarm.load(2, "", HELPER)]
    await asyncio.gather(*work, *(swarm.agents(f"r{n}") for n in range(6)))
    assert {(await swarm.ask(role))[0] for role in ("first", "r0", "r5")} == {5}


async def test_versions_that_were_given_up_take_no_memory(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "GARBAGE_BYTES", 0)
    text = KINDS["made by __new__"]
    swarm.deploy(text)
    await swarm.agents("r")
    classes = []
    gc.disable()  # as good as it is in a cell
    try:
        for version in range(2, 12):
            await swarm.load(version, text)
            classes.append(weakref.ref(sys.modules[MODULE].Agent))
        await until(lambda: sum(each() is not None for each in classes) <= KEEP)
    finally:
        gc.enable()
