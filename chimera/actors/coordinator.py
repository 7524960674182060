"""The coordinator: the one mailbox of a swarm. It admits, journals, decides and answers.

The thinking is `swarm.brain`'s, one for each mission. This shell journals what a brain records before it performs
what the brain asks for, keeps the clock, and lets clients wait for what they want to know.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chimera.actors import cluster
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, GraphError, InputError, NoAgents, Overloaded, PolicyError, SwarmError
from chimera.core.events import Event
from chimera.core.types import Isolation, MissionState, TaskResult
from chimera.storage.journal import Journal, open_journal
from chimera.swarm.attempt import Attempt
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph
from chimera.swarm.instructions import (
    Cancel,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Started,
    Tick,
    WakeAt,
)
from chimera.swarm.policy import Seat

log = logging.getLogger(__name__)

MAX_KEPT = 1_000
"""Ended missions whose result stays in memory for late callers."""

MAX_WAIT_S = 30.0

MAX_EVENTS = 100
"""Events in one answer or one append: a reply may be a megabyte."""

MAX_PATIENCE = 10
"""How often an append is tried again when the journal is overloaded."""

MAX_GRAPH_BYTES = 3_000_000
"""JSON bytes of a mission's graph, which is one event of the journal."""


@dataclass(slots=True)
class _Mission:
    brain: MissionBrain | None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_seq: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    result: TaskResult | None = None
    alarm: asyncio.TimerHandle | None = None


class Coordinator:
    """One swarm's head."""

    def __init__(
        self,
        *,
        swarm: str,
        settings: Settings,
        cells: int,
        clock: Clock | None = None,
        spawn: Callable[..., Any] = cluster.spawn,
        kill: Callable[..., None] = cluster.kill,
    ) -> None:
        self._swarm = swarm
        self._settings = settings
        self._cells = cells
        self._clock = clock or SystemClock()
        self._spawn = spawn
        self._kill = kill
        self._decomposer = TaskDecomposer(max_nodes=settings.max_nodes)
        self._missions: OrderedDict[str, _Mission] = OrderedDict()
        self._running = 0
        self._agents: dict[str, Seat] = {}
        self._numbers = itertools.count()
        self._gone = ""
        self._journal: Journal | None = None
        self._manager: Any = None
        self._collector: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Coordinator[{self._swarm}] {len(self._agents)} agents, {self._running} missions"

    async def start(self) -> None:
        """Open the journal and start the managers. Call once, before anything else."""
        from chimera.actors.manager import Manager

        self._journal = open_journal(self._settings.journal)
        name = f"{self._swarm}/Manager[0]"
        self._manager = self._spawn(
            Manager, name=name, named="Manager[0]", swarm=self._swarm, settings=self._settings, cells=self._cells
        )
        self._collector = asyncio.create_task(self._collect())

    async def spawn_agents(self, seats: Sequence[Seat]) -> list[str]:
        """Give each agent an id and a place. All or none: a policy that cannot be loaded raises PolicyError."""
        if len(self._agents) + len(seats) > self._settings.max_agents:
            raise Overloaded(
                f"{len(self._agents)} agents are here and {len(seats)} more asked for; the limit is "
                f"{self._settings.max_agents} (max_agents, CHIMERA_MAX_AGENTS)", 60.0,
            )  # fmt: skip
        alone = [seat for seat in (*self._agents.values(), *seats) if seat.isolation is Isolation.DEDICATED]
        if len(alone) > self._settings.max_dedicated:
            raise Overloaded(
                f"{len(alone)} agents would have a process of their own; the limit is "
                f"{self._settings.max_dedicated} (CHIMERA_MAX_DEDICATED)",
                60.0,
            )
        named = [replace(seat, agent_id=f"{seat.role}-{next(self._numbers)}") for seat in seats]
        self._agents |= {seat.agent_id: seat for seat in named}
        spawned = False
        try:
            refused: dict[str, str] = await self._manager.spawn.remote(named)
            spawned = not refused
        finally:
            if not spawned:
                for seat in named:
                    del self._agents[seat.agent_id]
        if refused:
            raise PolicyError("; ".join(sorted(set(refused.values()))))
        return [seat.agent_id for seat in named]

    async def submit(self, mission_id: str, graph: TaskGraph, deadline_s: float) -> None:
        """Admit a mission. Raises Overloaded, GraphError; a second submit of the same id changes nothing."""
        if mission_id in self._missions:
            return
        if self._running >= self._settings.max_missions:
            raise Overloaded(f"{self._running} missions are running; the limit is CHIMERA_MAX_MISSIONS", 1.0)
        if self._gone:
            raise SwarmError(self._gone)
        graph = self._decomposer.validate(graph)
        size = len(graph.model_dump_json())
        if size > MAX_GRAPH_BYTES:
            raise GraphError(
                f"the mission's tasks are {size} bytes as JSON; the limit is {MAX_GRAPH_BYTES}", "too_many"
            )
        roles = {seat.role for seat in self._agents.values()}
        for node in graph.nodes:
            if node.task.role not in roles:
                role = node.task.role
                raise NoAgents(f"task {node.id!r} needs an agent of role {role!r}; spawn one: AgentSpec(role={role!r})")
        brain = MissionBrain(mission_id=mission_id, graph=graph, deadline_s=deadline_s, decomposer=self._decomposer)
        self._missions[mission_id] = _Mission(brain)
        self._running += 1
        await self._handle(mission_id, Started())

    async def result(self, mission_id: str, wait_s: float) -> TaskResult | None:
        """The result, waiting up to `wait_s` (at most 30) for it; None when it is not there yet."""
        mission = self._find(mission_id)
        until = self._clock.monotonic() + min(wait_s, MAX_WAIT_S)
        while mission.result is None and (left := until - self._clock.monotonic()) > 0:
            await self._news(mission, left)
        return mission.result

    async def events(self, mission_id: str, after: int, wait_s: float) -> list[Event]:
        """Events with `seq > after`, waiting up to `wait_s` for the first. Empty: nothing new, or all is told."""
        mission = self._find(mission_id)
        if mission.last_seq <= after and mission.result is None:
            await self._news(mission, min(wait_s, MAX_WAIT_S))
        return await self._journal.read(mission_id, after=after, limit=MAX_EVENTS) if self._journal else []

    async def status(self) -> dict[str, Any]:
        """Counts of the whole swarm."""
        manager = await self._manager.status.remote()
        return {
            "swarm": self._swarm,
            "pid": os.getpid(),
            "missions_running": self._running,
            "missions": len(self._missions),
            **manager,
        }

    async def close(self) -> None:
        """End the cells and the managers, and close the journal. Safe to repeat."""
        if self._collector:
            self._collector.cancel()
        if self._manager is not None:
            try:
                await self._manager.close.remote()
            except cluster.CALL_FAILED as error:
                log.warning("manager did not close: %s", error)
            self._kill(self._manager)
            self._manager = None
        if self._journal is not None:
            await self._journal.close()
            self._journal = None

    def _find(self, mission_id: str) -> _Mission:
        mission = self._missions.get(mission_id)
        if mission is None:
            raise InputError(f"no mission {mission_id!r} here; the last {MAX_KEPT} that ended are kept in memory")
        return mission

    async def _news(self, mission: _Mission, wait_s: float) -> None:
        try:
            await asyncio.wait_for(mission.news.wait(), wait_s)
        except TimeoutError:
            return

    async def _collect(self) -> None:
        """Take reports from the manager for as long as it lives."""
        acked = 0
        while True:
            try:
                batch = await self._manager.collect.remote(acked, MAX_WAIT_S)
            except Exception as error:
                log.exception("the manager is gone")
                self._lose_everything(f"Manager[0] is gone ({cluster.unwrap(error)}); start a new swarm")
                return
            acked = batch.last
            for report in batch.reports:
                if report.mission_id in self._missions:
                    self._start_job(self._handle(report.mission_id, Reported(report)))

    def _lose_everything(self, why: str) -> None:
        self._gone = why
        for mission_id, mission in list(self._missions.items()):
            if mission.result is None:
                self._fail(mission_id, mission, SwarmError(why))

    async def _handle(self, mission_id: str, happening: Happening) -> None:
        mission = self._missions.get(mission_id)
        if mission is None:
            return
        async with mission.lock:
            if mission.brain is None:
                return
            try:
                steps = mission.brain.handle(happening, self._clock.monotonic(), self._clock.now())
                await self._perform(mission_id, mission, steps)
            except Exception as error:  # whatever it is, the client must hear of it
                log.exception("mission %s", mission_id)
                self._fail(mission_id, mission, error)

    async def _perform(self, mission_id: str, mission: _Mission, steps: list[Instruction]) -> None:
        await self._record([step.event for step in steps if isinstance(step, Record)])
        if mission.result is not None:
            return  # it was ended while this was being written
        attempts: list[Attempt] = []
        for step in steps:
            match step:
                case Record(event):
                    mission.last_seq = event.seq
                case Dispatch(more):
                    attempts.extend(more)
                case Cancel(attempt_ids):
                    gone = set(attempt_ids)
                    attempts = [attempt for attempt in attempts if attempt.id not in gone]
                    self._manager.cancel.remote(list(attempt_ids))
                case WakeAt(at_s):
                    self._wake(mission_id, mission, at_s)
                case Finish(result):
                    self._finish(mission_id, mission, result)
        if attempts:
            self._manager.dispatch.remote(attempts)
        mission.news.set()
        mission.news = asyncio.Event()

    async def _record(self, events: list[Event]) -> None:
        """Append in order, in batches; a journal that has too much to do is waited for, up to a limit."""
        for start in range(0, len(events), MAX_EVENTS):
            for patience in range(MAX_PATIENCE, -1, -1):
                try:
                    if self._journal:
                        await self._journal.append(events[start : start + MAX_EVENTS])
                    break
                except Overloaded as error:
                    if patience == 0:
                        raise
                    await asyncio.sleep(error.retry_after_s)

    def _wake(self, mission_id: str, mission: _Mission, at_s: float) -> None:
        if mission.alarm:
            mission.alarm.cancel()
        delay_s = max(0.0, at_s - self._clock.monotonic())
        loop = asyncio.get_running_loop()
        mission.alarm = loop.call_later(delay_s, lambda: self._start_job(self._handle(mission_id, Tick())))

    def _fail(self, mission_id: str, mission: _Mission, error: Exception) -> None:
        kind = type(error).__name__
        message = str(error) if isinstance(error, ChimeraError) else f"{kind}: {error}"
        failure = TaskResult(
            mission_id=mission_id,
            state=MissionState.FAILED,
            explanation=message,
            error={"kind": kind, "message": message, "reason": ""},
        )
        if mission.brain and self._manager is not None and not self._gone:
            self._manager.cancel.remote(list(mission.brain.open_attempts))
        self._finish(mission_id, mission, failure)
        mission.news.set()

    def _finish(self, mission_id: str, mission: _Mission, result: TaskResult) -> None:
        if mission.result is not None:
            return
        mission.result = result
        mission.brain = None
        self._running -= 1
        if mission.alarm:
            mission.alarm.cancel()
        self._missions.move_to_end(mission_id)
        while len(self._missions) - self._running > MAX_KEPT:
            old = next(name for name, kept in self._missions.items() if kept.result is not None)
            del self._missions[old]

    def _start_job(self, work: Any) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
