"""A manager: the agents of one shard, the cells they live in, and the attempts on their way to them.

The thinking is `swarm.roster`'s. This shell owns the cell actors: it sends, collects, notices deaths and stalls, and
puts the agents of a cell that came back into it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from chimera.actors import cluster
from chimera.actors.outbox import Batch, Outbox
from chimera.core.config import Settings
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

        Returns `{agent_id: why}` for those whose policy could not be loaded; the others are ready for work.
        """
        homes: dict[str, list[Seat]] = defaultdict(list)
        for seat in seats:
            if seat.isolation is Isolation.DEDICATED:
                home = f"Agent[{seat.agent_id}]"
            else:
                home = min(self._packed, key=lambda cell: len(self._seats[cell]))
            self._seats[home][seat.agent_id] = seat
            homes[home].append(seat)
        answers = await asyncio.gather(*(self._settle_in(home, new) for home, new in homes.items()))
        return {agent_id: why for answer in answers for agent_id, why in answer.items()}

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

    async def _settle_in(self, home: str, seats: list[Seat]) -> dict[str, str]:
        """Bring new agents into a cell, starting it when need be. A cell that dies meanwhile is tried again once."""
        if home not in self._cells:
            self._cells[home] = self._spawn_cell(home, self._swarm, self._settings)
        try:
            refused: dict[str, str] = await self._cells[home].host.remote(seats)
        except cluster.ACTOR_GONE:
            refused = await self._cells[home].host.remote(seats)
        for seat in seats:
            if seat.agent_id in refused:
                del self._seats[home][seat.agent_id]
            else:
                self._perform(
                    self._roster.add(seat.agent_id, role=seat.role, policy=seat.label, cell=home),
                )
        if home not in self._watchers:
            self._watchers[home] = asyncio.create_task(self._watch(home))
        self._perform(self._roster.cell_up(home))
        return refused

    async def _watch(self, home: str) -> None:
        """Collect a cell's reports for as long as it lives; when it dies or stalls, have it back with its agents."""
        acked = 0
        while True:
            try:
                batch = await asyncio.wait_for(
                    _answer(self._cells[home].collect.remote(acked, self._settings.stall_s / 3)), self._settings.stall_s
                )
            except cluster.CALL_FAILED as error:
                why = f"{home} died" if isinstance(error, cluster.ACTOR_GONE) else f"{home} stalled"
                await self._revive(home, why)
                acked = 0
                continue
            acked = batch.last
            self._accept(batch.reports)

    async def _revive(self, home: str, why: str) -> None:
        log.warning("%s; its work goes to others while it is started again", why)
        if not why.endswith("died"):
            self._kill(self._cells[home], restart=True)
        self._perform(self._roster.cell_down(home, why))
        while True:
            try:
                await _answer(self._cells[home].host.remote(list(self._seats[home].values())))
                break
            except cluster.CALL_FAILED:
                await asyncio.sleep(0.2)
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
