"""A cell: one process that hosts many agents. Attempts come in batches, reports are collected from its outbox."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from chimera.actors.outbox import Batch, Outbox
from chimera.actors.work_loop import WorkLoop
from chimera.core.config import Settings
from chimera.core.errors import InputError, PolicyError, ReplyError
from chimera.core.types import FailureKind, Reply
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.policy import Context, Policy, Seat, check_reply

MAX_THREADS = 4
"""Synchronous policies that run at the same time in one cell."""

MAX_ABANDONED = 16
"""Threads stuck in policies that timed out; with more, the cell asks for its own end and is started afresh."""

MAX_DETAIL = 2_000

HELD_UP = "held up by an agent that blocked the event loop of their cell"


class Cell:
    """Hosts agents. Knows nothing of missions: it runs attempts and says how they ended."""

    def __init__(self, *, named: str, settings: Settings) -> None:
        self._name = named
        self._settings = settings
        self._agents: dict[str, tuple[Seat, Policy]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._outbox = Outbox()
        self._threads = asyncio.Semaphore(MAX_THREADS)
        self._abandoned = 0
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

    async def run(self, batch: Sequence[tuple[str, Attempt]]) -> None:
        """Start these `(agent_id, attempt)`; returns at once, and each ends with a report in the outbox."""
        for agent_id, attempt in batch:
            if attempt.id not in self._running:
                self._running[attempt.id] = asyncio.create_task(self._attempt(agent_id, attempt))

    async def cancel(self, attempt_ids: Sequence[str]) -> None:
        """Stop these attempts. A synchronous policy cannot be: its thread is left alone, its reply dropped."""
        for attempt_id in attempt_ids:
            if task := self._running.get(attempt_id):
                task.cancel()

    async def collect(self, acked: int, wait_s: float) -> Batch:
        """Long-poll for reports; see `Outbox.collect`. Raises when so many threads are stuck that a new cell is due."""
        if self._abandoned > MAX_ABANDONED:
            raise RuntimeError(f"{self._name}: {self._abandoned} threads are stuck in policies that timed out")
        return await self._outbox.collect(acked=acked, wait_s=wait_s)

    async def pid(self) -> int:
        """The process this cell lives in."""
        return os.getpid()

    async def _attempt(self, agent_id: str, attempt: Attempt) -> None:
        started = time.monotonic()
        seat, policy = self._agents.get(agent_id, (None, None))
        work = self._work
        reply: Reply | None = None
        failure: FailureKind | None = None
        detail, input_error = "", ""
        try:
            if seat is None or policy is None:
                failure, detail = FailureKind.LOST, f"{agent_id} is not here (any more)"
            else:
                context = Context.of(attempt, agent_id=agent_id, role=seat.role, settings=self._settings)
                returned = await self._call(policy, attempt, context, work)
                reply = check_reply(returned, max_bytes=self._settings.max_reply_bytes)
        except _OutOfTime:
            failure, detail = await self._out_of_time(attempt, work)
        except asyncio.CancelledError:
            failure, detail = (FailureKind.LOST, HELD_UP) if work.abandoned else (FailureKind.CANCELLED, "cancelled")
        except ReplyError as error:
            failure, detail = FailureKind.INVALID, str(error)
        except InputError as error:
            failure, detail, input_error = FailureKind.RAISED, str(error), type(error).__name__
        except Exception as error:
            failure, detail = FailureKind.RAISED, f"{type(error).__name__}: {error}"
        del self._running[attempt.id]
        self._outbox.put(
            [
                Report(
                    attempt.id,
                    attempt.mission_id,
                    agent=agent_id,
                    policy=seat.label if seat else "",
                    reply=reply,
                    failure=failure,
                    detail=detail[:MAX_DETAIL],
                    input_error=input_error,
                    elapsed_s=time.monotonic() - started,
                    cost_usd=reply.cost_usd if reply else 0.0,
                )
            ]
        )

    async def _call(self, policy: Policy, attempt: Attempt, context: Context, work: WorkLoop) -> Any:
        call = policy if inspect.isroutine(policy) else type(policy).__call__
        if inspect.iscoroutinefunction(call):
            return await _within(attempt.timeout_s, work.start(_guarded(policy(attempt.task, context)), attempt.id))
        async with self._threads:
            returned = await _within(attempt.timeout_s, self._in_thread(policy, attempt, context))
        if inspect.isawaitable(returned):
            return await _within(attempt.timeout_s, work.start(_guarded(returned), attempt.id))
        return returned

    async def _out_of_time(self, attempt: Attempt, work: WorkLoop) -> tuple[FailureKind, str]:
        """Whose fault it is: the attempt's own, or that of a neighbour that blocks the loop which both run on."""
        timeout = f"no reply within {attempt.timeout_s:.3g} s"
        blocker = None if work.abandoned else await work.blocker()
        if blocker == attempt.id:
            if self._work is work:
                self._work = WorkLoop()
                self._abandoned += 1
                work.abandon()
            return FailureKind.TIMEOUT, f"{timeout}; it blocks its event loop: await, or write a plain function"
        if blocker or work.abandoned:
            return FailureKind.LOST, HELD_UP
        return FailureKind.TIMEOUT, timeout

    def _in_thread(self, policy: Policy, attempt: Attempt, context: Context) -> asyncio.Future[Any]:
        """Run a synchronous policy in a thread of its own, so that one that hangs holds nobody up but itself.

        An executor would wait for it at exit and keep its slot; a daemon thread is simply left behind.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if done.cancelled():
                self._abandoned -= 1
            elif error is not None:
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

        def left_behind(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                self._abandoned += 1

        done.add_done_callback(left_behind)
        threading.Thread(target=work, name=attempt.id, daemon=True).start()
        return done


class _OutOfTime(Exception):
    """The attempt's own time limit; a policy may raise a TimeoutError of its own."""


async def _within(timeout_s: float, future: asyncio.Future[Any]) -> Any:
    """The future's result, unless it takes too long. Does not wait for a policy that ignores its cancellation."""
    try:
        done, _ = await asyncio.wait({future}, timeout=timeout_s)
    finally:
        future.cancel()
    if not done:
        raise _OutOfTime
    return future.result()


async def _guarded(work: Any) -> Any:
    try:
        return await work
    except BaseException as error:
        raise _ordinary(error) from error


def _ordinary(error: BaseException) -> BaseException:
    """An error that a future can carry: SystemExit would end the event loop, StopIteration cannot be set."""
    if isinstance(error, asyncio.CancelledError) or (
        isinstance(error, Exception) and not isinstance(error, StopIteration)
    ):
        return error
    return RuntimeError(repr(error))
