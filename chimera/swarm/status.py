"""What can be seen of a running swarm at one moment. `chimera top`, the client and the metrics all show this."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chimera.core.types import FailureKind, Frozen, MissionState, Name, Outcome, Share, Spend


class NodeStatus(Frozen):
    """A machine of the cluster: the start of its Ray id, its CPUs, and the swarm's cells on it."""

    node: str
    alive: bool = True
    cells: int = 0
    cpus: float = 0.0


class ManagerStatus(Frozen):
    """A manager and its shard: agents, those at work, attempts that wait for one. A cell that is down has no pid."""

    name: str
    pid: int | None = None
    state: Literal["up", "restarting"] = "up"
    agents: int = 0
    busy: int = 0
    waiting: int = 0
    cells: dict[str, int | None] = Field(default_factory=dict)

    @property
    def cells_up(self) -> int:
        return sum(pid is not None for pid in self.cells.values())


class RoleStatus(Frozen):
    """The agents of one role, those at work, and the attempts that wait for one."""

    agents: int = 0
    busy: int = 0
    waiting: int = 0


class HeldStatus(Frozen):
    """A task that waits for a person: what it was to do, and what is `proposed`, as JSON (empty: nothing was agreed).

    Long texts are cut. Times are in wall-clock seconds since the epoch; at `until_s` it counts as rejected.
    """

    mission_id: Name
    task_id: Name
    goal: str
    proposed: str
    outcome: Outcome
    confidence: Share
    since_s: float
    until_s: float


class MissionCounts(Frozen):
    """`running`, `queued` and `held` are of now, the rest since the coordinator started. `resumed` ones count as
    admitted; a `held` one does nothing but wait for a person, and is not counted as running."""

    running: int = 0
    queued: int = 0
    held: int = 0
    admitted: int = 0
    resumed: int = 0
    refused: int = 0
    ended: dict[MissionState, int] = Field(default_factory=dict)


class Rates(Frozen):
    """Per second, over the last ten whole seconds. Missions that ended, tasks decided, attempts ended."""

    missions_per_s: float = 0.0
    tasks_per_s: float = 0.0
    attempts_per_s: float = 0.0
    failures_per_s: float = 0.0
    journal_events_per_s: float = 0.0


class Percentiles(Frozen):
    """Milliseconds, each within 5 %, over the `count` values of the last 30 to 60 seconds; zero where none are."""

    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


class Latencies(Frozen):
    """How long things took: a mission from admission to its end; a task from its start to its decision; an attempt
    at its agent; and the overhead, which is an attempt's time between coordinator and agent, there and back."""

    mission_ms: Percentiles = Percentiles()
    decision_ms: Percentiles = Percentiles()
    attempt_ms: Percentiles = Percentiles()
    overhead_ms: Percentiles = Percentiles()


class CallCounts(Frozen):
    """Attempts that were sent to agents, and votes that were not needed because the decision was certain without."""

    made: int = 0
    saved: int = 0


class BudgetStatus(Frozen):
    """What the attempts in progress have reserved, and what those that ended have spent."""

    reserved: Spend = Spend()
    spent: Spend = Spend()


class JournalCounts(Frozen):
    """Events that are durable, and the appends that it took. `scheme` is the store's kind: sqlite, redis, memory."""

    scheme: str = ""
    events: int = 0
    appends: int = 0


class Activity(Frozen):
    """What a coordinator has done since it started, as its `Tally` counts it."""

    uptime_s: float = 0.0
    missions: MissionCounts = MissionCounts()
    rates: Rates = Rates()
    latencies: Latencies = Latencies()
    consensus: dict[Outcome, int] = Field(default_factory=dict)
    calls: CallCounts = CallCounts()
    budget: BudgetStatus = BudgetStatus()
    failures: dict[FailureKind, int] = Field(default_factory=dict)
    quarantined: int = 0
    journal: JournalCounts = JournalCounts()
    held: tuple[HeldStatus, ...] = ()
    """Tasks that wait for a person: those that have done so longest, at most twenty."""


class SwarmStatus(Activity):
    """A swarm at one moment: what it does, and the nodes, managers, cells and agents that do it. Pickles."""

    swarm: str
    pid: int
    nodes: tuple[NodeStatus, ...] = ()
    managers: tuple[ManagerStatus, ...] = ()
    agents_by_role: dict[str, RoleStatus] = Field(default_factory=dict)

    @property
    def agents(self) -> int:
        return sum(manager.agents for manager in self.managers)

    @property
    def busy(self) -> int:
        return sum(manager.busy for manager in self.managers)

    @property
    def waiting(self) -> int:
        return sum(manager.waiting for manager in self.managers)

    @property
    def cells(self) -> int:
        return sum(len(manager.cells) for manager in self.managers)

    @property
    def cells_up(self) -> int:
        return sum(manager.cells_up for manager in self.managers)
