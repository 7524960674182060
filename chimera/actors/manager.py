"""A manager: the agents of one shard, the cells they live in, and the attempts on their way to them.

The thinking is `swarm.roster`'s. This shell owns the cell actors: it sends, collects, notices deaths and stalls, and
puts the agents of a cell that came back into it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chimera.actors import cluster
from chimera.actors.home import Errand, Home
from chimera.actors.housing import Housing
from chimera.actors.lease import Lease
from chimera.actors.outbox import Batch, Outbox
from chimera.core.config import Settings
from chimera.core.errors import NotBegun
from chimera.core.rng import rng
from chimera.core.types import FailureKind
from chimera.swarm.attempt import Appraisal, Attempt, Report
from chimera.swarm.policy import Seat
from chimera.swarm.roster import Roster, Step

log = logging.getLogger(__name__)

MAX_CALLED_OFF = 20_000
"""Attempts that are remembered as cancelled, in case they are only to come: calls may overtake one another."""

SpawnCell = Callable[[str, str, Settings], Any]


class Manager:
    """One shard of a swarm. It ends itself when nobody has collected from it for `settings.orphan_s`."""

    def __init__(
        self,
        *,
        named: str,
        swarm: str,
        settings: Settings,
        spawn_cell: SpawnCell = cluster.spawn_cell,
        kill: Callable[..., None] = cluster.kill,
        end_self: Callable[[], None] = cluster.end_self,
    ) -> None:
        self._name = named
        self._settings = settings
        self._end_self = end_self
        self._roster = Roster(rng=rng(swarm, named), max_waiting=settings.max_waiting)
        self._housing = Housing(
            settings=settings,
            roster=self._roster,
            start=lambda name: spawn_cell(name, swarm, settings),
            kill=kill,
            perform=self._perform,
            accept=self._accept,
        )
        self._outbox: Outbox[Report] = Outbox()
        self._told: set[str] = set()
        self._called_off: dict[str, None] = {}
        self._begun = False
        self._lease = Lease(settings.orphan_s, self._orphaned)

    def __repr__(self) -> str:
        return f"{self._name} {len(self._roster)} agents"

    async def awake(self) -> None:
        """Ray awaits this in every process of this actor: also in one that nobody will ever call, which must end."""
        self._lease.renew()

    async def begin(
        self, cells: Sequence[str], seats: Sequence[Seat], standing: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Take these cells and agents over, whatever was before: called first, and again after a crash of either side.

        A manager that has begun keeps what it has in hand, and only makes up for the difference. Agents whose policy
        cannot be loaded are returned as `{agent_id: why}`; those whose cell is down are there as soon as it is.
        """
        self._lease.renew(at_least_s=self._settings.spawn_timeout_s)
        refused = await self._housing.take_over(cells, seats)
        if standing and not self._begun:
            self._roster.restore(standing)
        self._begun = True
        self._lease.renew()
        return refused

    async def spawn(self, seats: Sequence[Seat]) -> dict[str, str]:
        """Place these agents: packed ones on the emptiest cells, dedicated ones in a Ray actor of their own.

        All or none: with any refusal (`{agent_id: why}` is returned) no agent stays; else all are ready for work.
        """
        self._check_begun()
        self._lease.renew(at_least_s=self._settings.spawn_timeout_s)
        return await self._housing.place(seats)

    async def dispatch(self, attempts: Sequence[Attempt]) -> None:
        """Find an agent for each attempt, unless it is known here. What becomes of it is told by `collect`."""
        self._check_begun()
        new = [a for a in attempts if a.id not in self._told and a.id not in self._called_off]
        self._perform(self._roster.submit(new, time.monotonic()))

    async def cancel(self, attempt_ids: Sequence[str]) -> None:
        """Stop these attempts, wherever they are; one that is not here yet is not begun when it comes."""
        by_cell: dict[str, set[str]] = defaultdict(set)
        waiting = set(attempt_ids)
        self._called_off |= dict.fromkeys(attempt_ids)
        while len(self._called_off) > MAX_CALLED_OFF:
            del self._called_off[next(iter(self._called_off))]
        for cell, attempt_id in self._roster.cancel(attempt_ids):
            by_cell[cell].add(attempt_id)
            waiting.discard(attempt_id)
        for cell, ids in by_cell.items():
            self._cancel_in(self._housing[cell], ids)
        never_began = waiting - self._told
        self._tell(Report(id_, "", failure=FailureKind.CANCELLED, detail="cancelled") for id_ in never_began)

    async def appraise(self, appraisals: Sequence[Appraisal]) -> None:
        """What the work of these agents was worth."""
        self._roster.appraise(appraisals, time.monotonic())

    async def collect(self, acked: int, after: int, wait_s: float) -> Batch[Report]:
        """Long-poll for reports; see `Outbox`. `acked` are those that the coordinator has made durable."""
        self._lease.renew()
        self._check_begun()
        self._told.difference_update(report.attempt_id for report in self._outbox.forget(acked))
        return replace(await self._outbox.collect(after=after, wait_s=wait_s), up=self._roster.up)

    async def set_cells(self, cells: Sequence[str]) -> None:
        """Have these cells and no others: new ones take over a share of the agents, the others are drained and end."""
        self._check_begun()
        self._lease.renew(at_least_s=self._settings.spawn_timeout_s)
        await self._housing.set_cells(cells)

    async def status(self) -> dict[str, Any]:
        """Counts, and each cell's vitals (empty while it is down)."""
        self._lease.renew()  # whoever asks may be waiting for its journal, and cannot collect meanwhile
        await asyncio.gather(*(home.examine() for home in self._housing))
        return {
            "name": self._name,
            "pid": os.getpid(),
            "cpu_s": cluster.wanted_cpu_s(),
            "agents": len(self._roster),
            "busy": self._roster.busy,
            "waiting": self._roster.waiting,
            "roles": self._roster.counts(),
            "cells": {home.name: home.vitals for home in self._housing},
        }

    async def standing(self) -> dict[str, Any]:
        """Every appraised agent's reputation, for `begin` after a crash."""
        return dict(self._roster.standing())

    async def close(self) -> None:
        """End the cells. Safe to repeat."""
        self._begun = False
        self._housing.close()

    def _orphaned(self) -> None:
        log.warning("%s: nobody has asked for %g s; it ends with its cells", self._name, self._settings.orphan_s)
        self._begun = False
        self._housing.close()
        self._end_self()

    def _check_begun(self) -> None:
        if not self._begun:
            raise NotBegun(f"{self._name} has been started anew and has no agents yet")

    def _cancel_in(self, home: Home, ids: set[str]) -> None:
        """Stop attempts that agents of a cell have: those that were not sent yet here, the others there."""
        unsent = home.courier.withdraw(lambda errand: errand[1].id in ids)
        self._accept([_cancelled(attempt, agent_id) for agent_id, attempt in unsent])
        if sent := ids - {attempt.id for _, attempt in unsent}:
            home.line.tell("cancel", list(sent))

    def _accept(self, reports: Sequence[Report]) -> None:
        now = time.monotonic()
        for report in reports:
            self._perform(self._roster.done(report.attempt_id, now))
        self._tell(reports)

    def _perform(self, step: Step) -> None:
        by_cell: dict[str, list[tuple[Errand, int]]] = defaultdict(list)
        for assignment in step.assignments:
            errand = (assignment.agent_id, assignment.attempt)
            by_cell[assignment.cell].append((errand, assignment.attempt.priority))
        for cell, errands in by_cell.items():
            self._housing[cell].courier.put(errands)
        if step.reports:
            self._tell(step.reports)

    def _tell(self, reports: Iterable[Report]) -> None:
        reports = list(reports)
        self._told.update(report.attempt_id for report in reports)
        self._outbox.put(reports)


def _cancelled(attempt: Attempt, agent_id: str) -> Report:
    return Report(
        attempt.id,
        attempt.mission_id,
        agent=agent_id,
        failure=FailureKind.CANCELLED,
        detail="cancelled before it began",
    )
