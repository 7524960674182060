"""What every peer is given to do, and how it is measured: the same calls, the same client, the same counts."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

WINDOW = 1_000
"""Calls in flight at once, for every peer."""

BLOCK = WINDOW // 2
"""Calls submitted together by the peers that have a call for many: two blocks are in flight."""

WARM_UP = 400
"""Calls made before the clock starts: connections are open by then, modules imported, caches filled."""

PROCESSES = 2
"""Worker processes of every peer, except where an agent is a process."""

AGENTS = 16
"""Agents where each is a process: about as many as start in reasonable time on two cores (50 MB and 0.5-1 s each)."""


class Call(NamedTuple):
    """One agent asked once. The right reply is `(id, n + 1)`."""

    id: int
    n: int


Reply = tuple[int, int]
Exchange = Callable[[Iterator[Call]], Iterator[Reply]]
"""Draws calls when it submits them, at most WINDOW ahead of the replies it has yielded; yields replies as they come."""


@dataclass(frozen=True, slots=True)
class Work:
    """`tasks` tasks, each put to `voters` agents that think for `think_s` seconds; the majority of replies decides."""

    tasks: int
    voters: int = 1
    think_s: float = 0.0

    @property
    def slots(self) -> int:
        """Calls that one worker process has in progress: one that computes, many where agents mostly wait."""
        return 100 if self.think_s else 1


Start = Callable[[Work], AbstractContextManager[Exchange]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Latency is from submitting a task's first call to its decision. CPU and memory are of all processes, the
    client's and the broker's too; memory is the sum of resident sets at the end. `lost` tasks got no right decision;
    `duplicated` counts replies that came twice."""

    tasks_per_s: float
    p50_ms: float
    p95_ms: float
    cpu_s_per_1000_tasks: float
    total_rss_mb: float
    lost: int
    duplicated: int


class Tally:
    """The client's side: when each call was made, which replies are in, and what the majority says."""

    def __init__(self, work: Work, clock: Callable[[], float]) -> None:
        self.latencies_s: list[float] = []
        self.duplicated = 0
        self.right = 0
        self._work = work
        self._clock = clock
        self._asked_s: dict[int, float] = {}
        self._replied: set[int] = set()
        self._votes: dict[int, Counter[int]] = {}

    def calls(self) -> Iterator[Call]:
        for id_ in range(self._work.tasks * self._work.voters):
            n = id_ // self._work.voters
            self._asked_s.setdefault(n, self._clock())
            yield Call(id_, n)

    def add(self, reply: Reply) -> None:
        id_, value = reply
        if id_ in self._replied:
            self.duplicated += 1
            return
        self._replied.add(id_)
        n = id_ // self._work.voters
        votes = self._votes.setdefault(n, Counter())
        votes[value] += 1
        if votes[value] == self._work.voters // 2 + 1:
            self.latencies_s.append(self._clock() - self._asked_s[n])
            self.right += value == n + 1


def measure(start: Start, work: Work, clock: Callable[[], float] = time.perf_counter) -> Figures:
    """Start a peer, warm it up, and put `work` through it, from the first call to the last reply."""
    with start(work) as exchange:
        for _ in exchange(Tally(Work(WARM_UP), clock).calls()):
            pass
        tally = Tally(work, clock)
        cpu_s, began_s = tree_usage(os.getpid()).cpu_s, clock()
        for reply in exchange(tally.calls()):
            tally.add(reply)
        elapsed_s = clock() - began_s
        after = tree_usage(os.getpid())
    p50, p95 = np.percentile(tally.latencies_s, [50, 95]) * 1_000
    return Figures(
        tasks_per_s=round(work.tasks / elapsed_s, 1),
        p50_ms=round(float(p50), 1),
        p95_ms=round(float(p95), 1),
        cpu_s_per_1000_tasks=round((after.cpu_s - cpu_s) / work.tasks * 1_000, 3),
        total_rss_mb=round(after.rss_mb, 1),
        lost=work.tasks - tally.right,
        duplicated=tally.duplicated,
    )


class Usage(NamedTuple):
    """CPU seconds so far, with those of children that ended; resident memory in MB."""

    cpu_s: float
    rss_mb: float


def tree_usage(root: int) -> Usage:
    """What a process and its living descendants have used together (Linux)."""
    stats: dict[int, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:  # the name of the program, in parentheses, may hold spaces
                stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
    tree = [root]
    for pid in tree:
        tree += [child for child, stat in stats.items() if int(stat[1]) == pid]
    ticks = sum(int(tick) for pid in tree for tick in stats[pid][11:15])
    pages = sum(int(stats[pid][21]) for pid in tree)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
