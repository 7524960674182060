"""Follows the load with cells: what `swarm.placement` wants of what is measured, crew and Ray bring about."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from chimera.actors import scaling
from chimera.actors.crew import Crew
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError
from chimera.swarm.placement import Limits, Load, Placement, leaving
from chimera.swarm.status import Activity

log = logging.getLogger(__name__)

ASK_AGAIN_S = 20.0
"""A request for nodes lapses after a minute unless it is made again."""


class Scaler:
    """One swarm's. Does nothing unless `settings.max_cells` allows more cells than it starts with."""

    def __init__(self, *, swarm: str, settings: Settings, cells: int, crew: Crew) -> None:
        self._swarm = swarm
        self._crew = crew
        self._least = cells
        self._most = max(cells, settings.max_cells)
        limits = Limits(
            min_cells=cells,
            max_cells=self._most,
            cells_per_manager=settings.cells_per_manager,
            quiet_s=settings.scale_down_s,
            interval_s=min(10.0, settings.scale_down_s),
        )
        managers = len(crew.plan)
        self._placement = Placement(limits, cells=cells, managers=managers)
        self._made = 0
        self._at: float | None = None
        self._manager_cpu_s: dict[str, float] = {}
        self._asked = (0, 0.0)
        self._change: asyncio.Task[None] | None = None

    async def step(self, activity: Activity, managers: Sequence[dict[str, Any]], now: float) -> None:
        """Look at the load of this moment, and act on it. Call it every few seconds."""
        if self._most == self._least:
            return
        load = self._load(activity, managers, now)
        wanted = self._placement.wanted(load, now)
        homes = {name: vitals.get("node", "") for m in managers for name, vitals in m.get("cells", {}).items()}
        await self._ask(wanted.cells if wanted.cells > self._least else 0, now)
        if self._change is None or self._change.done():
            plan = self._plan(wanted.cells, homes)
            if plan != self._crew.plan:
                log.info("%.1f cells' worth of work: %d cells", wanted.work, wanted.cells)
                self._change = asyncio.create_task(self._carry_out(plan))

    async def close(self) -> None:
        """Ask for nothing any more."""
        if self._change:
            self._change.cancel()
        if self._asked[0]:
            await self._ask(0, 0.0)

    def _load(self, activity: Activity, managers: Sequence[dict[str, Any]], now: float) -> Load:
        passed_s = max(now - self._at, 1e-3) if self._at is not None else 0.0
        up = [vitals for manager in managers for vitals in manager.get("cells", {}).values() if vitals]
        spent = {m["name"]: float(m["cpu_s"]) for m in managers if "cpu_s" in m}
        used = sum(max(0.0, cpu_s - self._manager_cpu_s.get(name, cpu_s)) for name, cpu_s in spent.items())
        load = Load(
            cells=len(up),
            used=sum(vitals.get("cpu_share", 0.0) for vitals in up),
            waiting=sum(manager.get("waiting", 0) for manager in managers),
            busy=sum(manager.get("busy", 0) for manager in managers),
            arrivals_per_s=max(0, activity.calls.made - self._made) / passed_s if passed_s else 0.0,
            completed_per_s=activity.rates.attempts_per_s,
            managers=len(managers),
            manager_used=used / passed_s if passed_s else 0.0,
        )
        self._at, self._made, self._manager_cpu_s = now, activity.calls.made, spent
        return load

    def _plan(self, cells: int, homes: dict[str, str]) -> dict[str, list[str]]:
        """The present plan with so many cells: new ones go where there are fewest, and nodes are emptied one by one."""
        plan = self._crew.plan
        names = [name for mine in plan.values() for name in mine]
        cells = max(cells, len(plan))
        number = 1 + max(int(name[5:-1]) for name in names)
        for new in range(number, number + cells - len(names)):
            min(plan.values(), key=len).append(f"Cell[{new}]")
        if cells < len(names):
            heads = [node.node_id for node in scaling.nodes() if node.head]
            known = {name: homes.get(name, "") for name in names}
            for name in leaving(known, len(names) - cells, head=heads[0] if heads else ""):
                mine = next(mine for mine in plan.values() if name in mine)
                if len(mine) > 1:
                    mine.remove(name)
        return plan

    async def _carry_out(self, plan: dict[str, list[str]]) -> None:
        try:
            await self._crew.set_plan(plan)
        except Exception as error:
            log.warning("the swarm could not be changed to %s: %s", plan, error)

    async def _ask(self, cells: int, now: float) -> None:
        asked, at = self._asked
        if cells == asked and (not cells or now - at < ASK_AGAIN_S):
            return
        try:
            await scaling.request_cells(self._swarm, cells)
            self._asked = (cells, now)
        except ChimeraError as error:
            log.warning("Ray's autoscaler was not asked: %s", error)
