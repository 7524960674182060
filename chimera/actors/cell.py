"""A cell: one process that hosts many agents. Attempts come in batches, reports are collected from its outbox."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chimera.actors import cluster
from chimera.actors.lease import Lease
from chimera.actors.outbox import Batch, Outbox
from chimera.actors.reloading import Reloading
from chimera.actors.residents import Resident, Residents
from chimera.actors.state import AgentMemory, Memories
from chimera.actors.threads import Threads, said
from chimera.actors.work_loop import Job, WorkLoop
from chimera.core.config import Settings
from chimera.core.errors import BudgetExceeded, InputError, NotBegun, PolicyError, ReplyError
from chimera.core.types import FailureKind
from chimera.reload.messages import Answer, Parcel, Request
from chimera.swarm.attempt import Attempt, Report, Work
from chimera.swarm.policy import Context, Meter, Policy, Seat, check_reply

MAX_THREADS = 4
"""Synchronous policies that run at the same time in one cell."""

MAX_STUCK = 16
"""Policies that go on past their time; with more, the cell asks for its own end and is started afresh."""

MAX_DETAIL = 2_000

MAX_REMEMBERED = 10_000
"""Attempts that are remembered when they have ended, or were cancelled and are not here (yet): calls may be repeated,
and overtake one another."""


@dataclass(slots=True, eq=False)
class _Run:
    """An attempt in hand. `work` is the loop that it runs on, None while it is in a thread. `key` names this very run:
    a cell that is taken over anew may be given an attempt again while its first run is still being stopped."""

    key: str
    agent_id: str
    resident: Resident | None
    attempt: Attempt
    meter: Meter
    started: float
    policy: Policy | None = None
    """None until it has begun."""
    work: WorkLoop | None = None
    timer: asyncio.TimerHandle | None = None
    thread: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an attempt ended."""

    reply: bytes | None = None
    failure: FailureKind | None = None
    detail: str = ""
    input_error: str = ""


_CANCELLED = _Ending(failure=FailureKind.CANCELLED, detail="cancelled")


class Cell:
    """Hosts agents. Knows nothing of missions: it runs attempts and says how they ended.

    It ends itself when nobody has collected from it for `settings.orphan_s`.
    """

    control_methods = ("reload", "reload_status", "reload_source")

    def __init__(
        self,
        *,
        named: str,
        swarm: str,
        settings: Settings,
        end_self: Callable[[], None] = cluster.end_self,
        find: Callable[[str], Any] = cluster.find,
    ) -> None:
        self._name = named
        self._settings = settings
        self._residents = Residents()
        self._reloading = Reloading(f"{swarm}/{named}", f"{swarm}/Coordinator", self._residents, find=find)
        self._running: dict[str, _Run] = {}
        self._called_off: dict[str, None] = {}
        self._over: dict[str, None] = {}
        self._runs = 0
        self._checks: set[asyncio.Task[None]] = set()
        self._outbox: Outbox[Report] = Outbox()
        self._begun = False
        self._memories = Memories(swarm, settings)
        self._threads = Threads()
        self._thread_room = asyncio.Semaphore(MAX_THREADS)
        self._blocked = 0
        self._work: WorkLoop | None = None
        self._lease = Lease(settings.orphan_s, end_self)

    def __repr__(self) -> str:
        return f"{self._name} {len(self._residents)} agents"

    async def awake(self) -> None:
        """Ray awaits this in every process of this actor: also in one that nobody will ever call, which must end."""
        self._lease.renew()

    async def host(self, seats: Sequence[Seat], afresh: bool = False) -> dict[str, str]:
        """Take in these agents; the ones whose policy cannot be loaded come back as `{agent_id: why}`.

        With `afresh` these are all there are: who else is here leaves, and whatever runs is dropped without a word.
        """
        self._lease.renew(at_least_s=self._settings.spawn_timeout_s)
        self._begun = True
        if afresh:
            for run in list(self._running.values()):
                self._close(run, _CANCELLED)
                self._stop(run)
            self._residents.clear()
            self._called_off.clear()
            self._over.clear()
            self._outbox = Outbox()
        await self._reloading.catch_up()
        refused = {}
        for seat in seats:
            try:
                await self._reloading.host(seat)
            except PolicyError as error:
                refused[seat.agent_id] = str(error)
        self._lease.renew()
        return refused

    async def evict(self, agent_ids: Sequence[str]) -> None:
        """Let these agents go."""
        self._residents.remove(agent_ids)

    async def run(self, batch: Sequence[tuple[str, Attempt]]) -> None:
        """Start these `(agent_id, attempt)`; returns at once, and each ends with a report in the outbox."""
        jobs: list[Job] = []
        now = time.monotonic()
        for agent_id, attempt in batch:
            if attempt.id in self._running or attempt.id in self._over:
                continue
            resident = self._residents.get(agent_id)
            self._runs += 1
            run = _Run(f"{attempt.id}#{self._runs}", agent_id, resident, attempt, Meter(attempt.spend), now)
            self._running[attempt.id] = run
            if attempt.id in self._called_off:
                self._end(run, _CANCELLED)
            elif resident is None:
                self._end(run, _Ending(failure=FailureKind.LOST, detail=f"{agent_id} is not here (any more)"))
            elif resident.due:
                resident.later.append(partial(self._begin_alone, run, resident))
            else:
                self._begin(run, resident, jobs)
        self._start(jobs)

    def _begin(self, run: _Run, resident: Resident, jobs: list[Job]) -> None:
        """Start it in a thread, or add it to the `jobs` of the loop."""
        policy = run.policy = resident.policy
        resident.busy += 1
        if inspect.iscoroutinefunction(policy if inspect.isroutine(policy) else type(policy).__call__):
            self._time(run)
            run.work = self._loop()
            jobs.append((run.key, partial(self._there, run)))
        else:
            run.thread = asyncio.create_task(self._in_turn(run))

    def _begin_alone(self, run: _Run, resident: Resident) -> None:
        if self._has(run):
            jobs: list[Job] = []
            self._begin(run, resident, jobs)
            self._start(jobs)

    def _loop(self) -> WorkLoop:
        if self._work is None:
            self._work = WorkLoop(self._ended)
        return self._work

    def _start(self, jobs: list[Job]) -> None:
        if jobs:
            self._loop().start(jobs)

    async def cancel(self, attempt_ids: Sequence[str]) -> None:
        """Stop these attempts. A synchronous policy cannot be: its thread is left alone, its reply dropped."""
        for attempt_id in attempt_ids:
            if run := self._running.get(attempt_id):
                self._end(run, _CANCELLED)
                self._stop(run)
            else:
                _remember(self._called_off, attempt_id)

    async def collect(self, acked: int, after: int, wait_s: float) -> Batch[Report]:
        """Long-poll for reports; see `Outbox`. Raises when so much is stuck here that a new cell is due."""
        self._lease.renew()
        if not self._begun:
            raise NotBegun(f"{self._name} has been started anew and hosts nobody yet")
        stuck = self._blocked + self._threads.overdue + (self._work.strays() if self._work else 0)
        if stuck > MAX_STUCK:
            raise RuntimeError(f"{self._name}: {stuck} policies go on long after their time")
        self._outbox.forget(acked)
        return await self._outbox.collect(after=after, wait_s=wait_s)

    async def vitals(self) -> dict[str, Any]:
        """The process: its `pid`, its `node`, the CPU seconds it wanted, its own memory in bytes."""
        wanted_s = max(cluster.wanted_cpu_s(), self._work.busy_s if self._work else 0.0)
        rss_bytes = cluster.rss_bytes()
        return {"pid": os.getpid(), "node": cluster.node_id(), "cpu_s": wanted_s, "rss_bytes": rss_bytes}

    async def reload(self, life: int, module: str, asked: Request, parcel: Parcel | None = None) -> Answer:
        """A step of a reload; see `chimera.actors.reloading`. It waits for no agent's work."""
        return await self._reloading.carry_out(life, module, asked, parcel)

    async def reload_status(self) -> dict[str, Any]:
        """Its `life` and the version of each module that it `runs`."""
        return self._reloading.status()

    async def reload_source(self, module: str) -> Parcel | None:
        """The source that this module was loaded from when it was deployed, if that is known."""
        return self._reloading.deployed(module)

    def _time(self, run: _Run) -> None:
        loop = asyncio.get_running_loop()
        run.timer = loop.call_later(run.attempt.timeout_s, self._out_of_time, run)

    def _ended(self, ended: list[tuple[str, Any]]) -> None:
        """These coroutines are over, wanted or not."""
        reports = []
        for key, ending in ended:
            run = self._running.get(key.rpartition("#")[0])
            if run and run.key == key:
                reports.append(self._close(run, ending or _CANCELLED))
        self._outbox.put(reports)

    def _end(self, run: _Run, ending: _Ending) -> None:
        if self._has(run):
            self._outbox.put([self._close(run, ending)])

    def _has(self, run: _Run) -> bool:
        return self._running.get(run.attempt.id) is run

    def _close(self, run: _Run, ending: _Ending) -> Report:
        """The one report of an attempt, which is not in hand any more."""
        run.meter.close()
        elapsed_s = time.monotonic() - run.started
        report = Report(
            run.attempt.id,
            run.attempt.mission_id,
            agent=run.agent_id,
            policy=run.resident.seat.label if run.resident else "",
            reply=ending.reply,
            failure=ending.failure,
            detail=ending.detail[:MAX_DETAIL].encode(errors="replace").decode(),
            input_error=ending.input_error,
            elapsed_s=elapsed_s,
            spent=run.meter.total(elapsed_s),
        )
        if run.timer:
            run.timer.cancel()
        del self._running[run.attempt.id]
        _remember(self._over, run.attempt.id)
        if run.resident and run.policy is not None:
            self._residents.ended(run.resident)
        return report

    def _stop(self, run: _Run) -> None:
        if run.thread:
            run.thread.cancel()
        if run.work:
            run.work.cancel([run.key])

    async def _there(self, run: _Run) -> _Ending:
        """An attempt from beginning to end, on the loop of the policies."""
        try:
            work = Work.unpack(run.attempt.work)
            assert run.policy is not None
            return self._reply(run, await run.policy(work.task, self._context(run, work)))
        except GeneratorExit:  # the loop is gone, and nobody waits for this
            raise
        except BaseException as error:
            return _failed(error)

    def _context(self, run: _Run, work: Work) -> Context:
        assert run.resident is not None
        memory = AgentMemory(self._memories, run.agent_id)
        return Context.of(
            run.attempt,
            work,
            agent_id=run.agent_id,
            role=run.resident.seat.role,
            settings=self._settings,
            memory=memory,
            meter=run.meter,
        )

    def _reply(self, run: _Run, returned: Any) -> _Ending:
        reply, encoded = check_reply(returned, max_bytes=self._settings.max_reply_bytes)
        if reply.cost_usd or reply.tokens:
            run.meter.spend(usd=reply.cost_usd, tokens=reply.tokens)
        return _Ending(reply=encoded)

    async def _in_turn(self, run: _Run) -> None:
        """An attempt by a synchronous policy: in a thread of its own, a few at a time."""
        try:
            async with self._thread_room:
                run.started = time.monotonic()
                self._time(run)
                work = Work.unpack(run.attempt.work)
                assert run.policy is not None
                call = partial(run.policy, work.task, self._context(run, work))
                returned = await self._threads.run(call, name=run.attempt.id, limit_s=run.attempt.timeout_s)
            if inspect.isawaitable(returned):
                run.work = self._loop()
                run.work.start([(run.key, partial(self._await, run, returned))])
            else:
                self._end(run, self._reply(run, returned))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._end(run, _failed(error))

    async def _await(self, run: _Run, returned: Awaitable[Any]) -> _Ending:
        try:
            return self._reply(run, await returned)
        except GeneratorExit:
            raise
        except BaseException as error:
            return _failed(error)

    def _out_of_time(self, run: _Run) -> None:
        if run.work is None or run.work.abandoned:
            self._end(run, _Ending(failure=FailureKind.TIMEOUT, detail=_no_reply(run.attempt)))
            self._stop(run)
        else:
            check = asyncio.create_task(self._whose_fault(run, run.work))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _whose_fault(self, run: _Run, work: WorkLoop) -> None:
        """The attempt's own, or that of a neighbour that blocks the loop which both run on."""
        if not work.abandoned and await work.is_blocked() and not work.abandoned:
            self._blocked += 1
            if self._work is work:
                self._work = WorkLoop(self._ended)
            work.abandon()
            culprit = work.culprit or run.key
            for other in [other for other in self._running.values() if other.work is work]:
                self._end(other, _blocked(other.key == culprit))
        self._end(run, _Ending(failure=FailureKind.TIMEOUT, detail=_no_reply(run.attempt)))
        self._stop(run)


def _remember(ids: dict[str, None], attempt_id: str) -> None:
    ids[attempt_id] = None
    if len(ids) > MAX_REMEMBERED:
        del ids[next(iter(ids))]


def _no_reply(attempt: Attempt) -> str:
    return f"no reply within {attempt.timeout_s:.3g} s"


def _blocked(culprit: bool) -> _Ending:
    if culprit:
        detail = "no reply, and it blocks the event loop of its cell: await, or write a plain function"
        return _Ending(failure=FailureKind.TIMEOUT, detail=detail)
    return _Ending(failure=FailureKind.LOST, detail="held up by an agent that blocked the event loop of their cell")


def _failed(error: BaseException) -> _Ending:
    """What an attempt that raised this comes to."""
    match error:
        case asyncio.CancelledError():
            return _CANCELLED
        case ReplyError():
            return _Ending(failure=FailureKind.INVALID, detail=said(error))
        case BudgetExceeded():
            return _Ending(failure=FailureKind.NO_BUDGET, detail=said(error))
        case InputError():
            known = next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == InputError.__module__)
            return _Ending(failure=FailureKind.RAISED, detail=said(error), input_error=known)
        case Exception():
            return _Ending(failure=FailureKind.RAISED, detail=f"{type(error).__name__}: {said(error)}")
        case _:
            return _Ending(failure=FailureKind.RAISED, detail=said(error, repr))
