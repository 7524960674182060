"""What the journals on a server share: they outlive its restarts, and store once what they had to send twice.

A connection that breaks during a commit leaves open whether that was stored. So it is tried again, and on that second
try events that are stored already, byte for byte, count as stored. Nowhere else do they: a duplicate is an error.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from chimera.core.errors import Overloaded, StorageError, StorageUnavailable
from chimera.core.events import Event
from chimera.storage.group_commit import DEFAULT_LIMITS, RETRY_AFTER_S, Batch, GroupCommit, Growth, Limits, plan
from chimera.storage.journal import MAX_READ, Journal, MissionSummary, check_limit, decode_event

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, *(1.6,) * 8)
"""Waited for a server that went away, before each new try: 14 s in all."""

RIVAL_TRIES = 20
"""Commits that other processes may spoil, each by writing the same missions first."""

PRUNE_AT_ONCE = 200
"""Missions that one transaction deletes, so that appends get their turn in between."""

MAX_WAITING_READS = 1_000
MAX_SEQ = 2**63 - 1

T = TypeVar("T")


class Disconnected(Exception):
    """The server is out of reach. What it was asked last may have been done or not."""


class Persistence:
    """Tries again what a broken connection cut short, within PAUSES_S, if the server named `where` ever answered."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._answered = False

    async def ask(self, attempt: Callable[[bool], Awaitable[T]]) -> T:
        """What `attempt` returns; it is told whether an earlier try may have been done. Raises StorageUnavailable."""
        pauses_s = iter(PAUSES_S if self._answered else ())
        again = False
        while True:
            try:
                answer = await attempt(again)
            except Disconnected as error:
                pause_s = next(pauses_s, None)
                if pause_s is None:
                    what = "; what was being stored may be there or not" if again else ""
                    raise StorageUnavailable(f"{self._where} is out of reach ({error}){what}") from None
            else:
                self._answered = True
                return answer
            again = True
            await asyncio.sleep(pause_s)


class ServerJournal(Journal):
    """A journal on the server that `where` names. An adapter supplies what is abstract here.

    Each of those methods may raise Disconnected.
    """

    def __init__(self, *, where: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self.where = where
        self._appends = GroupCommit(self._commit, where=where, limits=limits)
        self._persistence = Persistence(where)
        self._asked = 0
        self._one_by_one = asyncio.Lock()

    @abstractmethod
    async def _write(self, growths: Sequence[Growth]) -> bool:
        """Store `growths`, all or none: false, and nothing is stored, unless every mission ends at its `after`."""

    @abstractmethod
    async def _last_seqs(self, missions: Iterable[str]) -> dict[str, int]:
        """The last `seq` of those of `missions` that have one."""

    @abstractmethod
    async def _lines(self, mission_id: str, after: int, limit: int) -> list[bytes]: ...

    @abstractmethod
    async def _list(self, limit: int, swarm: str | None, running: bool) -> list[MissionSummary]: ...

    @abstractmethod
    async def _delete(self, ended_before_s: float, limit: int) -> int:
        """Delete `limit` ended missions at most, as one transaction; how many."""

    @abstractmethod
    async def _disconnect(self) -> None: ...

    async def append(self, events: Sequence[Event]) -> None:
        await self._appends.append(events)

    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        check_limit(limit)
        after = max(0, min(after, MAX_SEQ - 1))
        lines = await self._ask(lambda: self._lines(mission_id, after, limit))
        return [decode_event(line, self.where) for line in lines]

    async def missions(
        self, limit: int = 100, *, swarm: str | None = None, running: bool = False
    ) -> list[MissionSummary]:
        check_limit(limit)
        return await self._ask(lambda: self._list(limit, swarm, running))

    async def prune(self, ended_before_s: float, limit: int = MAX_READ) -> int:
        check_limit(limit)
        pruned = 0
        while pruned < limit:
            wanted = min(PRUNE_AT_ONCE, limit - pruned)
            deleted = await self._ask(partial(self._delete, ended_before_s, wanted))
            pruned += deleted
            if deleted < wanted:
                break
        return pruned

    async def close(self) -> None:
        await self._appends.close()
        async with self._one_by_one:  # behind the reads that wait
            await self._disconnect()

    async def _ask(self, query: Callable[[], Awaitable[T]]) -> T:
        self._appends.check_open()
        if self._asked >= MAX_WAITING_READS:
            raise Overloaded(f"{self._asked} reads already wait for {self.where}", RETRY_AFTER_S)
        self._asked += 1
        try:
            async with self._one_by_one:
                return await self._persistence.ask(lambda _: query())
        finally:
            self._asked -= 1

    async def _commit(self, group: Sequence[Batch]) -> dict[Batch, Exception]:
        return await self._persistence.ask(lambda again: self._try_commit(group, again))

    async def _try_commit(self, group: Sequence[Batch], again: bool) -> dict[Batch, Exception]:
        """Commit `group` less what breaks a mission's order. That it does is believed first, and asked in doubt."""
        if not again:
            growths, refused = plan(group, _believed(group))
            if not refused and await self._write(growths):
                return refused
        for _ in range(RIVAL_TRIES):
            last = await self._last_seqs({event.mission_id for batch in group for event in batch.events})
            waiting = [batch for batch in group if not (again and await self._is_stored(batch, last))]
            growths, refused = plan(waiting, last)
            if not growths or await self._write(growths):
                return refused
        raise StorageError(f"{self.where}: other processes keep writing the same missions")

    async def _is_stored(self, batch: Batch, last: dict[str, int]) -> bool:
        """Whether the journal holds the events of `batch` byte for byte."""
        wanted: dict[str, dict[int, bytes]] = {}
        for event, line in zip(batch.events, batch.lines, strict=True):
            wanted.setdefault(event.mission_id, {})[event.seq] = line
        for mission, lines in wanted.items():
            first = min(lines)
            if last.get(mission, 0) < max(lines):
                return False
            if await self._lines(mission, first - 1, len(lines)) != [lines[seq] for seq in sorted(lines)]:
                return False
        return True


def _believed(group: Sequence[Batch]) -> dict[str, int]:
    """Where missions end if every one of them goes on where `group` does."""
    last: dict[str, int] = {}
    for batch in group:
        for event in batch.events:
            last.setdefault(event.mission_id, event.seq - 1)
    return last
