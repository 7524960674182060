"""The coordinator: the one mailbox of a swarm. It admits, journals, decides and answers.

The thinking is `swarm.brain`'s, one for each mission. This shell opens the journal, looks after the managers, admits
missions within its limits, and lets clients wait for what they want to know. When it dies, Ray starts it again, and it
goes on from its journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from chimera.actors import cluster, scaling
from chimera.actors.admission import admitted, check_load, check_room, take_up
from chimera.actors.crew import Crew
from chimera.actors.enlisted import Enlisted
from chimera.actors.expenses import Expenses
from chimera.actors.metrics import SwarmMetrics
from chimera.actors.missions import Missions
from chimera.actors.muster import left, open_stream, read_muster, spawned
from chimera.actors.outbox import Batch
from chimera.actors.overview import overview
from chimera.actors.questions import MAX_LISTED, Questions, answer
from chimera.actors.reloads import Reloads
from chimera.actors.scaler import Scaler
from chimera.actors.scribe import Scribe
from chimera.actors.sessions import Sessions, Submission
from chimera.actors.tracing import open_tracer
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, Overloaded, StorageError, SwarmError
from chimera.core.events import Event, EventKind
from chimera.core.types import TaskResult
from chimera.reload.messages import Parcel, Reloaded, ReloadStatus
from chimera.storage.journal import MAX_READ, Journal, MissionSummary, open_journal
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.held import HeldTask, Review
from chimera.swarm.placement import plan_cells
from chimera.swarm.policy import Seat
from chimera.swarm.status import Activity, HeldStatus, SwarmStatus
from chimera.swarm.tally import Tally

log = logging.getLogger(__name__)

MAX_WAIT_S = 30.0
PULSE_S = 2.0


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
        find: Callable[[str], Any] = cluster.find,
    ) -> None:
        self._swarm = swarm
        self._settings = settings
        self._cells = cells
        self._clock = clock or SystemClock()
        self._spawn = spawn
        self._kill = kill
        self._decomposer = TaskDecomposer(max_nodes=settings.max_nodes)
        self._tally = Tally(self._clock.monotonic())
        self._metrics = SwarmMetrics()
        self._sessions = Sessions(self._clock)
        self._agents = Enlisted()
        self._ended: set[str] = set()
        self._missions_per_s = 0.0
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._scaler: Scaler | None = None
        self._spawning = asyncio.Lock()
        self._journal: Journal | None = None
        self._reloads = Reloads(cells=self._cell_names, find=find, kill=kill)

    def __repr__(self) -> str:
        running = self._missions.running if self._journal else 0
        return f"Coordinator[{self._swarm}] {len(self._agents.seats)} agents, {running} missions"

    async def awake(self) -> None:
        """Ray awaits this in every process of this actor; one that follows a dead one goes on from the journal."""
        if cluster.was_restarted():
            log.warning("%s was restarted; it goes on from its journal", self._swarm)
            self._starting = asyncio.create_task(self._start())

    async def start(self) -> None:
        """Open the journal, take up what it holds of this swarm, start the managers or find them. Safe to repeat."""
        begun = self._starting
        if begun is None or (begun.done() and (begun.cancelled() or begun.exception())):
            begun = self._starting = asyncio.create_task(self._start())
        await asyncio.shield(begun)

    async def spawn_agents(self, seats: Sequence[Seat], request: str = "") -> list[str]:
        """Give each agent an id and a place. All or none: a policy that cannot be loaded raises PolicyError.

        A `request` that was made before is answered as it was then.
        """
        await self.start()
        async with self._spawning:
            if request and request in self._agents.requests:
                return self._agents.requests[request]
            check_room(self._settings, [*self._agents.seats.values(), *seats])
            first, named = self._agents.number(seats)
            shares = self._crew.shares(named)
            told = [data for name, mine in shares.items() for data in spawned(name, request, mine)]
            try:
                await self._stream.note(*((EventKind.AGENTS_SPAWNED, data) for data in told))
                await self._crew.spawn(shares)
            except Exception:
                try:
                    await self._stream.note((EventKind.AGENTS_LEFT, left(first, len(named))))
                except StorageError as error:
                    log.error("agents that were refused may be back after a restart: %s", error)
                raise
            self._agents.take_in(named, request)
            return [seat.agent_id for seat in named]

    async def submit(self, session: str, submissions: Sequence[Submission]) -> list[ChimeraError | None]:
        """Admit missions; for each that is refused, why: Overloaded, GraphError, NoAgents, SwarmError.

        A mission that is here already is not started again, and its result goes to the session that asks last.
        """
        await self.start()
        self._sessions.open(session)
        answers: list[ChimeraError | None] = []
        here_already: list[str] = []
        submissions, unpaid = await self._expenses.fund(submissions, here=self._has)
        for submission in submissions:
            try:
                if submission.mission_id in unpaid:
                    raise unpaid[submission.mission_id]
                if self._has(submission.mission_id):
                    here_already.append(submission.mission_id)
                else:
                    self._missions.start(self._admit(submission), session)
                answers.append(None)
            except ChimeraError as error:
                answers.append(error.with_traceback(None))  # which would hold all that is here until it is collected
            except Exception as error:
                log.exception("mission %s", submission.mission_id)
                kind = type(error).__name__
                answers.append(SwarmError(f"mission {submission.mission_id} cannot be taken: {kind}: {error}"))
        await self._scribe.written()
        lost = set(await self.attend(session, here_already))
        return [
            SwarmError(f"mission {submission.mission_id} is here already, and its result cannot be read")
            if submission.mission_id in lost
            else answer
            for submission, answer in zip(submissions, answers, strict=True)
        ]

    async def attend(self, session: str, mission_ids: Sequence[str]) -> list[str]:
        """Have these missions' results told to the session; those that are not known here are returned."""
        await self.start()
        self._sessions.open(session)
        unknown = []
        for mission_id in mission_ids:
            try:
                if packed := await self._missions.attend(mission_id, session):
                    self._sessions.tell(session, packed)
            except ChimeraError:
                unknown.append(mission_id)
        return unknown

    async def collect(
        self, session: str, acked: int, after: int, wait_s: float, origin: str | None = None
    ) -> Batch[bytes]:
        """Long-poll for the results of a session's missions; see `Sessions`."""
        await self.start()
        return await self._sessions.collect(session, acked, after, min(wait_s, MAX_WAIT_S), origin)

    async def result(self, mission_id: str, wait_s: float) -> TaskResult | None:
        """The result, waiting up to `wait_s` (at most 30) for it; None when it is not there yet."""
        await self.start()
        return await self._missions.result(mission_id, min(wait_s, MAX_WAIT_S))

    async def events(self, mission_id: str, after: int, wait_s: float) -> list[Event]:
        """See `Missions.events`; waits at most 30 seconds."""
        await self.start()
        return await self._missions.events(mission_id, after, min(wait_s, MAX_WAIT_S))

    async def missions(self, limit: int, running: bool) -> list[MissionSummary]:
        """This swarm's missions, the one that began last first."""
        await self.start()
        return [] if self._journal is None else await self._journal.missions(limit, swarm=self._swarm, running=running)

    async def cancel(self, mission_id: str, why: str = "cancelled by its user") -> TaskResult | None:
        """End a mission; its result is what there is by then. One that has ended stays as it is."""
        await self.start()
        self._missions.cancel(mission_id, why)
        return await self._missions.result(mission_id, MAX_WAIT_S)

    async def held(self, after: str = "", limit: int = MAX_LISTED) -> list[HeldStatus]:
        """Tasks that wait for a person, by key (`mission/task`), from the first one behind `after` on."""
        await self.start()
        return self._questions.listed(after, limit)

    async def held_task(self, mission_id: str, task_id: str) -> HeldTask:
        """All that a person is shown of a held task. Raises NotThere."""
        await self.start()
        return self._questions.held(mission_id, task_id)

    async def reviewed(self, mission_id: str, task_id: str, review: Review) -> None:
        """A person's answer, which is durable when this returns; see `questions.answer`. Raises InputError."""
        await self.start()
        await answer(self._missions, mission_id, task_id, review)

    async def resume(self, mission_id: str) -> TaskResult | None:
        """Take a mission over that another swarm left unfinished; the result, if it had ended.

        Agents of the roles that are not here are spawned as that swarm had them. The mission's deadline begins anew.
        Raises StorageError, InputError: also when that swarm is still at it.
        """
        await self.start()
        if mission_id in self._missions:
            return await self._missions.result(mission_id, 0.0)
        owner = (await self._missions.read(mission_id))[-1].swarm
        if owner != self._swarm and cluster.find(f"{owner}/Coordinator") is not None:
            raise InputError(f"mission {mission_id!r} is running in {owner}: cancel it there, or wait for it")
        if owner and owner != self._swarm and self._journal is not None:
            past = await read_muster(self._journal, owner)
            if wanted := [seat for _, seat in past.seats.values() if seat.role not in self._agents.roles]:
                await self.spawn_agents(wanted, request=f"resume {mission_id}")
        return await self._missions.recover(mission_id, taken_over=True)

    async def status(self) -> SwarmStatus:
        """The whole swarm at this moment."""
        await self.start()
        managers = await self._crew.status()
        return overview(self._swarm, self._activity(), managers, await asyncio.to_thread(scaling.nodes))

    async def reload(self, module: str, parcel: Parcel) -> Reloaded:
        """This source in every cell, or in none. Raises ReloadError, Overloaded."""
        await self.start()
        return await self._reloads.reload(module, parcel)

    async def roll_back(self, module: str, lossy: bool = False, leaving: int = 0) -> Reloaded:
        """The version before `leaving` (0: the one in use), everywhere or nowhere. Raises ReloadError, Overloaded."""
        await self.start()
        return await self._reloads.roll_back(module, lossy, leaving)

    async def reload_status(self) -> ReloadStatus:
        await self.start()
        return self._reloads.status()

    async def reload_join(self, cell: str, life: int) -> None:
        """A cell's process that has just started; returns when it runs what is committed. It may be needed to start."""
        await self._reloads.join(cell, life)

    async def close(self) -> None:
        """End the cells and the managers, and close the journal. Safe to repeat."""
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._starting is None:
            return
        try:
            await asyncio.shield(self._starting)
        except Exception as error:
            log.info("it had not started: %s", error)
        if self._pulse:
            self._pulse.cancel()
        self._reloads.close()
        if self._scaler:
            await self._scaler.close()
        if self._journal is None:
            return
        await self._let_go()
        if handle := cluster.find(f"{self._swarm}/State"):
            self._kill(handle)

    async def _let_go(self) -> None:
        """End all that `_start` began."""
        journal, self._journal = self._journal, None
        try:
            await self._missions.close()
            await self._crew.close()
        finally:
            await self._expenses.close()
            await self._scribe.finish()
            if journal is not None:
                await journal.close()

    async def _start(self) -> None:
        self._questions = Questions()
        self._expenses = Expenses(swarm=self._swarm, settings=self._settings, clock=self._clock)
        await self._expenses.begin()
        journal = open_journal(self._settings.journal)
        self._scribe = Scribe(journal, lambda events: self._tally.journaled(self._clock.monotonic(), events))
        self._missions = Missions(
            swarm=self._swarm,
            journal=journal,
            scribe=self._scribe,
            clock=self._clock,
            tally=self._tally,
            decomposer=self._decomposer,
            tracer=open_tracer(),
            ended=self._sessions.tell,
            questions=self._questions,
            paid=self._expenses.ended,
        )
        self._crew = self._missions.crew = Crew(
            swarm=self._swarm,
            settings=self._settings,
            spawn=self._spawn,
            kill=self._kill,
            heard=self._missions.heard,
            again=self._missions.again,
            clock=self._clock,
            tally=self._tally,
        )
        self._journal = journal
        try:
            await self._take_up(journal)
        except Exception:
            try:
                await self._let_go()  # the next call tries again
            except Exception:
                log.exception("what had been started cannot be ended")
            raise
        self._pulse = asyncio.create_task(self._beat())

    async def _take_up(self, journal: Journal) -> None:
        """Go on with what the journal holds of this swarm: its agents, then its missions."""
        past = await self._past(journal)
        gone = set(await self._crew.start(plan_cells(self._cells, self._settings.cells_per_manager), past))
        numbers = sorted(int(agent_id.rpartition("-")[2]) for agent_id in gone)
        await self._stream.note(*((EventKind.AGENTS_LEFT, left(number, 1)) for number in numbers))
        self._agents.dismiss(gone)
        unfinished = await journal.missions(MAX_READ, swarm=self._swarm, running=True)
        await take_up([told.mission_id for told in unfinished], self._missions, self._expenses)
        summaries = await journal.missions(MAX_READ, swarm=self._swarm)
        self._ended = {told.mission_id for told in summaries if told.last_kind is EventKind.MISSION_ENDED}
        self._crew.listen()

    async def _cell_names(self) -> list[str]:
        return [f"{self._swarm}/{cell}" for manager in await self._crew.status() for cell in manager.get("cells", {})]

    async def _past(self, journal: Journal) -> list[tuple[str, Seat]]:
        """This swarm's agents, by its journal; for a new swarm, none."""
        self._stream, muster = await open_stream(self._swarm, journal, self._scribe, self._clock)
        self._agents = Enlisted(muster)
        self._reloads.begin(muster.reloads, self._stream.note)
        if not muster.seq:
            await self._stream.note((EventKind.SWARM_STARTED, {"cells": self._cells}))
        return list(muster.seats.values())

    def _has(self, mission_id: str) -> bool:
        return mission_id in self._missions or mission_id in self._ended

    def _admit(self, submission: Submission) -> MissionBrain:
        """The brain of a new mission. Raises Overloaded, GraphError, NoAgents."""
        try:
            # first, since whoever offers too much must not cost much
            check_load(self._settings, submission.priority, self._missions, self._missions_per_s)
            return admitted(submission, roles=self._agents.roles, decomposer=self._decomposer, swarm=self._swarm)
        except ChimeraError as error:
            self._expenses.ended(submission.mission_id, 0.0)
            if isinstance(error, Overloaded):
                self._tally.refused()
            raise

    def _activity(self) -> Activity:
        return self._tally.snapshot(
            self._clock.monotonic(),
            running=self._missions.running,
            held=self._missions.held,
            waiting=self._questions.longest(),
            reserved=self._missions.reserved,
            scheme=self._settings.journal.partition(":")[0],
        )

    async def _beat(self) -> None:
        """Every few seconds: publish what can be seen, and follow the load."""
        scaler = self._scaler = Scaler(swarm=self._swarm, settings=self._settings, cells=self._cells, crew=self._crew)
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                managers = await self._crew.status()
                self._missions_per_s = (activity := self._activity()).rates.missions_per_s
                nodes = await asyncio.to_thread(scaling.nodes)
                self._metrics.publish(overview(self._swarm, activity, managers, nodes))
                await scaler.step(activity, managers, self._clock.monotonic())
                await self._expenses.repute(self._crew.reputations)
            except Exception:
                log.exception("the pulse missed a beat")
