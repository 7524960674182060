"""A cell: one process that hosts many agents. Attempts come in batches, reports are collected from its outbox."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chimera.actors.outbox import Batch, Outbox
from chimera.actors.work_loop import PING_S, WorkLoop
from chimera.core.config import Settings
from chimera.core.errors import InputError, PolicyError, ReplyError
from chimera.core.types import FailureKind, Reply
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.policy import Context, Policy, Seat, check_reply

MAX_THREADS = 4
"""Synchronous policies that run at the same time in one cell."""

MAX_STUCK = 16
"""Policies that go on past their time; with more, the cell asks for its own end and is started afresh."""

MAX_DETAIL = 2_000


class Cell:
    """Hosts agents. Knows nothing of missions: it runs attempts and says how they ended."""

    def __init__(self, *, named: str, settings: Settings) -> None:
        self._name = named
        self._settings = settings
        self._agents: dict[str, tuple[Seat, Policy]] = {}
        self._running: dict[str, asyncio.Task[_Ending]] = {}
        self._outbox = Outbox()
        self._threads = asyncio.Semaphore(MAX_THREADS)
        self._overdue = 0
        self._work = WorkLoop()

    def __repr__(self) -> str:
        return f"{self._name} {len(self._agents)} agents"

    async def host(self, seats: Sequence[Seat]) -> dict[str, str]:
        """Take in these agents; the ones whose policy cannot be loaded come back as `{agent_id: why}`."""
        refused = {}
        for seat in seats:
            try:
                self._agents[seat.agent_id] = (seat, await asyncio.to_thread(seat.load))
            except PolicyError as error:
                refused[seat.agent_id] = str(error)
        return refused

    async def evict(self, agent_ids: Sequence[str]) -> None:
        """Let these agents go."""
        for agent_id in agent_ids:
            self._agents.pop(agent_id, None)

    async def run(self, batch: Sequence[tuple[str, Attempt]]) -> None:
        """Start these `(agent_id, attempt)`; returns at once, and each ends with a report in the outbox."""
        for agent_id, attempt in batch:
            if attempt.id not in self._running:
                task = asyncio.create_task(self._attempt(agent_id, attempt))
                self._running[attempt.id] = task
                task.add_done_callback(functools.partial(self._ended, agent_id, attempt, time.monotonic()))

    async def cancel(self, attempt_ids: Sequence[str]) -> None:
        """Stop these attempts. A synchronous policy cannot be: its thread is left alone, its reply dropped."""
        for attempt_id in attempt_ids:
            if task := self._running.get(attempt_id):
                task.cancel()

    async def collect(self, acked: int, wait_s: float) -> Batch:
        """Long-poll for reports; see `Outbox.collect`. Raises when so much is stuck here that a new cell is due."""
        stuck = self._overdue + self._work.strays
        if stuck > MAX_STUCK:
            raise RuntimeError(f"{self._name}: {stuck} policies go on long after their time")
        return await self._outbox.collect(acked=acked, wait_s=wait_s)

    async def pid(self) -> int:
        """The process this cell lives in."""
        return os.getpid()

    def _ended(self, agent_id: str, attempt: Attempt, started: float, task: asyncio.Task[_Ending]) -> None:
        """Report an attempt's end. As a done-callback it also runs for one that was cancelled before it began."""
        del self._running[attempt.id]
        if task.cancelled():
            ending = _Ending(failure=FailureKind.CANCELLED, detail="cancelled")
        elif error := task.exception():
            ending = _Ending(failure=FailureKind.RAISED, detail=f"in its cell: {_said(error)}")
        else:
            ending = task.result()
        seat = self._agents.get(agent_id, (None, None))[0]
        report = Report(
            attempt.id,
            attempt.mission_id,
            agent=agent_id,
            policy=seat.label if seat else "",
            reply=ending.reply,
            failure=ending.failure,
            detail=ending.detail[:MAX_DETAIL],
            input_error=ending.input_error,
            elapsed_s=time.monotonic() - started,
            cost_usd=ending.reply.cost_usd if ending.reply else 0.0,
        )
        self._outbox.put([report])

    async def _attempt(self, agent_id: str, attempt: Attempt) -> _Ending:
        seat, policy = self._agents.get(agent_id, (None, None))
        if seat is None or policy is None:
            return _Ending(failure=FailureKind.LOST, detail=f"{agent_id} is not here (any more)")
        work = self._work
        attempt = copy.deepcopy(
            attempt
        )  # replicas of one batch share what they are told: none may change it for another
        try:
            context = Context.of(attempt, agent_id=agent_id, role=seat.role, settings=self._settings)
            returned = await self._call(policy, attempt, context, work)
            return _Ending(reply=check_reply(returned, max_bytes=self._settings.max_reply_bytes))
        except _OutOfTime:
            return await self._out_of_time(attempt, work)
        except asyncio.CancelledError:
            if work.abandoned:
                return _blocked(attempt, work)
            raise
        except ReplyError as error:
            return _Ending(failure=FailureKind.INVALID, detail=str(error))
        except InputError as error:
            known = next(cls.__name__ for cls in type(error).__mro__ if cls.__module__ == InputError.__module__)
            return _Ending(failure=FailureKind.RAISED, detail=_said(error), input_error=known)
        except Exception as error:
            return _Ending(failure=FailureKind.RAISED, detail=f"{type(error).__name__}: {_said(error)}")

    async def _call(self, policy: Policy, attempt: Attempt, context: Context, work: WorkLoop) -> Any:
        call = policy if inspect.isroutine(policy) else type(policy).__call__
        if inspect.iscoroutinefunction(call):
            return await _within(
                attempt.timeout_s, work.start(lambda: _guarded(policy, attempt.task, context), attempt.id)
            )
        async with self._threads:
            returned = await _within(attempt.timeout_s, self._in_thread(policy, attempt, context))
        if inspect.isawaitable(returned):
            return await _within(attempt.timeout_s, work.start(lambda: _guarded(lambda: returned), attempt.id))
        return returned

    async def _out_of_time(self, attempt: Attempt, work: WorkLoop) -> _Ending:
        """Whose fault it is: the attempt's own, or that of a neighbour that blocks the loop which both run on."""
        if not work.abandoned and await work.is_blocked() and not work.abandoned:
            self._overdue += 1
            self._work = WorkLoop()
            work.abandon()
            if not work.culprit:
                work.culprit = attempt.id
        if work.abandoned:
            return _blocked(attempt, work)
        return _Ending(failure=FailureKind.TIMEOUT, detail=f"no reply within {attempt.timeout_s:.3g} s")

    def _in_thread(self, policy: Policy, attempt: Attempt, context: Context) -> asyncio.Future[Any]:
        """Run a synchronous policy in a thread of its own, so that one that hangs holds nobody up but itself.

        An executor would wait for it at exit and keep its slot; a daemon thread is simply left behind, and counted as
        overdue once it goes on past its own time.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        running, overdue = True, False

        def settle(result: Any, error: BaseException | None) -> None:
            nonlocal running
            running = False
            if overdue:
                self._overdue -= 1
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(_ordinary(error))
            else:
                done.set_result(result)

        def work() -> None:
            try:
                result, error = policy(attempt.task, context), None
            except BaseException as caught:
                result, error = None, caught
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the cell has ended meanwhile

        def count() -> None:
            nonlocal overdue
            if running:
                overdue = True
                self._overdue += 1

        threading.Thread(target=work, name=attempt.id, daemon=True).start()
        loop.call_later(attempt.timeout_s + PING_S, count)
        return done


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an attempt ended."""

    reply: Reply | None = None
    failure: FailureKind | None = None
    detail: str = ""
    input_error: str = ""


class _OutOfTime(Exception):
    """The attempt's own time limit; a policy may raise a TimeoutError of its own."""


def _blocked(attempt: Attempt, work: WorkLoop) -> _Ending:
    if work.culprit == attempt.id:
        detail = "no reply, and it blocks the event loop of its cell: await, or write a plain function"
        return _Ending(failure=FailureKind.TIMEOUT, detail=detail)
    return _Ending(failure=FailureKind.LOST, detail="held up by an agent that blocked the event loop of their cell")


async def _within(timeout_s: float, future: asyncio.Future[Any]) -> Any:
    """The future's result, unless it takes too long. Does not wait for a policy that ignores its cancellation."""
    try:
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
    finally:
        future.cancel()
    if not done:
        raise _OutOfTime
    return future.result()


async def _guarded(work: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return await work(*arguments)
    except GeneratorExit:  # the loop is gone, and nobody waits for this
        raise
    except BaseException as error:
        raise _ordinary(error) from error


def _ordinary(error: BaseException) -> BaseException:
    """An error that a future can carry: SystemExit would end the event loop, StopIteration cannot be set."""
    fits = isinstance(error, Exception) and not isinstance(error, StopIteration)
    return error if fits or isinstance(error, asyncio.CancelledError) else RuntimeError(_said(error, repr))


def _said(error: BaseException, form: Callable[[object], str] = str) -> str:
    """An error's message. A user's exception may raise when asked for it."""
    try:
        return form(error)
    except Exception:
        return f"{type(error).__name__}, whose message cannot be read"
