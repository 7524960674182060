"""What a roster is made of: agents and their kinds, cells, the tasks they are at, and the lanes in which attempts wait.

A lane is one demand: a role, and a policy or a skill if asked for. It knows which free agents meet the demand and
which attempts with it wait. A kind is all agents of one role, policy and set of skills: they meet the same demands.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from chimera.core.types import MAX_PRIORITY
from chimera.swarm.attempt import Attempt
from chimera.swarm.reputation import Belief

Demand = tuple[str, str, str]
"""Role, policy and skill; policy and skill may be empty."""


@dataclass(slots=True, eq=False)
class Cell:
    """A home of agents. `busy` of them have an attempt in hand. `apart`: it has a suspect, or is held for one."""

    name: str
    up: bool = False
    draining: bool = False
    apart: bool = False
    busy: int = 0
    agents: dict[str, Agent] = field(default_factory=dict)
    kinds: Counter[Kind] = field(default_factory=Counter)

    @property
    def serves(self) -> bool:
        """Whether its agents can be given work."""
        return self.up and not self.draining

    @property
    def idle(self) -> bool:
        """Whether it could have a suspect to itself."""
        return self.serves and not self.busy

    @property
    def open(self) -> bool:
        """Whether its agents can be given work that is no suspect."""
        return self.serves and not self.apart

    def enter(self, agent: Agent) -> None:
        """The agent lives here from now on."""
        agent.cell = self
        self.agents[agent.agent_id] = agent
        self.kinds[agent.kind] += 1

    def leave(self, agent: Agent) -> None:
        """It lives here no longer."""
        del self.agents[agent.agent_id]
        self.kinds[agent.kind] -= 1
        if not self.kinds[agent.kind]:
            del self.kinds[agent.kind]

    def close(self) -> None:
        """No agent here takes work for now."""
        for agent in self.agents.values():
            agent.close()

    def able(self, entry: Waiting) -> Iterator[Agent]:
        """Who lives here and may take this."""
        demand, replica = entry.lane.demand, entry.attempt.replica
        if any(kind.meets(demand) for kind in self.kinds):
            for agent in self.agents.values():
                if agent.kind.meets(demand) and not entry.task.excludes(agent.agent_id, replica):
                    yield agent


@dataclass(slots=True, eq=False)
class Agent:
    """One agent. `passed` tells, by line, up to which number all that waits in it is excluded from this agent."""

    agent_id: str
    label: str
    kind: Kind
    cell: Cell
    done: int = 0
    attempt: Attempt | None = None
    task: TaskRecord | None = None
    beliefs: dict[str, Belief] = field(default_factory=dict)
    passed: dict[Line, int] = field(default_factory=dict)

    def close(self) -> None:
        """It takes no work for now."""
        for lane in self.kind.lanes:
            lane.free.discard(self)


class TaskRecord:
    """Which replica of a task an agent has or had, who may have none any more, and which attempts of it wait."""

    __slots__ = ("barred", "in_hand", "replicas", "waiting")

    def __init__(self) -> None:
        self.replicas: dict[str, int] = {}
        self.barred: frozenset[str] = frozenset()
        self.waiting: dict[str, Waiting] = {}
        self.in_hand = 0

    def excludes(self, agent_id: str, replica: int) -> bool:
        """One agent, one vote: it failed or voted, or it has another replica."""
        return agent_id in self.barred or self.replicas.get(agent_id, replica) != replica

    def excluded(self, replica: int) -> set[str]:
        """All whom it excludes from this replica."""
        return {agent_id for agent_id, had in self.replicas.items() if had != replica} | self.barred

    def give(self, replica: int, agent_id: str) -> str | None:
        """The agent has the replica now. Returns who had it before, and has no part in the task any more."""
        before = None
        for other, had in self.replicas.items():
            if had == replica:
                before = other
        if before is not None:
            del self.replicas[before]
        self.replicas[agent_id] = replica
        return before


@dataclass(slots=True, eq=False)
class Waiting:
    """An attempt in a lane. `number` counts arrivals at the roster."""

    number: int
    attempt: Attempt
    task: TaskRecord
    lane: Lane


class Pool:
    """Agents from which one can be drawn at random, added and discarded in constant time."""

    __slots__ = ("_agents", "_where")

    def __init__(self) -> None:
        self._agents: list[Agent] = []
        self._where: dict[Agent, int] = {}

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents)

    def add(self, agent: Agent) -> None:
        if agent not in self._where:
            self._where[agent] = len(self._agents)
            self._agents.append(agent)

    def discard(self, agent: Agent) -> None:
        at = self._where.pop(agent, None)
        if at is not None:
            last = self._agents.pop()
            if last is not agent:
                self._agents[at] = last
                self._where[last] = at

    def draw(self, rng: random.Random) -> Agent:
        """Any of them, each as likely. Raises IndexError when there are none."""
        return self._agents[int(rng.random() * len(self._agents))]


_number = attrgetter("number")


class Line:
    """What waits at one priority of a lane, oldest first. Any of it can leave, from anywhere."""

    __slots__ = ("_entries", "_first", "_gone", "live")

    def __init__(self) -> None:
        self._entries: list[Waiting] = []
        self._first = 0
        self._gone: set[int] = set()
        self.live = 0

    def push(self, entry: Waiting) -> None:
        """Numbers must rise."""
        self._entries.append(entry)
        self.live += 1

    def remove(self, entry: Waiting) -> None:
        self._gone.add(entry.number)
        self.live -= 1
        while self._first < len(self._entries) and self._entries[self._first].number in self._gone:
            self._gone.remove(self._entries[self._first].number)
            self._first += 1
        if self._first + len(self._gone) > self.live + 16:  # rare enough to cost a constant time on average
            self._entries = [kept for kept in self._entries[self._first :] if kept.number not in self._gone]
            self._first = 0
            self._gone.clear()

    def after(self, number: int) -> Iterator[Waiting]:
        """What waits with a higher number."""
        start = bisect_right(self._entries, number, lo=self._first, key=_number) if number else self._first
        for at in range(start, len(self._entries)):
            if self._entries[at].number not in self._gone:
                yield self._entries[at]


@dataclass(slots=True, eq=False)
class Lane:
    """One demand. `able` agents meet it, busy ones too; `free` has those that can be given work now.

    What waits is in `lines` by priority, but for the suspects.
    """

    demand: Demand
    able: int = 0
    waiting: int = 0
    free: Pool = field(default_factory=Pool)
    lines: dict[int, Line] = field(default_factory=dict)
    suspects: dict[str, Waiting] = field(default_factory=dict)

    def push(self, entry: Waiting) -> None:
        """It waits here."""
        if entry.attempt.suspect:
            self.suspects[entry.attempt.id] = entry
        else:
            self.lines.setdefault(entry.attempt.priority, Line()).push(entry)
            self.waiting += 1

    def remove(self, entry: Waiting) -> None:
        """It waits no longer."""
        if entry.attempt.suspect:
            del self.suspects[entry.attempt.id]
        else:
            self.lines[entry.attempt.priority].remove(entry)
            self.waiting -= 1

    def entries(self) -> list[Waiting]:
        """All that waits here."""
        return [*(entry for line in self.lines.values() for entry in line.after(0)), *self.suspects.values()]


@dataclass(slots=True, eq=False)
class Kind:
    """Agents that can take the same work, and the schedule by which they serve what waits.

    Each priority gets a share of 2**priority while it has work: stride scheduling (Waldspurger 1995) by virtual start
    times (Goyal, Vin and Cheng 1996), in which a priority that had nothing to do gathers no credit.
    """

    role: str
    policy: str
    skills: frozenset[str]
    agents: dict[str, Agent] = field(default_factory=dict)
    lanes: list[Lane] = field(default_factory=list)
    clock: int = 0
    next_at: list[int] = field(default_factory=lambda: [0] * (MAX_PRIORITY + 1))

    def meets(self, demand: Demand) -> bool:
        """Whether these agents can take work of this demand."""
        role, policy, skill = demand
        return role == self.role and policy in ("", self.policy) and (not skill or skill in self.skills)

    def due(self, priority: int) -> tuple[int, int]:
        """Who comes first is the least: the virtual time of its next service, then the higher priority."""
        return max(self.next_at[priority], self.clock), -priority

    def serve(self, priority: int) -> None:
        """Charge the priority for a service."""
        self.clock = max(self.next_at[priority], self.clock)
        self.next_at[priority] = self.clock + (1 << MAX_PRIORITY - priority)


class Lanes:
    """All lanes and kinds of a roster, and all that waits in it."""

    def __init__(self) -> None:
        self.waiting: dict[str, Waiting] = {}
        self.suspected = 0
        """How many of those that wait are suspects."""
        self._roles: dict[str, dict[tuple[str, frozenset[str]], Kind]] = {}
        self._lanes: dict[Demand, Lane] = {}
        self._arrived = 0

    def suspects(self) -> list[Waiting]:
        """The suspects that wait, by priority and then in order."""
        found = [entry for lane in self._lanes.values() for entry in lane.suspects.values()]
        return sorted(found, key=lambda entry: (-entry.attempt.priority, entry.number))

    def why_none(self, attempt: Attempt) -> str:
        """Why no agent could ever take this."""
        kinds = self.kinds(attempt.role)
        if not kinds:
            return f"no agent has the role {attempt.role!r}; spawn one"
        if not any(kind.meets((attempt.role, attempt.policy, attempt.skill)) for kind in kinds):
            policy = f" of the policy {attempt.policy!r}" if attempt.policy else ""
            skill = f" with the skill {attempt.skill!r}" if attempt.skill else ""
            return f"no agent of role {attempt.role!r} is{policy}{skill}; spawn one"
        return f"every agent of role {attempt.role!r} that could take this has voted on it, failed it or is at it"

    def kinds(self, role: str) -> list[Kind]:
        """Those of a role; none when nobody has it."""
        return list(self._roles.get(role, {}).values())

    def join(self, role: str, policy: str, skills: frozenset[str]) -> Kind:
        """The kind of a new agent, which the caller enters into it."""
        kinds = self._roles.setdefault(role, {})
        kind = kinds.get((policy, skills))
        if kind is None:
            kind = kinds[policy, skills] = Kind(role, policy, skills)
            kind.lanes = [lane for lane in self._lanes.values() if kind.meets(lane.demand)]
        for lane in kind.lanes:
            lane.able += 1
        return kind

    def quit(self, agent: Agent) -> list[Lane]:
        """The agent is gone. Returns the lanes that it served; what waits in one without agents has to leave it."""
        kind = agent.kind
        del kind.agents[agent.agent_id]
        for lane in kind.lanes:
            lane.free.discard(agent)
            lane.able -= 1
            if not lane.able:
                del self._lanes[lane.demand]
        if not kind.agents:
            del self._roles[kind.role][kind.policy, kind.skills]
            if not self._roles[kind.role]:
                del self._roles[kind.role]
        return kind.lanes

    def lane(self, demand: Demand) -> Lane | None:
        """The lane of this demand, made when it is first asked for; None when no agent meets it."""
        lane = self._lanes.get(demand)
        if lane is None and (kinds := [kind for kind in self.kinds(demand[0]) if kind.meets(demand)]):
            lane = self._lanes[demand] = Lane(demand)
            for kind in kinds:
                kind.lanes.append(lane)
                lane.able += len(kind.agents)
                for agent in kind.agents.values():
                    if agent.attempt is None and agent.cell.open:
                        lane.free.add(agent)
        return lane

    def wait(self, attempt: Attempt, task: TaskRecord, lane: Lane) -> None:
        """The attempt waits behind those of its priority."""
        self._arrived += 1
        entry = Waiting(self._arrived, attempt, task, lane)
        lane.push(entry)
        self.waiting[attempt.id] = task.waiting[attempt.id] = entry
        self.suspected += attempt.suspect

    def leave(self, entry: Waiting) -> None:
        """It waits no longer."""
        entry.lane.remove(entry)
        del self.waiting[entry.attempt.id], entry.task.waiting[entry.attempt.id]
        self.suspected -= entry.attempt.suspect

    def next_for(self, agent: Agent) -> Waiting | None:
        """What this agent serves next, suspects apart: of the priority that is due, the oldest that it may take."""
        if not self.waiting:
            return None
        lines: dict[int, list[Line]] = {}
        for lane in agent.kind.lanes:
            if lane.waiting:
                for priority, line in lane.lines.items():
                    if line.live:
                        lines.setdefault(priority, []).append(line)
        for priority in sorted(lines, key=agent.kind.due):
            heads = [head for line in lines[priority] if (head := _first(agent, line))]
            if heads:
                agent.kind.serve(priority)
                return min(heads, key=_number)
        return None


def _first(agent: Agent, line: Line) -> Waiting | None:
    """The oldest that this agent may take. What is excluded from it stays so, and is looked at once."""
    passed = 0
    found = None
    for entry in line.after(agent.passed.get(line, 0)):
        if not entry.task.excludes(agent.agent_id, entry.attempt.replica):
            found = entry
            break
        passed = entry.number
    if passed:
        agent.passed[line] = passed
    return found
