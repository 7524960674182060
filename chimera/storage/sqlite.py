"""The embedded default: a journal in one SQLite file.

One thread holds the connection, so the event loop never waits for the disk. What the thread does is measured in
statements, since each gives the interpreter's lock away and has to win it back: rows go in many to a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from chimera.core.errors import Overloaded
from chimera.core.events import Event
from chimera.storage.group_commit import (
    DEFAULT_LIMITS,
    RETRY_AFTER_S,
    Batch,
    GroupCommit,
    Growth,
    Limits,
    Refused,
    ended_at_s,
    plan,
)
from chimera.storage.journal import MAX_READ, SWARM_PREFIX, Journal, MissionSummary, check_limit, decode_event
from chimera.storage.sqlite_file import boundary, open_file, transaction
from chimera.storage.sqlite_schema import JOURNAL
from chimera.storage.sqlite_wal import Checkpoints

MAX_WAITING_READS = 1_000
MAX_SEQ = 2**63 - 1
MAX_ROWS = 100
"""Rows in one statement."""
MAX_KNOWN = 20_000
"""Missions whose end is remembered."""
PRUNE_AT_ONCE = 200
"""Missions that one transaction deletes, so that appends get their turn in between."""

FIND = "SELECT mission_id, n, last_seq, swarm, ended_at_s IS NOT NULL FROM missions WHERE mission_id IN (VALUES {})"
INSERT_MISSIONS = "INSERT INTO missions VALUES {}"
MOVE_MISSIONS = """
UPDATE missions SET last_at_s = new.column1, last_kind = new.column2, last_seq = new.column3
FROM (VALUES {}) AS new WHERE n = new.column4
"""
MARK_MISSIONS = """
UPDATE missions SET swarm = new.column1, ended_at_s = new.column2 FROM (VALUES {}) AS new WHERE n = new.column3
"""  # indexed columns: only when they change
INSERT_EVENTS = "INSERT INTO events VALUES {}"
READ_EVENTS = """
SELECT line FROM events WHERE n = (SELECT n FROM missions WHERE mission_id = ?) AND seq > ? ORDER BY seq LIMIT ?
"""
READ_MISSIONS = """
SELECT mission_id, swarm, first_at_s, last_at_s, last_kind, last_seq AS events FROM missions
WHERE listed {} ORDER BY n DESC LIMIT ?
"""
FIND_ENDED = "SELECT n FROM missions WHERE listed AND ended_at_s < ? ORDER BY ended_at_s LIMIT ?"

T = TypeVar("T")


class _End(NamedTuple):
    """Where a mission's events end: what is needed to take the next ones."""

    n: int
    seq: int
    swarm: str
    ended: bool


class SqliteJournal(Journal):
    """A journal in the file at `path` (WAL, synchronous=FULL). Several processes may open the same file.

    `busy_timeout_s` is how long a commit waits for another process's. Raises StorageError if the file is damaged, is
    another program's, or was written by a newer version.
    """

    def __init__(self, *, path: Path, busy_timeout_s: float = 10.0, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.commits = 0
        """Transactions committed so far: appends per commit is what group commit gains."""
        self._connection = open_file(path, JOURNAL, busy_timeout_s)
        self._checkpoints = Checkpoints(self._connection, path)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chimera-journal")
        self._appends = GroupCommit(self._commit, where=str(path), limits=limits)
        self._asked = 0
        self._closing: asyncio.Task[None] | None = None
        self._ends: dict[str, _End] = {}  # of missions written last; right as long as the file's version is this
        self._data_version = 0

    async def append(self, events: Sequence[Event]) -> None:
        await self._appends.append(events)

    async def read(self, mission_id: str, after: int = 0, limit: int = MAX_READ) -> list[Event]:
        check_limit(limit)

        def query() -> list[Event]:
            rows = self._connection.execute(READ_EVENTS, (mission_id, max(0, min(after, MAX_SEQ)), limit))
            return [decode_event(line, str(self.path)) for (line,) in rows]

        return await self._ask(query)

    async def missions(
        self, limit: int = 100, *, swarm: str | None = None, running: bool = False
    ) -> list[MissionSummary]:
        check_limit(limit)
        where = "AND ended_at_s IS NULL" * running + " AND swarm = ?" * (swarm is not None)

        def query() -> list[MissionSummary]:
            found = self._connection.execute(READ_MISSIONS.format(where), (limit,) if swarm is None else (swarm, limit))
            names = [column[0] for column in found.description]
            return [MissionSummary(**dict(zip(names, row, strict=True))) for row in found]

        return await self._ask(query)

    async def prune(self, ended_before_s: float, limit: int = MAX_READ) -> int:
        check_limit(limit)
        pruned = 0
        while pruned < limit:
            wanted = min(PRUNE_AT_ONCE, limit - pruned)
            deleted = await self._ask(partial(self._prune, ended_before_s, wanted))
            pruned += deleted
            if deleted < wanted:
                break
        return pruned

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._appends.close()
        await self._in_thread(self._checkpoints.close)
        await self._in_thread(self._connection.close)
        self._thread.shutdown(wait=False)

    async def _ask(self, query: Callable[[], T]) -> T:
        """Run `query` in the thread, behind what it has to do already."""
        self._appends.check_open()
        if self._asked >= MAX_WAITING_READS:
            raise Overloaded(f"{self._asked} reads already wait for {self.path}", RETRY_AFTER_S)
        self._asked += 1
        try:
            return await self._in_thread(query)
        finally:
            self._asked -= 1

    async def _in_thread(self, call: Callable[[], T]) -> T:
        with boundary(self.path, JOURNAL.what):
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _commit(self, group: Sequence[Batch]) -> Refused:
        return await self._in_thread(partial(self._write, group))

    def _write(self, group: Sequence[Batch]) -> Refused:
        """In the thread: commit `group` less what breaks a mission's order."""
        connection = self._connection
        with transaction(connection):
            ends = self._find({event.mission_id for batch in group for event in batch.events})
            growths, refused = plan(group, {mission: end.seq for mission, end in ends.items()})
            self._insert(growths, ends)
        self.commits += 1
        for growth in growths:
            self._ends.pop(growth.mission_id, None)
            self._ends[growth.mission_id] = ends[growth.mission_id]
        while len(self._ends) > MAX_KNOWN:
            del self._ends[next(iter(self._ends))]
        self._checkpoints.committed(sum(batch.size_bytes for batch in group))
        return refused

    def _find(self, missions: Collection[str]) -> dict[str, _End]:
        """The ends of `missions`, less those that are new. Within a write transaction."""
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:  # another connection has written
            self._ends.clear()
            self._data_version = version
        ends = {mission: self._ends[mission] for mission in missions if mission in self._ends}
        unknown = [(mission,) for mission in missions if mission not in ends]
        ends |= {mission: _End(*end) for mission, *end in self._execute(FIND, unknown)}
        return ends

    def _insert(self, growths: list[Growth], ends: dict[str, _End]) -> None:
        """Store `growths`, and bring `ends` up to date."""
        last_n: int = self._connection.execute("SELECT coalesce(max(n), 0) FROM missions").fetchone()[0]
        new, moved, marked, events = [], [], [], []
        for growth in growths:
            mission, last, old = growth.mission_id, growth.last, ends.get(growth.mission_id)
            ended = ended_at_s(last)
            seq = growth.after + len(growth.lines)
            if old is None:
                n = last_n = last_n + 1
                listed = not mission.startswith(SWARM_PREFIX)
                first_at_s = growth.first.at_s
                new.append((n, mission, listed, last.swarm, first_at_s, last.at_s, ended, str(last.kind), seq))
            else:
                n = old.n
                moved.append((last.at_s, str(last.kind), seq, n))
                if (old.swarm, old.ended) != (last.swarm, ended is not None) or ended is not None:
                    marked.append((last.swarm, ended, n))
            ends[mission] = _End(n, seq, last.swarm, ended is not None)
            events += [(n, number, line) for number, line in enumerate(growth.lines, growth.after + 1)]
        self._execute(INSERT_MISSIONS, new)
        self._execute(MOVE_MISSIONS, moved)
        self._execute(MARK_MISSIONS, marked)
        self._execute(INSERT_EVENTS, events)

    def _execute(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The statement over many rows at once, and what it finds."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            values = list(chain.from_iterable(part))
            found += self._connection.execute(_sql(statement, len(part[0]), len(part)), values).fetchall()
        return found

    def _prune(self, ended_before_s: float, limit: int) -> int:
        """In the thread: delete `limit` missions at most."""
        with transaction(self._connection):
            found = self._connection.execute(FIND_ENDED, (ended_before_s, limit)).fetchall()
            self._connection.executemany("DELETE FROM events WHERE n = ?", found)
            self._connection.executemany("DELETE FROM missions WHERE n = ?", found)
        self._ends.clear()
        self._checkpoints.committed(0)
        return len(found)


@cache
def _sql(statement: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return statement.format(",".join([row] * rows))
