"""The actors as plain objects in one process: handles that answer as Ray's do, processes that die, and no Ray.

Every argument and answer is pickled, as on its way between processes. A process that is killed takes its tasks with it,
and who had called it is told so.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ray.exceptions import ActorDiedError

from chimera.actors.cell import Cell
from chimera.actors.coordinator import Coordinator
from chimera.actors.sessions import Submission
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, Budget, Task, TaskResult
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.policy import Seat

SWARM = "swarm-test"

_life: ContextVar[Life | None] = ContextVar("life", default=None)


class Life:
    """A process: from its start to its end. What it does afterwards, from a timer or a thread, has no effect."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.over = False

    def started(self, task: asyncio.Task[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def end(self) -> None:
        self.over = True
        for task in self.tasks:
            task.cancel()


class Handle:
    """An actor: `handle.method.remote(...)` is a task of its process that calls the object's method.

    `slow` holds calls of these methods up until their event is set: a call that is overtaken, or never answered.
    `answers` counts, by method, what callers were answered.
    """

    door = None  # nobody calls it but through its handle

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.slow: dict[str, asyncio.Event] = {}
        self.answers: Counter[str] = Counter()
        self.living = True
        self.lives = 0
        self._begin()

    def __getattr__(self, name: str) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda *arguments: self._call(name, arguments))})

    def end(self, *, restart: bool) -> None:
        """Its process is gone, as after kill -9."""
        self.life.end()
        self.living = restart
        if restart:
            self._begin()

    def _begin(self) -> None:
        self.lives += 1
        self.life = Life()
        self.actor = self._inside(self._make)
        if hasattr(self.actor, "awake"):
            self._inside(lambda: asyncio.ensure_future(self.actor.awake()))

    def _inside(self, call: Callable[[], Any]) -> Any:
        before = _life.set(self.life)
        try:
            return call()
        finally:
            _life.reset(before)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.living:
            answered.set_exception(ActorDiedError())
            answered.exception()
            return answered
        packed, life = pickle.dumps(arguments), self.life
        work = self._inside(lambda: asyncio.ensure_future(self._work(name, packed)))

        def answer(done: asyncio.Task[Any]) -> None:
            if answered.done():
                return
            if life.over or done.cancelled():
                answered.set_exception(ActorDiedError())
            elif error := done.exception():
                answered.set_exception(error)
            else:
                answered.set_result(pickle.loads(done.result()))
                self.answers[name] += 1
            answered.exception()

        work.add_done_callback(answer)
        return answered

    async def _work(self, name: str, packed: bytes) -> bytes:
        if held := self.slow.get(name):
            await held.wait()
        return pickle.dumps(await getattr(self.actor, name)(*pickle.loads(packed)))


class Processes:
    """All there are of one test. Made inside its event loop."""

    def __init__(self) -> None:
        self.by_name: dict[str, Handle] = {}
        asyncio.get_running_loop().set_task_factory(_belonging)

    def spawn(self, cls: type, *, name: str, **arguments: Any) -> Handle:
        """As `cluster.spawn`: the living actor of that name, or a new one."""

        def make() -> Any:
            return cls(**arguments, spawn_cell=self.spawn_cell, kill=self.kill, end_self=lambda: self.end(name))

        return self._start(name, make)

    def spawn_cell(self, name: str, swarm: str, settings: Settings) -> Handle:
        full = f"{swarm}/{name}"
        return self._start(
            full,
            lambda: Cell(named=name, swarm=swarm, settings=settings, end_self=lambda: self.end(full), find=self.find),
        )

    def coordinator(self, *, cells: int = 2, **settings: Any) -> Handle:
        """A coordinator that this test can kill; `living` says what there is besides."""
        made = Settings(**{"journal_url": "memory://", "state_url": "memory://", **settings})
        return self._start(
            f"{SWARM}/Coordinator",
            lambda: Coordinator(
                swarm=SWARM, settings=made, cells=cells, spawn=self.spawn, kill=self.kill, find=self.find
            ),
        )

    def find(self, name: str) -> Handle | None:
        """As `cluster.find`."""
        handle = self.by_name.get(name)
        return handle if handle and handle.living else None

    def kill(self, handle: Handle, *, restart: bool = False) -> None:
        """As `cluster.kill`."""
        caller = _life.get()
        if handle.living and not (caller and caller.over):
            handle.end(restart=restart)

    def crash(self, name: str) -> None:
        """kill -9 of an actor's process, which Ray starts again."""
        self.by_name[f"{SWARM}/{name}"].end(restart=True)

    def end(self, name: str) -> None:
        """An actor ends itself."""
        self.kill(self.by_name[name])

    @property
    def living(self) -> set[str]:
        """The short names of the actors that live."""
        return {name.removeprefix(f"{SWARM}/") for name, handle in self.by_name.items() if handle.living}

    def _start(self, name: str, make: Callable[[], Any]) -> Handle:
        if name not in self.by_name or not self.by_name[name].living:
            self.by_name[name] = Handle(make)
        return self.by_name[name]


def _belonging(loop: asyncio.AbstractEventLoop, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """A task factory: what a process starts ends with it."""
    task = asyncio.Task(work, loop=loop, context=context)
    if life := _life.get():
        life.started(task)
    return task


def coordinator(**settings: Any) -> Coordinator:
    """One as a plain object, its managers and cells beside it."""
    return coordinator_with(Processes(), **settings)


def coordinator_with(processes: Processes, *, cells: int = 2, swarm: str = SWARM, **settings: Any) -> Coordinator:
    made = Settings(**{"journal_url": "memory://", "state_url": "memory://", **settings})
    return Coordinator(
        swarm=swarm, settings=made, cells=cells, spawn=processes.spawn, kill=processes.kill, find=processes.find
    )


def seats(*policies: str, **spec: Any) -> list[Seat]:
    """Agents of `tests.policies`, as a client hands them over."""
    return [Seat.of(AgentSpec(policy=f"tests.policies:{policy}", **spec)) for policy in policies]


def graph(**task: Any) -> TaskGraph:
    return TaskGraph(nodes=(TaskNode(id="t", task=Task(**{"goal": "g", **task})),), output="t")


async def submit(
    swarm: Coordinator, mission_id: str, tasks: TaskGraph, deadline_s: float = 20.0, budget: Budget = NO_LIMIT
) -> None:
    """Start a mission, or raise why it is refused."""
    [refusal] = await swarm.submit("tests", [Submission.of(mission_id, tasks, deadline_s, budget)])
    if refusal is not None:
        raise refusal


async def run(swarm: Coordinator, mission_id: str = "m", deadline_s: float = 20.0, **task: Any) -> TaskResult:
    """A mission of one task, and its result."""
    await submit(swarm, mission_id, graph(**task), deadline_s)
    result = await swarm.result(mission_id, 20.0)
    assert result is not None
    return result


async def until(true: Callable[[], Any], limit_s: float = 60.0) -> None:
    """Wait for what must become true, or whose answer must."""
    async with asyncio.timeout(limit_s):
        while True:
            found = true()
            if (await found) if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)
