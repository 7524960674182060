"""Load to capacity: how many cells and managers a swarm wants, and which cells to drain when it wants fewer.

Pure. A cell is one process on one CPU, so its capacity is one second of work a second, and load is measured in the
same unit: cells' worth of work. By the utilisation law (Denning & Buzen, The Operational Analysis of Queueing Network
Models, 1978) that is throughput times the work of one attempt, and it is what the cells report as `used`. A saturated
cell cannot report more than itself; then the work on offer is computed: the attempts that arrive, and those that are
here already spread over `drain_s` (Little's law turned round: a queue of N is gone in N / throughput), times the work
that an attempt has cost so far. While the cells are not saturated, what waits is waiting for agents, which more cells
would not give it.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from chimera.core.types import Frozen, Seconds

UTILISATION = 0.8
"""The share of a cell that load should use. The rest absorbs bursts: in M/M/1 waiting grows as 1 / (1 - share)."""

SPARE_UTILISATION = 0.6
"""One is let go only if those that stay would be used no more than this. Load that varies within 0.6 to 0.8 of its
peak therefore never moves the count down, and what went does not come back at once."""

_SHARES = (UTILISATION, SPARE_UTILISATION)

HALF_LIFE_S = 30.0
"""How fast the work of past attempts is forgotten."""

MAX_SHRINK = 8
"""At most one in so many goes in one interval."""

Count = Annotated[int, Field(ge=0)]

Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Load(Frozen):
    """What a swarm measured over its last interval.

    `used` is the sum over its `cells` (those that run) of the share of its one CPU that each used, and `manager_used`
    the same over `managers`. `waiting` attempts have no agent yet, `busy` ones do. Rates are attempts a second.
    """

    cells: Count
    used: Rate
    waiting: Count = 0
    busy: Count = 0
    arrivals_per_s: Rate = 0.0
    completed_per_s: Rate = 0.0
    managers: Count = 1
    manager_used: Rate = 0.0


class Limits(Frozen):
    """The bounds of placement. It grows at once, and falls one step an `interval_s` by what was not needed for
    `quiet_s`. What waits should be done within `drain_s`."""

    min_cells: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_cells: Annotated[int, Field(ge=1, le=10_000)] = 8
    cells_per_manager: Annotated[int, Field(ge=1)] = 8
    max_managers: Annotated[int, Field(ge=1, le=100)] = 100
    drain_s: Seconds = 60.0
    quiet_s: Seconds = 60.0
    interval_s: Seconds = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if self.min_cells > self.max_cells:
            raise ValueError(f"min_cells {self.min_cells} is more than max_cells {self.max_cells}")
        return self


@dataclass(frozen=True, slots=True)
class Wanted:
    """The counts that a swarm should have. `work` says why: how many cells' worth of work there is."""

    cells: int
    managers: int
    work: float


class _Level:
    """A count that rises at once and falls slowly: to no less than was ample at any time in the last `quiet_s`."""

    def __init__(self, count: int, limits: Limits) -> None:
        self.count = count
        self._limits = limits
        self._moved_at: float | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def follow(self, need: int, ample: int, now: float) -> int:
        """`need` carries the load; `ample`, which is no less, carries it with room to spare."""
        if self._moved_at is None:
            self._moved_at = now + self._limits.quiet_s - self._limits.interval_s
        if need > self.count:
            self.count = need
        highest = self._highest(ample, now)
        if highest < self.count and now - self._moved_at >= self._limits.interval_s:
            self.count = max(highest, self.count - max(1, self.count // MAX_SHRINK))
            self._moved_at = now
        return self.count

    def _highest(self, ample: int, now: float) -> int:
        """The greatest `ample` of the last `quiet_s`. What a later one is not less than is forgotten."""
        while self._recent and self._recent[-1][1] <= ample:
            self._recent.pop()
        self._recent.append((now, ample))
        while now - self._recent[0][0] > self._limits.quiet_s:
            self._recent.popleft()
        return self._recent[0][1]


class Placement:
    """How many cells and managers are wanted, followed over time from those that there are. `now` is monotonic, in
    seconds."""

    def __init__(self, limits: Limits, *, cells: int = 1, managers: int = 1) -> None:
        self._limits = limits
        cells, managers = _clamp(cells, limits.min_cells, limits.max_cells), _clamp(managers, 1, limits.max_managers)
        self._cells = _Level(cells, limits)
        self._managers = _Level(managers, limits)
        self._work_s = 0.0
        self._done = 0.0
        self._learned_at: float | None = None

    def wanted(self, load: Load, now: float) -> Wanted:
        """What this load asks for. Call it every few seconds; the bounds of `Limits` always hold."""
        limits = self._limits
        self._learn(load, now)
        work = self._work(load)
        cells = self._cells.count
        if load.cells:  # none runs: nothing was measured
            need, ample = (_clamp(work / share, limits.min_cells, limits.max_cells) for share in _SHARES)
            cells = self._cells.follow(need, ample, now)
        shards = cells / limits.cells_per_manager
        need, ample = (_clamp(max(shards, load.manager_used / share), 1, limits.max_managers) for share in _SHARES)
        return Wanted(cells=cells, managers=self._managers.follow(need, ample, now), work=work)

    def _learn(self, load: Load, now: float) -> None:
        if not load.completed_per_s:
            return
        passed_s = self._limits.interval_s if self._learned_at is None else max(0.0, now - self._learned_at)
        self._learned_at = now
        kept = 0.5 ** (passed_s / HALF_LIFE_S)
        self._work_s = self._work_s * kept + load.used * passed_s
        self._done = self._done * kept + load.completed_per_s * passed_s

    def _work(self, load: Load) -> float:
        if load.used <= UTILISATION * load.cells or not self._done:
            return load.used
        offered_per_s = load.arrivals_per_s + (load.waiting + load.busy) / self._limits.drain_s
        return max(load.used, offered_per_s * self._work_s / self._done)


def _clamp(count: float, least: int, most: int) -> int:
    # The rounding keeps 1.6 / 0.8 at 2.
    return min(most, max(least, math.ceil(round(min(count, most), 9))))


def leaving(homes: Mapping[str, str], count: int, *, head: str = "") -> list[str]:
    """The `count` cells to drain, of `homes` (cell to node): they empty as many nodes as so many cells can.

    A node that keeps one cell is not idle, and the autoscaler leaves it. Cells on the `head`, which stays whatever
    happens, go last.
    """
    nodes: dict[str, list[str]] = defaultdict(list)
    for cell, node in sorted(homes.items(), reverse=True):
        nodes[node].append(cell)
    emptied = sorted(nodes, key=lambda node: (node == head, len(nodes[node]), node))
    return [cell for node in emptied for cell in nodes[node]][: max(0, count)]


class Leases:
    """How many cells each swarm asks the cluster for, and until when: a swarm that is no more stops asking."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, float]] = {}

    def ask(self, swarm: str, cells: int, until: float) -> None:
        """In place of what the swarm asked for before. No cells: nothing any more."""
        self._held.pop(swarm, None)
        if cells > 0:
            self._held[swarm] = (cells, until)

    def total(self, now: float) -> int:
        """The sum of what is asked for at `now`; what has lapsed is forgotten."""
        self._held = {swarm: lease for swarm, lease in self._held.items() if lease[1] > now}
        return sum(cells for cells, _ in self._held.values())


def plan_cells(cells: int, per_manager: int) -> dict[str, list[str]]:
    """The names of that many cells, at least one, under the managers that look after a few each."""
    managers = max(1, math.ceil(cells / per_manager))
    plan: dict[str, list[str]] = {f"Manager[{m}]": [] for m in range(managers)}
    names = list(plan)
    for cell in range(max(1, cells)):
        plan[names[cell % managers]].append(f"Cell[{cell}]")
    return plan
