"""Who does what next: the agents of one manager's shard, their cells, and the attempts that wait for them.

Pure: every method returns the assignments to send and the reports to pass up. An agent works on one attempt at a
time; what finds no free agent waits here, in order, within `max_waiting`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Attempt, Report

MAX_TASKS_REMEMBERED = 100_000


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
    cell: str
    done: int = 0
    attempt: Attempt | None = None


class Roster:
    """The agents of one shard. Times are the brain's business; places and queues are this one's."""

    def __init__(self, *, max_waiting: int = 100_000) -> None:
        self._max_waiting = max_waiting
        self._agents: dict[str, _Agent] = {}
        self._roles: dict[str, list[_Agent]] = {}
        self._policies: dict[str, list[str]] = {}
        self._holders: OrderedDict[str, dict[int, str]] = OrderedDict()
        self._up: set[str] = set()
        self._waiting: dict[str, deque[Attempt]] = {}
        self._waiting_count = 0
        self._busy: dict[str, _Agent] = {}

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def waiting(self) -> int:
        """Attempts that no agent has yet."""
        return self._waiting_count

    @property
    def busy(self) -> int:
        """Attempts that an agent has."""
        return len(self._busy)

    def add(self, agent_id: str, *, role: str, policy: str, cell: str) -> Step:
        """A new agent. It may take waiting work at once."""
        agent = self._agents[agent_id] = _Agent(agent_id, role, policy, cell)
        self._roles.setdefault(role, []).append(agent)
        self._policies[role] = sorted({agent.policy for agent in self._roles[role]})
        return self._fill(agent)

    def agents_of(self, cell: str) -> list[str]:
        return [agent.agent_id for agent in self._agents.values() if agent.cell == cell]

    def cell_up(self, cell: str) -> Step:
        """The cell hosts its agents (again)."""
        self._up.add(cell)
        step = Step()
        for agent in self._agents.values():
            if agent.cell == cell:
                step.assignments += self._fill(agent).assignments
        return step

    def cell_down(self, cell: str, why: str) -> Step:
        """The cell's process is gone: what it had in hand is lost and reported so."""
        self._up.discard(cell)
        step = Step()
        for attempt_id, agent in list(self._busy.items()):
            if agent.cell == cell and agent.attempt:
                del self._busy[attempt_id]
                step.reports.append(_report(agent.attempt, FailureKind.LOST, why, agent))
                agent.attempt = None
        return step

    def submit(self, attempts: Iterable[Attempt]) -> Step:
        """Assign what can be assigned, let the rest wait, refuse what no agent here could ever take."""
        step = Step()
        for attempt in attempts:
            able = [agent for agent in self._roles.get(attempt.task.role, ()) if self._able(agent, attempt)]
            if not able:
                step.reports.append(_report(attempt, FailureKind.NO_AGENT, self._why_none(attempt)))
                continue
            free = [agent for agent in able if agent.attempt is None and agent.cell in self._up]
            if free:
                step.assignments.append(self._assign(min(free, key=lambda a: (a.done, a.agent_id)), attempt))
            elif self._waiting_count >= self._max_waiting:
                why = f"{self._max_waiting} attempts are waiting already"
                step.reports.append(_report(attempt, FailureKind.NO_AGENT, why))
            else:
                self._waiting.setdefault(attempt.task.role, deque()).append(attempt)
                self._waiting_count += 1
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
        gone = set(attempt_ids)
        for attempt_id in sorted(gone):
            if agent := self._busy.get(attempt_id):
                yield agent.cell, attempt_id
        for role, queue in self._waiting.items():
            kept = deque(attempt for attempt in queue if attempt.id not in gone)
            self._waiting_count -= len(queue) - len(kept)
            self._waiting[role] = kept

    def _fill(self, agent: _Agent) -> Step:
        """Give a free agent the oldest waiting attempt that it can take."""
        step = Step()
        if agent.attempt is None and agent.cell in self._up:
            queue = self._waiting.get(agent.role, deque())
            for at, attempt in enumerate(queue):
                if self._able(agent, attempt):
                    del queue[at]
                    self._waiting_count -= 1
                    step.assignments.append(self._assign(agent, attempt))
                    break
        return step

    def _assign(self, agent: _Agent, attempt: Attempt) -> Assignment:
        agent.attempt = attempt
        self._busy[attempt.id] = agent
        self._holders.setdefault(_task_key(attempt), {})[attempt.replica] = agent.agent_id
        if len(self._holders) > MAX_TASKS_REMEMBERED:
            self._holders.popitem(last=False)
        return Assignment(agent.cell, agent.agent_id, attempt)

    def _able(self, agent: _Agent, attempt: Attempt) -> bool:
        if agent.agent_id in attempt.barred:
            return False
        holders = self._holders.get(_task_key(attempt), {})
        if any(holder == agent.agent_id and replica != attempt.replica for replica, holder in holders.items()):
            return False  # it votes, or has voted, for another replica: one agent, one vote
        return not attempt.task.different_policies or agent.policy == self._policy_for(attempt)

    def _policy_for(self, attempt: Attempt) -> str | None:
        """Replica i of a task gets the i-th policy of its role by name: the same one whatever the order of arrival."""
        policies = self._policies.get(attempt.task.role, [])
        return policies[attempt.replica] if attempt.replica < len(policies) else None

    def _why_none(self, attempt: Attempt) -> str:
        role = attempt.task.role
        if role not in self._roles:
            return f"no agent has the role {role!r}; spawn one"
        if attempt.task.different_policies and self._policy_for(attempt) is None:
            policies = len(self._policies[role])
            return f"role {role!r} has {policies} different policies; replica {attempt.replica + 1} needs another"
        return f"every agent of role {role!r} that could take this has voted on it, failed it or is at it"


def _task_key(attempt: Attempt) -> str:
    return f"{attempt.mission_id}/{attempt.task_id}"


def _report(attempt: Attempt, failure: FailureKind, detail: str, agent: _Agent | None = None) -> Report:
    return Report(
        attempt.id,
        attempt.mission_id,
        agent=agent.agent_id if agent else "",
        policy=agent.policy if agent else "",
        failure=failure,
        detail=detail,
    )
