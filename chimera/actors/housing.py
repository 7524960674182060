"""Who lives where: the cells of one manager, their agents, and having a cell back with its agents when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

from chimera.actors import cluster
from chimera.actors.home import Home
from chimera.actors.outbox import Batch
from chimera.core.config import Settings
from chimera.core.errors import ClusterError, NotBegun
from chimera.core.types import Isolation
from chimera.swarm.attempt import Report
from chimera.swarm.policy import Seat
from chimera.swarm.roster import Roster, Step

log = logging.getLogger(__name__)

DRAIN_S = 30.0
"""How long a cell that is to go may finish what it has in hand."""

ASK_AGAIN_S = 0.25
"""How often a cell that is to come back is asked whether it has."""

LOOK_S = 0.05
"""How often it is seen whether a cell that is drained has more agents idle."""


class Housing:
    """The cells of one manager. What changes in its roster is given to `perform`, what cells report to `accept`.

    Changes are made one at a time; deaths of cells are seen to at any moment.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        roster: Roster,
        start: Callable[[str], Any],
        kill: Callable[..., None],
        perform: Callable[[Step], None],
        accept: Callable[[Sequence[Report]], None],
    ) -> None:
        self._settings = settings
        self._roster = roster
        self._start = start
        self._kill = kill
        self._perform = perform
        self._accept = accept
        self._homes: dict[str, Home] = {}
        self._packed: list[str] = []
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> Home:
        return self._homes[name]

    def __iter__(self) -> Iterator[Home]:
        return iter(list(self._homes.values()))

    async def take_over(self, cells: Sequence[str], seats: Sequence[Seat]) -> dict[str, str]:
        """Have these cells and agents and no others. Whatever cells do is dropped at first; later who is here stays.

        Agents whose policy cannot be loaded are returned as `{agent_id: why}`; those whose cell is down are here as
        soon as it is up. Cells that come or go do so a little later.
        """
        async with self._changing:
            if not self._homes:
                self._packed = list(cells)
                return await self._place(seats, keep=True, afresh=True)
            known = {agent_id for home in self for agent_id in home.seats}
            self._dismiss(known - {seat.agent_id for seat in seats})
            if set(cells) != set(self._packed):
                self._later(self.set_cells(cells))
            return await self._place([seat for seat in seats if seat.agent_id not in known], keep=True)

    async def place(self, seats: Sequence[Seat]) -> dict[str, str]:
        """These agents come to live here, all or none: with any refusal, `{agent_id: why}`, none of them stays."""
        async with self._changing:
            return await self._place(seats)

    async def set_cells(self, cells: Sequence[str]) -> None:
        """Have these cells and no others: new ones take over a share of the agents, the others are drained and end."""
        async with self._changing:
            going = [self._homes[name] for name in self._packed if name not in cells]
            coming = [name for name in cells if name not in self._homes]
            await asyncio.gather(*(self._open(name) for name in coming))
            if going and (down := [name for name in coming if not self._homes[name].up]):
                for name in down:
                    self._drop(self._homes[name])
                raise ClusterError(f"{', '.join(down)} could not be started: the cells that were to go stay")
            self._packed = list(cells)
            await asyncio.gather(*(self._retire(home) for home in going))
            await self._level()

    def close(self) -> None:
        """End every cell."""
        for task in self._tasks:
            task.cancel()
        for home in self:
            self._drop(home)

    async def _place(self, seats: Sequence[Seat], *, keep: bool = False, afresh: bool = False) -> dict[str, str]:
        """Put agents into cells. With `keep` those that could be loaded stay, and a cell that failed is seen to."""
        shares = self._shares(seats, afresh=afresh)
        homes = {name: self._home(name) for name in shares}
        for name, home in homes.items():
            home.seats |= {seat.agent_id: seat for seat in shares[name]}
        answers = await asyncio.gather(*(_try_load(home, shares[name], afresh=afresh) for name, home in homes.items()))
        refused = {agent_id: why for said, _ in answers for agent_id, why in said.items()}
        failed = {name: why for name, (_, why) in zip(homes, answers, strict=True) if why}
        if not keep and (refused or failed):
            for name, home in homes.items():
                home.evict(seat.agent_id for seat in shares[name])
                if not home.seats and name not in self._packed:
                    self._drop(home)
                elif home.watcher is None:
                    self._serve(home, failed.get(name, ""))
            return refused | {seat.agent_id: why for name, why in failed.items() for seat in shares[name]}
        for name, home in homes.items():
            home.evict(seat.agent_id for seat in shares[name] if seat.agent_id in refused)
            for seat in shares[name]:
                if seat.agent_id in home.seats:
                    self._enrol(seat, name)
            self._serve(home, failed.get(name, ""))
        return refused

    def _shares(self, seats: Sequence[Seat], *, afresh: bool) -> dict[str, list[Seat]]:
        """Who goes where: packed agents to the emptiest of the cells that are up. `afresh`: every cell has a share."""
        up = [name for name in self._packed if name in self._homes and self._homes[name].up]
        sizes = {name: len(self._home(name).seats) for name in up or self._packed}
        shares: dict[str, list[Seat]] = {name: [] for name in self._packed} if afresh else {}
        for seat in seats:
            if seat.isolation is Isolation.DEDICATED:
                name = f"Agent[{seat.agent_id}]"
            else:
                name = min(sizes, key=sizes.__getitem__)
                sizes[name] += 1
            shares.setdefault(name, []).append(seat)
        return shares

    def _enrol(self, seat: Seat, name: str) -> None:
        self._perform(
            self._roster.add(
                seat.agent_id,
                role=seat.role,
                policy=seat.identity,
                label=seat.label,
                cell=name,
                skills=seat.skills,
            )
        )

    def _dismiss(self, gone: set[str]) -> None:
        self._perform(self._roster.remove(sorted(gone)))
        for home in self:
            if mine := gone & home.seats.keys():
                home.evict(mine)
                if not home.seats and home.name not in self._packed:
                    self._drop(home)

    def _home(self, name: str) -> Home:
        if name not in self._homes:
            start = partial(self._start, name)
            self._homes[name] = Home(name, start, load_timeout_s=self._settings.spawn_timeout_s)
        return self._homes[name]

    async def _open(self, name: str) -> None:
        """A new, empty cell."""
        home = self._home(name)
        _, failed = await _try_load(home, [])
        self._serve(home, failed)

    def _serve(self, home: Home, failed: str) -> None:
        """The cell has what it should host and takes work; or it `failed`, and is to be had back first."""
        if failed and home.watcher:
            home.watcher.cancel()
            home.watcher = None
        if home.watcher is None:
            home.watcher = self._later(self._watch(home, failed))
            if not failed:
                self._up(home)

    def _up(self, home: Home) -> None:
        home.up = True
        if not home.leaving:
            self._perform(self._roster.cell_up(home.name))

    def _drop(self, home: Home) -> None:
        del self._homes[home.name]
        home.close()
        self._kill(home.handle)

    async def _watch(self, home: Home, failed: str) -> None:
        """Collect a cell's reports for as long as it lives; when it dies or stalls, have it back with its agents."""
        while True:
            try:
                if failed:
                    await self._revive(home, failed)
                failed = ""
                await self._collect_from(home)
            except Exception:
                log.exception("%s: what it reports cannot be taken; trying again", home.name)
                await asyncio.sleep(1.0)

    async def _collect_from(self, home: Home) -> None:
        after = 0
        stall_s = self._settings.stall_s
        while True:
            try:
                async with asyncio.timeout(stall_s):
                    batch: Batch[Report] = await home.line.call("collect", after, after, stall_s / 3)
            except Exception as error:  # whatever it is, the cell is watched on
                if isinstance(error, cluster.ACTOR_GONE) or isinstance(cluster.unwrap(error), NotBegun):
                    await self._revive(home, f"{home.name} died")
                else:
                    self._kill(home.handle, restart=True)
                    await self._revive(home, f"{home.name} stalled")
                after = 0
                continue
            after = batch.last
            self._accept(batch.reports)

    async def _revive(self, home: Home, why: str) -> None:
        log.warning("%s; its work goes to others while it is started again", why)
        home.up = False
        home.renew()
        self._perform(self._roster.cell_down(home.name, why))
        pause_s = 0.2
        while True:
            await self._wait_for(home)
            try:
                refused = await home.refill()
                break
            except ClusterError as error:
                log.warning("%s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 10.0)
                home.renew()
        for agent_id, said in refused.items():
            log.error("agent %s is not back and leaves: %s", agent_id, said)
        home.evict(refused)
        self._perform(self._roster.remove(refused))
        self._up(home)
        if not home.seats and home.name in self._packed:  # it was not there when the others were levelled
            self._later(self._level_again())

    async def _wait_for(self, home: Home) -> None:
        """Until the actor answers: Ray starts it anew by itself, here or on another node."""
        while True:
            await home.examine()
            if home.vitals:
                return
            await asyncio.sleep(ASK_AGAIN_S)
            home.renew()

    async def _retire(self, home: Home) -> None:
        """Let a cell finish what it has in hand, give its agents to the others, and end it."""
        home.leaving = True
        if await self._thin(home, 0):
            self._drop(home)
            return
        log.warning("%s could not be emptied within %g s and stays", home.name, DRAIN_S)
        home.leaving = False
        self._packed.append(home.name)
        if home.up:
            self._up(home)

    async def _level_again(self) -> None:
        async with self._changing:
            await self._level()

    async def _level(self) -> None:
        """Have about as many agents in one cell as in any other."""
        homes = [self._homes[name] for name in self._packed if self._homes[name].up]
        fair = -(-sum(len(home.seats) for home in homes) // max(1, len(homes)))
        over = [home for home in homes if len(home.seats) > fair]
        await asyncio.gather(*(self._thin(home, fair) for home in over))
        for home in over:
            if home.up:
                self._up(home)

    async def _thin(self, home: Home, left: int) -> bool:
        """Move all but so many agents to other cells, each as soon as it is idle. Whether they could be in time.

        It takes no new work meanwhile, and none afterwards: that is the caller's business.
        """
        self._roster.drain(home.name)
        until = time.monotonic() + DRAIN_S
        while True:
            await self._move(home, len(home.seats) - left)
            if len(home.seats) <= left or time.monotonic() > until:
                return len(home.seats) <= left
            await asyncio.sleep(LOOK_S)

    async def _move(self, old: Home, most: int) -> None:
        """At most that many idle agents move to the emptiest of the other cells."""
        others = [self._homes[name] for name in self._packed if name != old.name and self._homes[name].up]
        sizes = {home: len(home.seats) for home in others}
        shares: dict[Home, list[Seat]] = defaultdict(list)
        for agent_id in self._roster.idle_in(old.name)[:most] if others else ():
            new = min(sizes, key=sizes.__getitem__)
            sizes[new] += 1
            shares[new].append(old.seats[agent_id])
        await asyncio.gather(*(self._move_to(new, old, seats) for new, seats in shares.items()))

    async def _move_to(self, new: Home, old: Home, seats: list[Seat]) -> None:
        new.seats |= {seat.agent_id: seat for seat in seats}
        refused, failed = await _try_load(new, seats)
        idle = set() if failed else set(self._roster.idle_in(old.name)) - refused.keys()
        moved = [seat.agent_id for seat in seats if seat.agent_id in idle]
        new.evict(seat.agent_id for seat in seats if seat.agent_id not in idle)
        old.evict(moved)
        for agent_id in moved:
            self._perform(self._roster.move(agent_id, new.name))

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: %r", task, error, exc_info=error)


async def _try_load(home: Home, seats: Sequence[Seat], *, afresh: bool = False) -> tuple[dict[str, str], str]:
    """Who cannot be loaded and why, and why the cell failed if it did."""
    try:
        return await home.load(seats, afresh=afresh), ""
    except ClusterError as error:
        return {}, str(error)
