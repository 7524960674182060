"""Who does what next: the agents of one manager's shard, their cells, and the attempts that wait for them.

Pure: every method returns the assignments to send and the reports to pass up. An agent works on one attempt at a
time; what finds no free agent waits here, in order, within `max_waiting`. What nobody could ever take is refused, also
when it becomes so while it waits. A step costs about what it assigns, not the number of agents.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Attempt, Report

MAX_TASKS_REMEMBERED = 100_000
"""Tasks whose voters are remembered; far more than can be in progress."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Send `attempt` to `agent_id`, which lives in `cell`."""

    cell: str
    agent_id: str
    attempt: Attempt


@dataclass(slots=True)
class Step:
    """What a manager has to do after a change."""

    assignments: list[Assignment] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


@dataclass(slots=True)
class _Agent:
    agent_id: str
    role: str
    policy: str
    label: str
    cell: str
    done: int = 0
    attempt: Attempt | None = None


@dataclass(slots=True)
class _Group:
    """The agents of one role and policy. `free` is a heap by work done; stale entries are dropped when met."""

    agents: list[_Agent] = field(default_factory=list)
    free: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Task:
    """Who has which replica of a task, who may have none any more, and which of its attempts wait."""

    holders: dict[int, str] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)
    waiting: dict[str, Attempt] = field(default_factory=dict)

    def excludes(self, agent_id: str, replica: int) -> bool:
        return agent_id in self.barred or any(
            holder == agent_id and held != replica for held, holder in self.holders.items()
        )


class Roster:
    """The agents of one shard. Times are the brain's business; places and queues are this one's."""

    def __init__(self, *, max_waiting: int = 100_000) -> None:
        self._max_waiting = max_waiting
        self._agents: dict[str, _Agent] = {}
        self._cells: dict[str, dict[str, _Agent]] = {}
        self._groups: dict[str, dict[str, _Group]] = {}
        self._tasks: OrderedDict[str, _Task] = OrderedDict()
        self._lanes: dict[tuple[str, str], deque[tuple[int, Attempt]]] = {}
        self._waiting: dict[str, Attempt] = {}
        self._arrived = 0
        self._up: set[str] = set()
        self._busy: dict[str, _Agent] = {}

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def waiting(self) -> int:
        """Attempts that no agent has yet."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Attempts that an agent has."""
        return len(self._busy)

    def add(self, agent_id: str, *, role: str, policy: str, cell: str, label: str = "") -> Step:
        """A new agent. It may take waiting work at once. `policy` tells policies apart, `label` is for people."""
        agent = self._agents[agent_id] = _Agent(agent_id, role, policy, label or policy, cell)
        self._cells.setdefault(cell, {})[agent_id] = agent
        groups = self._groups.setdefault(role, {})
        if policy not in groups:
            groups[policy] = _Group()
            self._groups[role] = dict(sorted(groups.items()))
        self._groups[role][policy].agents.append(agent)
        return self._fill(agent)

    def cell_up(self, cell: str) -> Step:
        """The cell hosts its agents (again)."""
        step = Step()
        if cell not in self._up:
            self._up.add(cell)
            for agent in self._cells.get(cell, {}).values():
                self._join(step, self._fill(agent))
        return step

    def cell_down(self, cell: str, why: str) -> Step:
        """The cell's process is gone: what it had in hand is lost and reported so."""
        self._up.discard(cell)
        step = Step()
        for agent in self._cells.get(cell, {}).values():
            if attempt := agent.attempt:
                del self._busy[attempt.id]
                agent.attempt = None
                step.reports.append(_report(attempt, FailureKind.LOST, why, agent))
        return step

    def submit(self, attempts: Iterable[Attempt]) -> Step:
        """Assign what can be assigned, let the rest wait, refuse what no agent here could ever take."""
        step = Step()
        for attempt in attempts:
            task = self._task(attempt)
            task.barred |= attempt.barred
            agent = self._free_agent(attempt, task)
            if agent is not None:
                step.assignments.append(self._assign(agent, attempt, task))
            elif not self._somebody_could(attempt, task):
                step.reports.append(_report(attempt, FailureKind.NO_AGENT, self._why_none(attempt)))
            elif len(self._waiting) >= self._max_waiting:
                why = f"{self._max_waiting} attempts are waiting already"
                step.reports.append(_report(attempt, FailureKind.NO_AGENT, why))
            else:
                self._wait(attempt, task)
            step.reports += self._stranded(task)
        return step

    def done(self, attempt_id: str) -> Step:
        """The agent that had this attempt is free again."""
        agent = self._busy.pop(attempt_id, None)
        if agent is None:
            return Step()
        agent.attempt = None
        agent.done += 1
        return self._fill(agent)

    def cancel(self, attempt_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Forget waiting attempts; yield `(cell, attempt_id)` of those in hand, which their cells must stop."""
        for attempt_id in attempt_ids:
            if agent := self._busy.get(attempt_id):
                yield agent.cell, attempt_id
            elif attempt := self._waiting.get(attempt_id):
                self._leave(attempt)

    def _task(self, attempt: Attempt) -> _Task:
        key = f"{attempt.mission_id}/{attempt.task_id}"
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = _Task()
            if len(self._tasks) > MAX_TASKS_REMEMBERED:
                self._tasks.popitem(last=False)
        return task

    def _groups_for(self, attempt: Attempt) -> list[_Group]:
        """The groups that may take it. With different policies replica i has the i-th by name."""
        groups = list(self._groups.get(attempt.task.role, {}).values())
        if attempt.task.different_policies:
            return groups[attempt.replica : attempt.replica + 1]
        return groups

    def _free_agent(self, attempt: Attempt, task: _Task) -> _Agent | None:
        """The free agent that has done the least, of those that may take it."""
        best: _Agent | None = None
        for group in self._groups_for(attempt):
            passed_over = []
            while group.free:
                done, agent_id = group.free[0]
                agent = self._agents[agent_id]
                if agent.attempt is not None or agent.done != done or agent.cell not in self._up:
                    heapq.heappop(group.free)
                elif task.excludes(agent_id, attempt.replica):
                    passed_over.append(heapq.heappop(group.free))
                else:
                    if best is None or (done, agent_id) < (best.done, best.agent_id):
                        best = agent
                    break
            for entry in passed_over:
                heapq.heappush(group.free, entry)
        return best

    def _somebody_could(self, attempt: Attempt, task: _Task) -> bool:
        return any(
            not task.excludes(agent.agent_id, attempt.replica)
            for group in self._groups_for(attempt)
            for agent in group.agents
        )

    def _fill(self, agent: _Agent) -> Step:
        """Give a free agent the oldest waiting attempt that it can take."""
        step = Step()
        if agent.attempt is not None or agent.cell not in self._up:
            return step
        heads = [self._first_for(agent, lane) for lane in ((agent.role, ""), (agent.role, agent.policy))]
        found = min((head for head in heads if head), default=None, key=lambda head: head[0])
        if found is None:
            heapq.heappush(self._groups[agent.role][agent.policy].free, (agent.done, agent.agent_id))
            return step
        attempt = found[1]
        task = self._task(attempt)
        self._leave(attempt)
        step.assignments.append(self._assign(agent, attempt, task))
        step.reports += self._stranded(task)
        return step

    def _first_for(self, agent: _Agent, lane: tuple[str, str]) -> tuple[int, Attempt] | None:
        queue = self._lanes.get(lane)
        while queue and self._waiting.get(queue[0][1].id) is not queue[0][1]:
            queue.popleft()  # it was cancelled, refused, or taken from the middle
        for entry in queue or ():
            attempt = entry[1]
            if attempt.id in self._waiting and not self._task(attempt).excludes(agent.agent_id, attempt.replica):
                return entry
        return None

    def _wait(self, attempt: Attempt, task: _Task) -> None:
        self._arrived += 1
        policies = list(self._groups[attempt.task.role])
        policy = policies[attempt.replica] if attempt.task.different_policies else ""
        self._lanes.setdefault((attempt.task.role, policy), deque()).append((self._arrived, attempt))
        self._waiting[attempt.id] = task.waiting[attempt.id] = attempt

    def _leave(self, attempt: Attempt) -> None:
        del self._waiting[attempt.id]
        self._task(attempt).waiting.pop(attempt.id, None)

    def _stranded(self, task: _Task) -> list[Report]:
        """Refusals of the task's waiting attempts that lost their last agent to another replica or a failure."""
        lost = [attempt for attempt in task.waiting.values() if not self._somebody_could(attempt, task)]
        for attempt in lost:
            self._leave(attempt)
        return [_report(attempt, FailureKind.NO_AGENT, self._why_none(attempt)) for attempt in lost]

    def _assign(self, agent: _Agent, attempt: Attempt, task: _Task) -> Assignment:
        agent.attempt = attempt
        self._busy[attempt.id] = agent
        task.holders[attempt.replica] = agent.agent_id
        return Assignment(agent.cell, agent.agent_id, attempt)

    @staticmethod
    def _join(step: Step, more: Step) -> None:
        step.assignments += more.assignments
        step.reports += more.reports

    def _why_none(self, attempt: Attempt) -> str:
        role = attempt.task.role
        groups = self._groups.get(role)
        if not groups:
            return f"no agent has the role {role!r}; spawn one"
        if attempt.task.different_policies and attempt.replica >= len(groups):
            return f"role {role!r} has {len(groups)} different policies; replica {attempt.replica + 1} needs another"
        return f"every agent of role {role!r} that could take this has voted on it, failed it or is at it"


def _report(attempt: Attempt, failure: FailureKind, detail: str, agent: _Agent | None = None) -> Report:
    return Report(
        attempt.id,
        attempt.mission_id,
        agent=agent.agent_id if agent else "",
        policy=agent.label if agent else "",
        failure=failure,
        detail=detail,
    )
