"""A manager: the agents of one shard, the cells they live in, and the attempts on their way to them.

The thinking is `swarm.roster`'s. This shell owns the cell actors: it sends, collects, notices deaths and stalls, and
puts the agents of a cell that came back into it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from chimera.actors import cluster
from chimera.actors.outbox import Batch, Outbox
from chimera.core.config import Settings
from chimera.core.errors import ClusterError
from chimera.core.types import Isolation
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.policy import Seat
from chimera.swarm.roster import Roster, Step

log = logging.getLogger(__name__)

SpawnCell = Callable[[str, str, Settings], Any]


class Manager:
    """One shard of a swarm."""

    def __init__(
        self,
        *,
        named: str,
        swarm: str,
        settings: Settings,
        cells: int,
        spawn_cell: SpawnCell = cluster.spawn_cell,
        kill: Callable[..., None] = cluster.kill,
    ) -> None:
        self._name = named
        self._swarm = swarm
        self._settings = settings
        self._spawn_cell = spawn_cell
        self._kill = kill
        self._roster = Roster()
        self._outbox = Outbox()
        self._cells: dict[str, Any] = {}
        self._seats: dict[str, dict[str, Seat]] = defaultdict(dict)
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._packed = [f"Cell[{i}]" for i in range(cells)]

    def __repr__(self) -> str:
        return f"{self._name} {len(self._roster)} agents"

    async def spawn(self, seats: Sequence[Seat]) -> dict[str, str]:
        """Place these agents: packed ones on the emptiest cells, dedicated ones in a Ray actor of their own.

        All or none: with any refusal (`{agent_id: why}` is returned) no agent stays; else all are ready for work.
        """
        homes: dict[str, list[Seat]] = defaultdict(list)
        for seat in seats:
            if seat.isolation is Isolation.DEDICATED:
                home = f"Agent[{seat.agent_id}]"
            else:
                home = min(self._packed, key=lambda cell: len(self._seats[cell]) + len(homes[cell]))
            homes[home].append(seat)
        answers = await asyncio.gather(*(self._try_load(home, new) for home, new in homes.items() if new))
        refused = {agent_id: why for answer in answers for agent_id, why in answer.items()}
        for home, new in homes.items():
            if new and refused:
                await self._forget(home, new)
            elif new:
                self._seats[home] |= {seat.agent_id: seat for seat in new}
                for seat in new:
                    self._perform(
                        self._roster.add(
                            seat.agent_id, role=seat.role, policy=seat.identity, label=seat.label, cell=home
                        )
                    )
                if home not in self._watchers:
                    self._watchers[home] = asyncio.create_task(self._watch(home))
                self._perform(self._roster.cell_up(home))
        return refused

    async def dispatch(self, attempts: Sequence[Attempt]) -> None:
        """Find an agent for each attempt. What becomes of it is told by `collect`."""
        self._perform(self._roster.submit(attempts))

    async def cancel(self, attempt_ids: Sequence[str]) -> None:
        """Stop these attempts, wherever they are."""
        by_cell: dict[str, list[str]] = defaultdict(list)
        for cell, attempt_id in self._roster.cancel(attempt_ids):
            by_cell[cell].append(attempt_id)
        for cell, ids in by_cell.items():
            self._cells[cell].cancel.remote(ids)

    async def collect(self, acked: int, wait_s: float) -> Batch:
        """Long-poll for reports; see `Outbox.collect`."""
        return await self._outbox.collect(acked=acked, wait_s=wait_s)

    async def status(self) -> dict[str, Any]:
        """Counts, and each cell's process id (None while it is down)."""
        names = list(self._cells)
        pids = await asyncio.gather(
            *(asyncio.wait_for(_answer(self._cells[n].pid.remote()), 5) for n in names), return_exceptions=True
        )
        return {
            "manager_pid": os.getpid(),
            "agents": len(self._roster),
            "busy": self._roster.busy,
            "waiting": self._roster.waiting,
            "cells": {n: None if isinstance(pid, BaseException) else pid for n, pid in zip(names, pids, strict=True)},
        }

    async def close(self) -> None:
        """End the cells. Safe to repeat."""
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()
        for cell in self._cells.values():
            self._kill(cell)
        self._cells.clear()

    async def _load(self, home: str, seats: list[Seat]) -> dict[str, str]:
        """Have a cell load agents, starting it when need be; who could not be loaded, and why. Raises ClusterError."""
        if home not in self._cells:
            self._cells[home] = self._spawn_cell(home, self._swarm, self._settings)
        limit_s = self._settings.spawn_timeout_s
        try:
            refused: dict[str, str] = await asyncio.wait_for(_answer(self._cells[home].host.remote(seats)), limit_s)
        except TimeoutError:
            why = (
                f"{home} did not start within {limit_s:g} s: has the cluster room for it, does the policy's import end?"
            )
            raise ClusterError(why) from None
        except cluster.CALL_FAILED as error:
            policies = ", ".join(sorted({seat.policy for seat in seats})[:10])
            raise ClusterError(f"{home} failed while it loaded {policies}: {cluster.unwrap(error)}") from error
        return refused

    async def _try_load(self, home: str, seats: list[Seat]) -> dict[str, str]:
        try:
            return await self._load(home, seats)
        except ClusterError as error:
            return {seat.agent_id: str(error) for seat in seats}

    async def _forget(self, home: str, seats: list[Seat]) -> None:
        """Undo a load. A cell that nobody lives in ends."""
        if not self._seats[home]:
            self._kill(self._cells.pop(home))
            return
        self._cells[home].evict.remote([seat.agent_id for seat in seats])

    async def _watch(self, home: str) -> None:
        """Collect a cell's reports for as long as it lives; when it dies or stalls, have it back with its agents."""
        acked = 0
        while True:
            try:
                batch = await asyncio.wait_for(
                    _answer(self._cells[home].collect.remote(acked, self._settings.stall_s / 3)), self._settings.stall_s
                )
            except Exception as error:  # whatever it is, the cell is watched on
                died = isinstance(error, cluster.ACTOR_GONE)
                await self._revive(home, f"{home} died" if died else f"{home} stalled", restart=not died)
                acked = 0
                continue
            acked = batch.last
            self._accept(batch.reports)

    async def _revive(self, home: str, why: str, *, restart: bool) -> None:
        log.warning("%s; its work goes to others while it is started again", why)
        if restart:
            self._kill(self._cells[home], restart=True)
        self._perform(self._roster.cell_down(home, why))
        pause_s = 0.2
        while True:
            try:
                await self._load(home, list(self._seats[home].values()))
                break
            except ClusterError as error:
                log.warning("%s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 10.0)
        self._perform(self._roster.cell_up(home))

    def _accept(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self._perform(self._roster.done(report.attempt_id))
        self._outbox.put(reports)

    def _perform(self, step: Step) -> None:
        by_cell: dict[str, list[tuple[str, Attempt]]] = defaultdict(list)
        for assignment in step.assignments:
            by_cell[assignment.cell].append((assignment.agent_id, assignment.attempt))
        for cell, batch in by_cell.items():
            self._cells[cell].run.remote(batch)
        self._outbox.put(step.reports)


async def _answer(call: Any) -> Any:
    """A remote call as a coroutine, for asyncio's own functions."""
    return await call
