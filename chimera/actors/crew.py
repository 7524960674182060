"""The coordinator's managers: mail to them, reports from them, and having them back when they die."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from chimera.actors import cluster
from chimera.actors.courier import Courier
from chimera.actors.line import Line
from chimera.actors.outbox import Batch
from chimera.core.clock import Clock
from chimera.core.config import Settings
from chimera.core.errors import NotBegun, PolicyError
from chimera.core.types import FailureKind
from chimera.swarm.attempt import NO_LIMIT, Appraisal, Attempt, Report
from chimera.swarm.policy import Seat
from chimera.swarm.reputation import beliefs_of, summary
from chimera.swarm.routing import Router
from chimera.swarm.tally import Tally

log = logging.getLogger(__name__)

POLL_S = 5.0
APPRAISE_S = 0.1
STANDING_S = 10.0


class _Member:
    """A manager as the coordinator sees it."""

    def __init__(self, name: str, handle: Any, cells: list[str]) -> None:
        self.name = name
        self.line = Line(handle)
        self.cells = cells
        self.seats: dict[str, Seat] = {}
        self.courier: Courier[Attempt] = Courier(self._send)
        self.acked = 0
        self.life = 0
        self.standing: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self.up = True

    @property
    def handle(self) -> Any:
        """Ray's, for what is not mail."""
        return self.line.handle

    def replace(self, handle: Any) -> None:
        """The manager is to be had by another handle."""
        self.line.close()
        self.line = Line(handle)

    async def _send(self, batch: list[Attempt]) -> None:
        await self.line.call("dispatch", batch)

    def withdraw(self, attempt_ids: set[str]) -> list[Attempt]:
        """Those of these attempts that were not sent yet, and will not be."""
        return self.courier.withdraw(lambda attempt: attempt.id in attempt_ids)

    def ack(self, life: int, last: int) -> None:
        """The reports up to this one, of the manager's process of then, are durable."""
        if life == self.life:
            self.acked = max(self.acked, last)


class Crew:
    """Every manager of one swarm.

    `heard(reports, durable)` is awaited with what a manager reports; `durable` has to be called once all of it is in
    the journal. `again(attempt_ids)` is asked for these attempts, to send them anew.
    """

    def __init__(
        self,
        *,
        swarm: str,
        settings: Settings,
        spawn: Callable[..., Any],
        kill: Callable[..., None],
        heard: Callable[[Sequence[Report], Callable[[], None]], Awaitable[None]],
        again: Callable[[set[str]], list[Attempt]],
        clock: Clock,
        tally: Tally,
    ) -> None:
        self._swarm = swarm
        self._settings = settings
        self._spawn = spawn
        self._kill = kill
        self._heard = heard
        self._again = again
        self._clock = clock
        self._tally = tally
        self._members: dict[str, _Member] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._appraisals: dict[str, list[Appraisal]] = defaultdict(list)
        self._flush: asyncio.TimerHandle | None = None
        self.router = Router()

    @property
    def plan(self) -> dict[str, list[str]]:
        """The cells of each manager."""
        return {name: list(member.cells) for name, member in self._members.items()}

    async def start(self, plan: dict[str, list[str]], seats: Iterable[tuple[str, Seat]] = ()) -> list[str]:
        """Start or find these managers and hand each its cells and agents (`(manager, seat)`). Raises ClusterError.

        Returns the agents that cannot be loaded, and are not here. Nothing is heard of any before `listen`.
        """
        for name, cells in plan.items():
            self._join(name, cells)
        for name, seat in seats:
            self._members[name].seats[seat.agent_id] = seat
            self._enrol(name, seat)
        refused: set[str] = set()
        for answer in await asyncio.gather(*(self._begin(member) for member in self._members.values())):
            refused |= answer.keys()
            for agent_id, why in answer.items():
                log.warning("agent %s is not back: %s", agent_id, why)
        for member in self._members.values():
            for agent_id in refused & member.seats.keys():
                del member.seats[agent_id]
                self.router.remove(agent_id)
        return sorted(refused)

    def listen(self) -> None:
        """Take reports from now on."""
        for member in self._members.values():
            self._tasks.append(asyncio.create_task(self._watch(member)))
        self._tasks.append(asyncio.create_task(self._remember()))

    async def spawn(self, shares: dict[str, list[Seat]]) -> None:
        """Let each manager have its share of new agents, all or none. Raises PolicyError, ClusterError."""
        for name, mine in shares.items():  # a manager that dies meanwhile comes back with them
            self._members[name].seats |= {seat.agent_id: seat for seat in mine}
        answers = await asyncio.gather(
            *(self._members[name].handle.spawn.remote(mine) for name, mine in shares.items()), return_exceptions=True
        )
        failed = [cluster.unwrap(answer) for answer in answers if isinstance(answer, BaseException)]
        refused = {why for answer in answers if isinstance(answer, dict) for why in answer.values()}
        if failed or refused:
            for name, mine in shares.items():
                for seat in mine:
                    del self._members[name].seats[seat.agent_id]
            await asyncio.gather(*(self._begin(self._members[name]) for name in shares), return_exceptions=True)
            raise failed[0] if failed else PolicyError("; ".join(sorted(refused)))
        for name, mine in shares.items():
            for seat in mine:
                self._enrol(name, seat)

    def shares(self, seats: Sequence[Seat]) -> dict[str, list[Seat]]:
        """Who goes where: to the manager that has the fewest agents for each of its cells."""
        sizes = {name: len(member.seats) / max(1, len(member.cells)) for name, member in self._members.items()}
        shares: dict[str, list[Seat]] = defaultdict(list)
        for seat in seats:
            name = min(sizes, key=sizes.__getitem__)
            sizes[name] += 1 / max(1, len(self._members[name].cells))
            shares[name].append(seat)
        return shares

    def dispatch(self, attempts: Iterable[Attempt]) -> list[Report]:
        """Send attempts on their way; what nobody could ever take comes back as refusals."""
        routed, refused = self.router.route(attempts, self._clock.monotonic())
        for name, mine in routed.items():
            self._members[name].courier.put((attempt, attempt.priority) for attempt in mine)
        return refused

    def cancel(self, attempt_ids: Iterable[str]) -> list[Report]:
        """Stop these attempts, wherever they are. Those that were still here are reported at once."""
        unsent: list[Report] = []
        by_member: dict[str, set[str]] = defaultdict(set)
        for attempt_id in attempt_ids:
            if name := self.router.manager_of(attempt_id):
                by_member[name].add(attempt_id)
        for name, ids in by_member.items():
            member = self._members[name]
            withdrawn = member.withdraw(ids)
            for attempt in withdrawn:
                self.router.ended(attempt.id)
                unsent.append(Report(attempt.id, attempt.mission_id, failure=FailureKind.CANCELLED, detail="cancelled"))
            if sent := ids - {attempt.id for attempt in withdrawn}:
                member.line.tell("cancel", list(sent))
        return unsent

    def appraise(self, appraisals: Iterable[Appraisal]) -> None:
        """Let managers know what their agents' work was worth, a little later and many at once."""
        for name, mine in self.router.sort(appraisals).items():
            self._appraisals[name] += mine
        if self._appraisals and self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(APPRAISE_S, self._send_appraisals)

    async def set_plan(self, plan: dict[str, list[str]]) -> None:
        """Have these managers with these cells. Managers are added, never taken away: an idle one costs little."""
        for name, cells in plan.items():
            if name not in self._members:
                member = self._join(name, cells)
                await self._begin(member)
                self._tasks.append(asyncio.create_task(self._watch(member)))
            elif self._members[name].cells != cells:
                self._members[name].cells = cells
                await self._members[name].handle.set_cells.remote(cells)

    async def status(self) -> list[dict[str, Any]]:
        """Each manager's own status, with `state` up or restarting."""
        await asyncio.gather(*(self._ask(member) for member in self._members.values()))
        return [
            {**member.status, "name": member.name, "state": "up" if member.up else "restarting"}
            for member in self._members.values()
        ]

    async def close(self) -> None:
        """End the managers and their cells."""
        for task in self._tasks:
            task.cancel()
        if self._flush:
            self._flush.cancel()
        for member in self._members.values():
            member.courier.close()
            try:
                async with asyncio.timeout(10):
                    await member.handle.close.remote()
            except cluster.CALL_FAILED as error:
                log.warning("%s did not close: %s", member.name, error)
                for cell in member.cells:
                    if handle := cluster.find(f"{self._swarm}/{cell}"):
                        self._kill(handle)
            member.line.close()
            self._kill(member.handle)
        self._members.clear()

    def _join(self, name: str, cells: list[str]) -> _Member:
        member = self._members[name] = _Member(name, self._start(name), list(cells))
        return member

    def _start(self, name: str) -> Any:
        from chimera.actors.manager import Manager

        return self._spawn(
            Manager, name=f"{self._swarm}/{name}", named=name, swarm=self._swarm, settings=self._settings
        )

    def _enrol(self, name: str, seat: Seat) -> None:
        self.router.add(name, seat.agent_id, role=seat.role, policy=seat.identity, skills=seat.skills)

    async def _begin(self, member: _Member) -> dict[str, str]:
        try:
            seats = list(member.seats.values())
            refused: dict[str, str] = await member.handle.begin.remote(member.cells, seats, member.standing)
            return refused
        except Exception as error:
            raise cluster.unwrap(error) from None

    async def _watch(self, member: _Member) -> None:
        """Look after a manager, whatever happens."""
        while True:
            try:
                await self._collect_from(member)
            except Exception:
                log.exception("%s: what it reports cannot be taken; trying again", member.name)
                await asyncio.sleep(1.0)

    async def _collect_from(self, member: _Member) -> None:
        """Take a manager's reports for as long as it lives; when it dies or stalls, have it back with its agents."""
        after = 0
        while True:
            try:
                async with asyncio.timeout(POLL_S + self._settings.stall_s):
                    batch: Batch[Report] = await member.line.call("collect", member.acked, after, POLL_S)
            except Exception as error:
                died = isinstance(error, cluster.ACTOR_GONE) or isinstance(cluster.unwrap(error), NotBegun)
                await self._revive(member, "died" if died else f"stalled ({error!r})", restart=not died)
                after = 0
                continue
            if batch.last < after:
                member.acked = 0
            after = batch.last
            self.router.weigh(member.name, batch.up)
            reports = [self._signed(report) for report in batch.reports]
            await self._heard(reports, partial(member.ack, member.life, after))

    def _signed(self, report: Report) -> Report:
        """Counted, and with its mission named, also where the manager never saw the attempt."""
        sent = self.router.ended(report.attempt_id)
        if report.failure is not FailureKind.CANCELLED:
            now = self._clock.monotonic()
            overhead_s = max(0.0, now - sent[1] - report.elapsed_s) if sent and report.reply else None
            self._tally.attempt_ended(now, report.failure, report.elapsed_s, overhead_s)
            self._tally.spent(report.spent)
        return report if report.mission_id or not sent else replace(report, mission_id=sent[0])

    async def _revive(self, member: _Member, why: str, *, restart: bool) -> None:
        log.warning("%s %s; it is started again", member.name, why)
        member.up = False
        if restart:
            self._kill(member.handle, restart=True)
        member.courier.close()  # and drops what is put: all that the router sent here goes again when it is back
        self.router.weigh(member.name, 0.0)
        member.life += 1
        if any(other.up for other in self._members.values()):
            await self._make_anew(self.router.open_at(member.name))
        pause_s = 0.1
        while True:
            try:
                await self._begin(member)
                break
            except Exception as error:
                log.warning("%s is not back yet: %s", member.name, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.5)
                try:
                    member.replace(self._start(member.name))  # by a new one, if it ended for good
                except Exception as fault:  # Ray itself cannot be asked just now
                    log.warning("%s cannot be started yet: %s", member.name, fault)
        member.acked = 0
        member.up = True
        member.courier = Courier(member._send)
        self.router.weigh(member.name, 1.0)
        await self._make_anew(self.router.open_at(member.name))

    async def _make_anew(self, attempt_ids: set[str]) -> None:
        """These attempts are lost with their manager: they go out again, to whoever may take them.

        Not those of a limited budget: what they have spent is not known, so they count as lost and for all they had.
        Those that are not wanted any more are lost too: what was reserved for them must not stay so.
        """
        missions = {attempt_id: found[0] for attempt_id in attempt_ids if (found := self.router.ended(attempt_id))}
        again = [attempt for attempt in self._again(attempt_ids) if attempt.spend == NO_LIMIT]
        gone = missions.keys() - {attempt.id for attempt in again}
        lost = [Report(id_, missions[id_], failure=FailureKind.LOST, detail="its manager died") for id_ in gone]
        await self._heard([*lost, *self.dispatch(again)], lambda: None)

    def reputations(self) -> dict[str, float]:
        """Of each agent that was ever appraised, over all its skills, as its manager last told."""
        return {
            agent_id: summary(beliefs, max((belief.at for belief in beliefs), default=0.0))[0]
            for member in self._members.values()
            for agent_id, skills in member.standing.items()
            for beliefs in [list(beliefs_of(skills).values())]
        }

    async def _remember(self) -> None:
        """Keep the agents' standing where a manager's death does not touch it."""
        while True:
            await asyncio.sleep(STANDING_S)
            for member in list(self._members.values()):
                try:
                    async with asyncio.timeout(5):
                        member.standing = await member.handle.standing.remote()
                except Exception as error:
                    log.info("%s: no standing: %s", member.name, error)

    async def _ask(self, member: _Member) -> None:
        try:
            async with asyncio.timeout(10):
                member.status = await member.handle.status.remote()
        except Exception as error:
            log.info("%s: no status: %s", member.name, error)

    def _send_appraisals(self) -> None:
        self._flush = None
        for name, mine in self._appraisals.items():
            self._members[name].line.tell("appraise", mine)
        self._appraisals.clear()
