"""One module on its way through the versions: a brain, the actors that it speaks to, and its records."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chimera.actors import cluster
from chimera.core.errors import ReloadError
from chimera.reload.messages import (
    Abort,
    Answer,
    Commit,
    Died,
    Drain,
    Drained,
    Event,
    Failed,
    Finish,
    Instruction,
    Joined,
    ModuleStatus,
    Parcel,
    Prepare,
    Propose,
    Ready,
    Record,
    Reloaded,
    Request,
    Restart,
    Running,
    Tick,
    WakeAt,
)
from chimera.reload.twophase import TwoPhase

log = logging.getLogger(__name__)

SETTLE_S = 10.0
"""How long whoever asked for a reload waits for all actors to run what was committed."""

MAX_KEPT = 16
"""Versions of a module that can be gone back to."""

MAX_PROPOSALS = 16


@dataclass(frozen=True)
class Member:
    """An actor's process: `token` is what it calls itself, `life` how the brains know it."""

    name: str
    token: int
    life: int
    handle: Any


@dataclass(frozen=True)
class Kept:
    """A version that was committed, by its outside number. The first is what was deployed, if that is known."""

    number: int
    parcel: Parcel | None


class ReloadLine:
    """`record` makes a record durable. `members` are those who take part, by name; `gone` is told of one that died."""

    def __init__(
        self,
        module: str,
        *,
        members: dict[str, Member],
        record: Callable[[str, Record, Parcel, Parcel | None], Awaitable[None]],
        gone: Callable[[Member], None],
        kill: Callable[..., None],
    ) -> None:
        self.module = module
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.history: list[Kept] = []
        self._members = members
        self._record = record
        self._gone = gone
        self._kill = kill
        self._brain = TwoPhase()
        self._records: list[Record] = []
        self._parcels: dict[int, Parcel] = {}
        self._proposed: Parcel | None = None
        self._finish: asyncio.Future[Finish] | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._open = 0
        self._changed = asyncio.Event()
        self._in_flight: set[tuple[str, int, str, int]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        self._wake_at: float | None = None
        self._last_failure = ""
        self._agents: dict[str, int] = {}
        """How many of each actor run what is committed, as it said last."""
        self._worker = asyncio.create_task(self._work())

    def recover(self, past: Sequence[tuple[Record, Parcel | None, Parcel | None]]) -> None:
        """What the journal holds, before anybody joins: records, each with its source and that of what was deployed.

        Raises ReloadError if they are out of order.
        """
        for record, parcel, deployed in past:
            self._remember(record)
            if parcel is not None:
                self.history = self.history or [Kept(1, deployed)]
                self._parcels[record.version] = parcel
                self._keep(record.version, parcel)
        self._brain = TwoPhase.recover(record for record, _, _ in past)

    def close(self) -> None:
        self._worker.cancel()
        for task in self._asking:
            task.cancel()

    def tell(self, event: Event) -> None:
        self._open += 1
        self._events.put_nowait(event)

    async def propose(self, parcel: Parcel) -> Reloaded:
        """Have it on every actor. Raises ReloadError if one cannot take it: then none does."""
        began = time.monotonic()
        self._proposed = parcel
        self._finish = asyncio.get_running_loop().create_future()
        self.tell(Propose(parcel.digest))
        finish = await self._finish
        decided = time.monotonic()
        if not finish.committed:
            self._last_failure = finish.reason
            number = self.history[-1].number if self.history else 1
            raise ReloadError(f"{self.module} stays at version {number} everywhere: {finish.reason}")
        settled = await self._until(lambda: not self._brain.behind, SETTLE_S)
        return Reloaded(
            module=self.module,
            version=self.history[-1].number,
            digest=parcel.digest,
            actors=self._brain.actors - len(self._brain.behind),
            agents=sum(self._agents.get(name, 0) for name in self._members),
            settled=settled,
            prepare_ms=round(1e3 * (decided - began), 3),
            commit_ms=round(1e3 * (time.monotonic() - decided), 3),
        )

    async def caught_up(self, name: str) -> None:
        """Until this actor runs what is committed, or has died."""
        await self._until(lambda: not self._open and name not in self._brain.behind, None)

    def status(self) -> ModuleStatus:
        now = self.history[-1] if self.history else Kept(1, None)
        return ModuleStatus(
            version=now.number,
            digest=now.parcel.digest if now.parcel else "",
            actors=self._brain.actors,
            behind=len(self._brain.behind),
            preparing=bool(self._brain.deciding),
            kept=sum(kept.parcel is not None for kept in self.history[:-1]),
            last_failure=self._last_failure[:2_000],
        )

    async def _until(self, true: Callable[[], bool], limit_s: float | None) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _work(self) -> None:
        while True:
            event, taken = await self._next()
            try:
                for told in self._brain.handle(event, time.monotonic()):
                    await self._carry_out(told)
            except Exception as error:
                self._begin_again(error)
            self._open -= taken
            self._changed.set()

    async def _next(self) -> tuple[Event, int]:
        wait_s = None if self._wake_at is None else max(0.0, self._wake_at - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):
                return await self._events.get(), 1
        except TimeoutError:
            self._wake_at = None
            return Tick(), 0

    async def _carry_out(self, told: Instruction) -> None:
        match told:
            case Record():
                await self._write(told)
            case Prepare() | Commit() | Abort() | Drain():
                self._ask(told)
            case Restart():
                if member := self._members.get(told.actor):
                    log.warning("%s is started anew: %s", told.actor, told.reason)
                    self._kill(member.handle, restart=True)
                    self._gone(member)
            case Finish():
                if self._finish is not None and not self._finish.done():
                    self._finish.set_result(told)
            case WakeAt():
                self._wake_at = told.at

    async def _write(self, record: Record) -> None:
        parcel = self._parcels.get(record.version) or self._proposed
        assert parcel is not None
        first = self.history[0].parcel if len(self.history) == 1 else None
        await self._record(self.module, record, parcel, first)
        self._remember(record)
        self._parcels[record.version] = parcel
        if record.kind == "committed":
            self._keep(record.version, parcel)

    def _remember(self, record: Record) -> None:
        """The last that was committed, and the last that was proposed: a brain needs no more."""
        if record.kind == "committed":
            self._records = [Record("proposed", record.version, record.digest), record]
        else:
            self._records = [*self._records[:2], record]

    def _keep(self, version: int, parcel: Parcel) -> None:
        """It is in use from here on. One that is an older one again takes that one's place."""
        if parcel.back_to:
            self.history = [kept for kept in self.history if kept.number < parcel.back_to]
        self.history = [*self.history, Kept(parcel.back_to or version + 1, replace(parcel, back_to=0))][-MAX_KEPT:]
        self._parcels = {number: kept for number, kept in self._parcels.items() if number >= version}

    def _begin_again(self, error: Exception) -> None:
        """What could not be written has not happened: on from what has, with the actors as they are."""
        log.error("%s: %s", self.module, error)
        self._brain = TwoPhase.recover(self._records)
        if self._finish is not None and not self._finish.done():
            self._finish.set_result(Finish(0, False, f"{type(error).__name__}: {error}"))
        for member in self._members.values():
            self._ask(Abort(member.name, self._records[-1].version + 1 if self._records else 1))
            self._look_at(member)

    def _look_at(self, member: Member) -> None:
        async def look() -> None:
            status = await self._call(member, "reload_status")
            if status is not None:
                self.tell(Joined(member.name, member.life, status["runs"].get(self.module, 0)))

        self._later(look())

    def _ask(self, told: Request) -> None:
        member = self._members.get(told.actor)
        if member is None:
            return
        key = (told.actor, member.life, type(told).__name__, told.version)
        if key not in self._in_flight:
            self._in_flight.add(key)
            self._later(self._asked(member, told, key))

    async def _asked(self, member: Member, told: Request, key: tuple[str, int, str, int]) -> None:
        try:
            parcel = self._parcels.get(told.version) if isinstance(told, Prepare | Commit) else None
            answer: Answer | None = await self._call(member, "reload", member.token, self.module, told, parcel)
        finally:
            self._in_flight.discard(key)
        name, life, version = member.name, member.life, told.version
        match answer:
            case Answer(kind="ready"):
                self.tell(Ready(name, life, version))
            case Answer(kind="failed"):
                self.tell(Failed(name, life, version, answer.reason))
            case Answer(kind="running"):
                self._agents[name] = answer.agents
                self.tell(Running(name, life, version))
            case Answer(kind="drained"):
                self.tell(Drained(name, life, version))
            case Answer(kind="stranger"):
                self._gone(member)

    async def _call(self, member: Member, method: str, *arguments: Any) -> Any:
        """None if there is no answer: whoever is still there is asked again."""
        try:
            return await getattr(member.handle, method).remote(*arguments)
        except cluster.ACTOR_GONE:
            self._gone(member)
        except Exception as error:
            log.warning("%s: %s of %s: %s", member.name, method, self.module, cluster.unwrap(error))
        return None

    def _later(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)


def died(member: Member) -> Died:
    return Died(member.name, member.life)
