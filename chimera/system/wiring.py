"""Wiring: settings in, a running swarm out. The edges talk to a swarm through `RunningSwarm` and nothing else."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any

from chimera.actors import cluster
from chimera.actors.coordinator import Coordinator
from chimera.actors.line import Line
from chimera.actors.sessions import Submission, read_result
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, SwarmError
from chimera.core.types import Budget, TaskResult
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.graph import TaskGraph

log = logging.getLogger(__name__)

RECONNECT_S = 60.0
"""How long a coordinator that died may take to come back."""

POLL_S = 20.0

MAX_BATCH = 256
"""Missions in one call."""

MAX_SENDERS = 2
"""Such calls at a time: while one waits for the disk the next is read."""

MAX_UNCLAIMED = 10_000
"""Results that nobody has asked for yet; the oldest are then read from the journal when they are."""


class RunningSwarm:
    """A coordinator actor and the connection it lives behind. `own` swarms end with `close`, others are only left."""

    def __init__(self, *, name: str, connection: cluster.Connection, coordinator: Any, own: bool = True) -> None:
        self.name = name
        self.connection = connection
        self._coordinator = coordinator
        self._line = Line(coordinator)
        self._own = own
        self._session = secrets.token_hex(6)
        self._results: dict[str, asyncio.Future[TaskResult]] = {}
        self._outgoing: list[tuple[Submission, asyncio.Future[None]]] = []
        self._sending: set[str] = set()
        self._senders: set[asyncio.Task[None]] = set()
        self._collector: asyncio.Task[None] | None = None

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the coordinator. Its own errors come out as they were raised; Ray's as ClusterError.

        One that died is waited for: whatever it is asked twice, it does once.
        """
        until = time.monotonic() + RECONNECT_S
        pause_s = 0.05
        while True:
            try:
                return await self._line.call(method, *arguments)
            except cluster.ACTOR_GONE as error:
                if time.monotonic() > until or cluster.find(f"{self.name}/Coordinator") is None:
                    raise cluster.unwrap(error) from None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 1.0)
            except Exception as error:
                raise cluster.unwrap(error) from None

    async def submit(
        self, graph: TaskGraph, deadline_s: float, budget: Budget | None = None, mission_id: str = ""
    ) -> str:
        """Start a mission and return its id. What is submitted at the same time travels together."""
        mission_id = mission_id or f"mission-{secrets.token_hex(6)}"
        submission = Submission.of(mission_id, graph, deadline_s, budget or NO_LIMIT)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outgoing.append((submission, accepted))
        if len(self._senders) < MAX_SENDERS:
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
        await accepted
        return mission_id

    async def result(self, mission_id: str) -> TaskResult:
        """Wait for a mission's result."""
        if future := self._results.get(mission_id):
            try:
                return await asyncio.shield(future)
            finally:
                if future.done():
                    self._results.pop(mission_id, None)
        while True:
            result: TaskResult | None = await self.call("result", mission_id, POLL_S)
            if result is not None:
                return result

    async def close(self) -> None:
        """End the swarm, and Ray with it when it was started for it. What is dead already is left alone."""
        loop = asyncio.get_running_loop()  # tasks of one that has been closed have ended with it
        ending = [task for task in (*self._senders, self._collector) if task and task.get_loop() is loop]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        self._give_up(SwarmError(f"the connection to {self.name} has been closed"))
        if not self._own:
            self._line.close()
            cluster.disconnect(self.connection)
            return
        try:
            await self.call("close")
        except ChimeraError as error:
            log.warning("%s did not end by itself: %s", self.name, error)
        finally:
            self._line.close()
            cluster.kill(self._coordinator)
            cluster.disconnect(self.connection)

    async def _send(self) -> None:
        try:
            while self._outgoing:
                batch, self._outgoing = self._outgoing[:MAX_BATCH], self._outgoing[MAX_BATCH:]
                await self._send_batch(batch)
        finally:  # at once: who comes next must see that nobody sends any more
            self._senders.discard(asyncio.current_task())

    async def _send_batch(self, batch: list[tuple[Submission, asyncio.Future[None]]]) -> None:
        loop = asyncio.get_running_loop()
        for submission, _ in batch:
            self._results[submission.mission_id] = loop.create_future()
        names = {submission.mission_id for submission, _ in batch}
        self._sending |= names
        if self._collector is None or self._collector.done():
            self._collector = asyncio.create_task(self._collect())
        try:
            answers = await self.call("submit", self._session, [submission for submission, _ in batch])
        except asyncio.CancelledError:
            self._outgoing += batch  # `close` tells them
            raise
        except Exception as error:
            answers = [error] * len(batch)
        finally:
            self._sending -= names
        for (submission, accepted), answer in zip(batch, answers, strict=True):
            if answer is not None:
                self._results.pop(submission.mission_id, None)
            if accepted.done():
                continue  # its caller has gone
            if answer is None:
                accepted.set_result(None)
            else:
                accepted.set_exception(answer)
        self._let_go()

    async def _collect(self) -> None:
        """Take results as they come. A coordinator that came back, or let some go, is told again which ones are waited
        for."""
        after, origin = 0, ""
        while True:
            try:
                batch = await self.call("collect", self._session, after, after, POLL_S, origin)
                if batch.origin != origin or batch.last - len(batch.reports) > after:
                    waited_for = [
                        name
                        for name, future in self._results.items()
                        if not future.done() and name not in self._sending  # those it is being told anyway
                    ]
                    for name in await self.call("attend", self._session, waited_for):
                        self._settle(
                            name, InputError(f"mission {name} is not known any more: was its journal in memory?")
                        )
                after, origin = batch.last, batch.origin
                for packed in batch.reports:
                    self._take(packed)
            except Exception as error:
                for name in list(self._results):
                    self._settle(name, error)
                return

    def _take(self, packed: bytes) -> None:
        try:
            result = read_result(packed)
        except ValueError as error:  # which must not be the others' misfortune
            log.error("a result cannot be read: %s", error)
            return
        self._settle(result.mission_id, result)

    def _give_up(self, error: Exception) -> None:
        """Nobody waits any more for what cannot come."""
        for name in list(self._results):
            self._settle(name, error)
        for _, accepted in self._outgoing:
            if not accepted.done():
                accepted.set_exception(error)
        self._outgoing.clear()

    def _settle(self, mission_id: str, outcome: TaskResult | Exception) -> None:
        future = self._results.get(mission_id)
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # looked at: one that nobody waits for is no fault of this program
        else:
            future.set_result(outcome)

    def _let_go(self) -> None:
        for name in [name for name, future in self._results.items() if future.done()][:-MAX_UNCLAIMED]:
            del self._results[name]


async def start_swarm(settings: Settings) -> RunningSwarm:
    """Join or start Ray, and start a swarm in it. Raises ClusterError and what opening the journal raises."""
    connection = cluster.connect(settings)
    name = f"swarm-{secrets.token_hex(3)}"
    coordinator = cluster.spawn(
        Coordinator,
        name=f"{name}/Coordinator",
        lasting=False,
        swarm=name,
        settings=settings,
        cells=connection.cells,
    )
    swarm = RunningSwarm(name=name, connection=connection, coordinator=coordinator)
    try:
        await swarm.call("start")
    except BaseException:
        await swarm.close()
        raise
    return swarm


async def attach_swarm(name: str | None, settings: Settings) -> RunningSwarm:
    """Join the Ray that runs, and talk to a swarm in it: the one of this name, or the only one.

    Raises NoCluster, and InputError when there is no such swarm, or more than one to choose from.
    """
    connection = cluster.connect(settings, start=False)
    try:
        swarms = [found.removesuffix("/Coordinator") for found in cluster.names() if found.endswith("/Coordinator")]
        if name is None and len(swarms) != 1:
            told = f"there are {len(swarms)} swarms: {', '.join(swarms)}; name one" if swarms else "no swarm runs there"
            raise InputError(f"{told} (at {connection.address})")
        chosen = name or swarms[0]
        if chosen not in swarms:
            raise InputError(f"no swarm {chosen!r} runs at {connection.address}; there: {', '.join(swarms) or 'none'}")
        handle = cluster.find(f"{chosen}/Coordinator")
    except BaseException:
        cluster.disconnect(connection)
        raise
    return RunningSwarm(name=chosen, connection=connection, coordinator=handle, own=False)
