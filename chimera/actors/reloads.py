"""The coordinator's part in reloads: who takes part, each module's line, and their records in the swarm's own stream.

Who takes part are the swarm's cells. One that starts says so itself, before it takes agents in; those that a
coordinator which has just started does not know are asked. Outside, versions count from 1, which is what was deployed;
one that is rolled back to has its old number again.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pydantic import JsonValue

from chimera.actors import cluster
from chimera.actors.reload_line import MAX_PROPOSALS, Kept, Member, ReloadLine, died
from chimera.core.errors import ClusterError, Overloaded, ReloadError
from chimera.core.events import Event, EventKind
from chimera.reload.messages import Joined, Parcel, Record, Reloaded, ReloadStatus
from chimera.reload.source import Source, checked, compiled

log = logging.getLogger(__name__)

MAX_MODULES = 256

LOOK_S = 5.0
"""How long a cell may take to say which versions it runs; and how often it is seen whether there are unknown ones."""

SOON_S = 0.5
"""When it is seen for the first time."""

KINDS = {EventKind.RELOAD_PROPOSED: "proposed", EventKind.RELOAD_COMMITTED: "committed"}

Note = Callable[[tuple[EventKind, dict[str, JsonValue]]], Awaitable[None]]


class Reloads:
    """`cells` are the full names of those that there should be. Nothing is answered before `begin`."""

    def __init__(
        self,
        *,
        cells: Callable[[], Awaitable[list[str]]],
        find: Callable[[str], Any] = cluster.find,
        kill: Callable[..., None] = cluster.kill,
    ) -> None:
        self._cells = cells
        self._find = find
        self._kill = kill
        self._note: Note | None = None
        self._begun = asyncio.Event()
        self._members: dict[str, Member] = {}
        self._lines: dict[str, ReloadLine] = {}
        self._lives = itertools.count(1)
        self._pulse: asyncio.Task[None] | None = None
        self._reloaded = self._rolled_back = self._failed = 0

    def begin(self, past: Iterable[Event], note: Note) -> None:
        """Go on from these events of the swarm's stream; further ones go to `note`. Raises ReloadError."""
        self.close()
        self._note = note
        lines: dict[str, list[tuple[Record, Parcel | None, Parcel | None]]] = {}
        for event in past:
            kind: Any = KINDS[event.kind]
            data: Any = event.data
            record = Record(kind, int(data["version"]), str(data["digest"]))
            told = (record, _unpacked(data.get("parcel")), _unpacked(data.get("first")))
            lines.setdefault(str(data["module"]), []).append(told)
        for module, records in lines.items():
            self._line(module).recover(records)
        self._begun.set()
        self._pulse = asyncio.create_task(self._beat())

    def close(self) -> None:
        self._begun.clear()
        if self._pulse:
            self._pulse.cancel()
        for line in self._lines.values():
            line.close()
        self._lines, self._members = {}, {}

    async def join(self, name: str, token: int) -> None:
        """This process has just started. Returns when it runs all that is committed."""
        async with asyncio.timeout(cluster.KNOCK_S):
            await self._begun.wait()
        member = self._members.get(name)
        if member is None or member.token != token:
            self._enter(name, token, await self._handle(name), {})
        for line in list(self._lines.values()):
            await line.caught_up(name)

    async def reload(self, module: str, parcel: Parcel) -> Reloaded:
        """This source everywhere, or nowhere. Raises ReloadError, Overloaded."""
        compiled(checked(Source(module, parcel.code, parcel.path)))
        line = self._line(module)
        async with _Turn(line):
            await self._prepare(line)
            now = line.history[-1].parcel
            if now and now.digest == parcel.digest:
                return self._unchanged(line)
            return await self._proposed(line, parcel)

    async def roll_back(self, module: str, lossy: bool, leaving: int) -> Reloaded:
        """The version before `leaving` everywhere, or nowhere. Raises ReloadError, Overloaded.

        If another than `leaving` is in use, that has been left already, and nothing changes.
        """
        line = self._lines.get(module)
        if line is None:
            raise ReloadError(f"{module} has not been reloaded: there is nothing to roll back")
        async with _Turn(line):
            await self._prepare(line)
            if leaving not in (0, line.history[-1].number):
                return self._unchanged(line)
            if len(line.history) < 2:
                raise ReloadError(f"{module} is at the version that was deployed: there is nothing to roll back")
            before = line.history[-2]
            if before.parcel is None:
                raise ReloadError(
                    f"the source of the version of {module} before is not known: reload it with that source"
                )
            again = Parcel(before.parcel.code, before.parcel.path, back_to=before.number, lossy=lossy)
            return await self._proposed(line, again)

    def _unchanged(self, line: ReloadLine) -> Reloaded:
        now = line.status()
        return Reloaded(
            module=line.module, version=now.version, digest=now.digest, actors=now.actors - now.behind, changed=False
        )

    def status(self) -> ReloadStatus:
        return ReloadStatus(
            reloaded=self._reloaded,
            rolled_back=self._rolled_back,
            failed=self._failed,
            modules={name: line.status() for name, line in sorted(self._lines.items())},
        )

    async def look(self) -> None:
        """Have those take part that should and are not known yet."""
        unknown = [name for name in await self._cells() if name not in self._members]
        await asyncio.gather(*(self._look_at(name) for name in unknown))

    async def _prepare(self, line: ReloadLine) -> None:
        await self.look()
        if not line.history:
            line.history = [Kept(1, await self._deployed(line.module))]

    async def _proposed(self, line: ReloadLine, parcel: Parcel) -> Reloaded:
        try:
            done = await line.propose(parcel)
        except ReloadError:
            self._failed += 1
            raise
        if parcel.back_to:
            self._rolled_back += 1
        else:
            self._reloaded += 1
        return done

    async def _deployed(self, module: str) -> Parcel | None:
        """What was deployed, as the first that knows has it."""
        for member in list(self._members.values()):
            try:
                async with asyncio.timeout(LOOK_S):
                    found: Parcel | None = await member.handle.reload_source.remote(module)
            except cluster.CALL_FAILED:
                continue
            if found is not None:
                return found
        return None

    async def _look_at(self, name: str) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                handle = await self._handle(name)
                status = await handle.reload_status.remote()
        except Exception as error:  # it is asked again
            log.info("%s takes no part in reloads yet: %s", name, error)
            return
        if name not in self._members:
            self._enter(name, status["life"], handle, status["runs"])

    async def _handle(self, name: str) -> Any:
        handle = await asyncio.to_thread(self._find, name)
        if handle is None:
            raise ClusterError(f"there is no actor {name}")
        return handle

    def _enter(self, name: str, token: int, handle: Any, runs: dict[str, int]) -> None:
        if member := self._members.get(name):
            self._gone(member)
        member = self._members[name] = Member(name, token, next(self._lives), handle)
        for module, line in self._lines.items():
            line.tell(Joined(name, member.life, runs.get(module, 0)))

    def _gone(self, member: Member) -> None:
        if self._members.get(member.name) is member:
            del self._members[member.name]
            for line in self._lines.values():
                line.tell(died(member))

    def _line(self, module: str) -> ReloadLine:
        line = self._lines.get(module)
        if line is None:
            if len(self._lines) >= MAX_MODULES:
                raise ReloadError(f"{MAX_MODULES} modules have been reloaded: no more are taken")
            line = self._lines[module] = ReloadLine(
                module, members=self._members, record=self._record, gone=self._gone, kill=self._kill
            )
            for member in self._members.values():
                line.tell(Joined(member.name, member.life, 0))
        return line

    async def _record(self, module: str, record: Record, parcel: Parcel, first: Parcel | None) -> None:
        assert self._note is not None
        data: dict[str, JsonValue] = {"module": module, "version": record.version, "digest": record.digest}
        if record.kind == "proposed":
            await self._note((EventKind.RELOAD_PROPOSED, data))
            return
        data["parcel"] = _packed(parcel)
        if first is not None:
            data["first"] = _packed(first)
        await self._note((EventKind.RELOAD_COMMITTED, data))

    async def _beat(self) -> None:
        for pause_s in itertools.chain((SOON_S,), itertools.repeat(LOOK_S)):
            await asyncio.sleep(pause_s)
            if self._lines:
                try:
                    await self.look()
                except Exception:
                    log.exception("who takes part in reloads cannot be seen")


class _Turn:
    """One reload of a module at a time; a few may wait."""

    def __init__(self, line: ReloadLine) -> None:
        self._line = line

    async def __aenter__(self) -> None:
        if self._line.waiting >= MAX_PROPOSALS:
            raise Overloaded(f"{MAX_PROPOSALS} reloads of {self._line.module} wait already", retry_after_s=1.0)
        self._line.waiting += 1
        try:
            await self._line.turn.acquire()
        except BaseException:
            self._line.waiting -= 1
            raise

    async def __aexit__(self, *error: object) -> None:
        self._line.waiting -= 1
        self._line.turn.release()


def _packed(parcel: Parcel) -> JsonValue:
    return {"code": base64.b64encode(parcel.code).decode(), "path": parcel.path, "back_to": parcel.back_to}


def _unpacked(data: Any) -> Parcel | None:
    if data is None:
        return None
    return Parcel(base64.b64decode(data["code"]), str(data["path"]), back_to=int(data["back_to"]))
