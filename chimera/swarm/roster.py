"""Who does what next: the agents of one manager's shard, their cells, and the attempts that wait for them.

Pure: every method returns the assignments to send and the reports to pass up. An agent works on one attempt at a
time; who of the free ones is asked goes by reputation (`swarm.reputation`). What finds no free agent waits here within
`max_waiting`, by priority and then in order (`swarm.lanes`). What nobody could ever take is refused, also when it
becomes so while it waits. A suspect has an idle cell to itself, so that the one that kills its hosts is found and no
other is lost with it; where none is idle, one is held: it takes no more until it is. Then others have their turn there.

A step costs about what it assigns, not the number of agents or of waiting attempts. One that places suspects, drains,
moves or removes costs the agents and suspects concerned.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal, NamedTuple

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Appraisal, Attempt, Report
from chimera.swarm.lanes import Agent, Cell, Lane, Lanes, Pool, TaskRecord, Waiting
from chimera.swarm.reputation import TRIES, Belief, Standing, beliefs_of, choose, least_done, standing, summary

MAX_TASKS_REMEMBERED = 20_000
"""Ended tasks whose voters are remembered: more than end while a dispatch is on its way here."""


class Assignment(NamedTuple):
    """Send `attempt` to `agent_id`, which lives in `cell`."""

    cell: str
    agent_id: str
    attempt: Attempt


@dataclass(slots=True)
class Step:
    """What a manager has to do after a change."""

    assignments: list[Assignment] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


class Roster:
    """The agents of one shard. `now` is in seconds, from one clock, for reputations alone; it never runs backwards.

    `routing` by `least_loaded` asks, of two free agents drawn at random, the one that has done less.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        max_waiting: int = 100_000,
        routing: Literal["reputation", "least_loaded"] = "reputation",
    ) -> None:
        self._rng = rng
        self._max_waiting = max_waiting
        self._by_reputation = routing == "reputation"
        self._now = 0.0
        self._agents: dict[str, Agent] = {}
        self._cells: dict[str, Cell] = {}
        self._lanes = Lanes()
        self._tasks: OrderedDict[str, TaskRecord] = OrderedDict()
        self._busy: dict[str, Agent] = {}
        self._held: Cell | None = None
        self._left: list[Cell] = []

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def waiting(self) -> int:
        """Attempts that no agent has yet."""
        return len(self._lanes.waiting)

    @property
    def busy(self) -> int:
        """Attempts that an agent has."""
        return len(self._busy)

    @property
    def up(self) -> float:
        """The share of the agents whose cells take work; 1 when there are none."""
        serving = sum(len(cell.agents) for cell in self._cells.values() if cell.serves)
        return serving / len(self._agents) if self._agents else 1.0

    def add(
        self, agent_id: str, *, role: str, policy: str, cell: str, label: str = "", skills: Iterable[str] = ()
    ) -> Step:
        """A new agent. It may take waiting work at once. `policy` tells policies apart, `label` is for people.

        Raises ValueError when the agent is here already.
        """
        if agent_id in self._agents:
            raise ValueError(f"agent {agent_id!r} is here already: remove it first, or name the new one otherwise")
        kind = self._lanes.join(role, policy, frozenset(skills))
        agent = self._agents[agent_id] = Agent(agent_id, label or policy, kind, self._cell(cell))
        kind.agents[agent_id] = agent
        agent.cell.enter(agent)
        step = Step()
        self._fill(step, agent)
        self._place_suspects(step)
        return step

    def remove(self, agent_ids: Iterable[str]) -> Step:
        """These agents are gone for good: what they had in hand is lost, and what waited for them alone is refused."""
        step = Step()
        lanes: dict[Lane, None] = {}
        for agent_id in agent_ids:
            if agent := self._agents.pop(agent_id, None):
                if agent.attempt:
                    step.reports.append(_report(agent.attempt, FailureKind.LOST, f"{agent_id} was removed", agent))
                    self._end(agent)
                self._leave_cell(agent)
                lanes |= dict.fromkeys(self._lanes.quit(agent))
        for lane in lanes:
            self._refuse_stranded(step, lane.entries())
        self._place_suspects(step)
        return step

    def cell_up(self, cell: str) -> Step:
        """The cell hosts its agents (again), and takes work."""
        step = Step()
        home = self._cell(cell)
        if not home.serves:
            home.up, home.draining = True, False
            self._fill_cell(step, home)
        self._place_suspects(step)
        return step

    def cell_down(self, cell: str, why: str) -> Step:
        """The cell's process is gone: what it had in hand is lost and reported so."""
        step = Step()
        home = self._cell(cell)
        home.up = False
        alone = home.busy == 1
        for agent in home.agents.values():
            agent.close()
            if agent.attempt:
                step.reports.append(replace(_report(agent.attempt, FailureKind.LOST, why, agent), alone=alone))
                self._end(agent)
        self._drop_empty(home)
        self._place_suspects(step)
        return step

    def drain(self, cell: str) -> None:
        """No new work goes to this cell until `cell_up`. What it has in hand goes on."""
        if home := self._cells.get(cell):
            home.draining = True
            home.close()

    def move(self, agent_id: str, cell: str) -> Step:
        """An idle agent lives in `cell` from now on. Raises ValueError when it is unknown or busy."""
        agent = self._agents.get(agent_id)
        if agent is None or agent.attempt is not None:
            raise ValueError(f"agent {agent_id!r} is {'busy' if agent else 'unknown'}: only an idle agent can be moved")
        agent.close()
        self._leave_cell(agent)
        self._cell(cell).enter(agent)
        step = Step()
        self._fill(step, agent)
        self._place_suspects(step)
        return step

    def agents_in(self, cell: str) -> list[str]:
        """Ids of the agents that live there."""
        return list(self._cells[cell].agents) if cell in self._cells else []

    def idle_in(self, cell: str) -> list[str]:
        """Ids of those that have nothing in hand."""
        return [agent_id for agent_id in self.agents_in(cell) if self._agents[agent_id].attempt is None]

    def busy_in(self, cell: str) -> int:
        """How many have an attempt in hand."""
        return self._cells[cell].busy if cell in self._cells else 0

    def submit(self, attempts: Iterable[Attempt], now: float = 0.0) -> Step:
        """Assign what can be assigned, let the rest wait, refuse what no agent here could ever take or is too much.

        An attempt that waits or is in hand already is ignored: dispatches may come twice.
        """
        self._now = max(self._now, now)
        step = Step()
        for attempt in attempts:
            if attempt.id in self._busy or attempt.id in self._lanes.waiting:
                continue
            task = self._task(attempt)
            if attempt.barred:
                task.barred |= attempt.barred
            lane = self._lanes.lane((attempt.role, attempt.policy, attempt.skill))
            agent = self._pick(attempt, task, lane.free) if lane and lane.free and not attempt.suspect else None
            if agent is not None:
                self._assign(step, agent, attempt, task)
            elif lane is None or not self._somebody_could(attempt, task, lane):
                step.reports.append(_report(attempt, FailureKind.NO_AGENT, self._lanes.why_none(attempt)))
            elif len(self._lanes.waiting) >= self._max_waiting:
                why = f"{self._max_waiting} attempts are waiting already"
                step.reports.append(_report(attempt, FailureKind.OVERLOADED, why))
            else:
                self._lanes.wait(attempt, task, lane)
            if attempt.barred:
                self._refuse_stranded(step, task.waiting.values())
        self._place_suspects(step)
        return step

    def done(self, attempt_id: str, now: float = 0.0) -> Step:
        """The agent that had this attempt is free again."""
        self._now = max(self._now, now)
        step = Step()
        if agent := self._busy.get(attempt_id):
            agent.done += 1
            self._end(agent)
            self._fill(step, agent)
            self._place_suspects(step)
        return step

    def cancel(self, attempt_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Forget waiting attempts; yield `(cell, attempt_id)` of those in hand, which their cells must stop."""
        for attempt_id in attempt_ids:
            if agent := self._busy.get(attempt_id):
                yield agent.cell.name, attempt_id
            elif entry := self._lanes.waiting.get(attempt_id):
                self._lanes.leave(entry)

    def appraise(self, appraisals: Iterable[Appraisal], now: float) -> None:
        """Learn what agents' work was worth. Agents that are not here and skills that they lack are ignored."""
        self._now = max(self._now, now)
        for appraisal in appraisals:
            agent = self._agents.get(appraisal.agent)
            if agent and (not appraisal.skill or appraisal.skill in agent.kind.skills):
                agent.beliefs.setdefault(appraisal.skill, Belief(at=self._now)).appraise(appraisal.good, self._now)

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Role -> how many agents there are, how many of them are busy, and how many attempts wait for one."""
        agents = Counter(agent.kind.role for agent in self._agents.values())
        busy = Counter(agent.kind.role for agent in self._busy.values())
        waiting = Counter(entry.attempt.role for entry in self._lanes.waiting.values())
        return {role: (agents[role], busy[role], waiting[role]) for role in sorted(agents)}

    def reputations(self, limit: int) -> list[tuple[str, str, float, float, int]]:
        """`(agent_id, role, mean, trials, done)` over all skills, of the `limit` agents with the lowest means."""

        def row(agent: Agent) -> tuple[str, str, float, float, int]:
            mean, trials = summary(agent.beliefs.values(), self._now)
            return agent.agent_id, agent.kind.role, mean, trials, agent.done

        return heapq.nsmallest(limit, map(row, self._agents.values()), key=lambda row: (row[2], row[0]))

    def standing(self) -> dict[str, Standing]:
        """What is known of each agent that was ever appraised, as plain data for `restore`."""
        return {agent.agent_id: standing(agent.beliefs) for agent in self._agents.values() if agent.beliefs}

    def restore(self, stood: Mapping[str, Standing]) -> None:
        """Believe of these agents what `standing` said, once they are added; others are ignored."""
        for agent_id, skills in stood.items():
            if agent := self._agents.get(agent_id):
                agent.beliefs = beliefs_of(skills)

    def _cell(self, name: str) -> Cell:
        return self._cells.setdefault(name, Cell(name))

    def _leave_cell(self, agent: Agent) -> None:
        agent.cell.leave(agent)
        self._drop_empty(agent.cell)

    def _drop_empty(self, cell: Cell) -> None:
        if not cell.serves and not cell.agents:
            del self._cells[cell.name]

    def _task(self, attempt: Attempt) -> TaskRecord:
        key = attempt.task_key
        if (task := self._tasks.get(key)) is None:
            task = self._tasks[key] = TaskRecord()
            while len(self._tasks) > MAX_TASKS_REMEMBERED + len(self._lanes.waiting) + len(self._busy) + 1:
                oldest, record = self._tasks.popitem(last=False)
                if not record.waiting and not record.in_hand:
                    break
                self._tasks[oldest] = record
        return task

    def _pick(self, attempt: Attempt, task: TaskRecord, free: Pool) -> Agent | None:
        candidates = self._candidates(attempt, task, free)
        if self._by_reputation:
            return choose(candidates, attempt.skill, self._now, self._rng)
        return least_done(candidates)

    def _candidates(self, attempt: Attempt, task: TaskRecord, free: Pool) -> Iterator[Agent]:
        """Free agents that may take this, in random order: a few drawn, and if none of them may, all who may."""
        met: list[Agent] = []
        for _ in range(min(TRIES, 2 * len(free))):
            agent = free.draw(self._rng)
            if agent not in met and not task.excludes(agent.agent_id, attempt.replica):
                met.append(agent)
                yield agent
        if not met:
            able = [agent for agent in free if not task.excludes(agent.agent_id, attempt.replica)]
            yield from self._rng.sample(able, min(TRIES, len(able)))

    def _somebody_could(self, attempt: Attempt, task: TaskRecord, lane: Lane) -> bool:
        if lane.able > len(task.replicas) + len(task.barred):
            return True
        excluded = (self._agents.get(agent_id) for agent_id in task.excluded(attempt.replica))
        return lane.able > sum(agent is not None and agent.kind.meets(lane.demand) for agent in excluded)

    def _fill(self, step: Step, agent: Agent) -> None:
        """Give an idle agent what waits for it, if its cell takes work; else it is free for what comes."""
        if agent.attempt is not None or not agent.cell.open:
            return
        entry = self._lanes.next_for(agent)
        if entry is None:
            for lane in agent.kind.lanes:
                lane.free.add(agent)
            return
        self._lanes.leave(entry)
        self._assign(step, agent, entry.attempt, entry.task)

    def _fill_cell(self, step: Step, cell: Cell) -> None:
        for agent in cell.agents.values() if cell.open else ():
            self._fill(step, agent)

    def _place_suspects(self, step: Step) -> None:
        """Open cells that suspects have left; give idle ones to those that wait; where none is apart, hold one."""
        if not (self._lanes.suspected or self._held or self._left):
            return
        while self._left:
            self._fill_cell(step, self._left.pop())
        while any(self._place_suspect(step, cell) for cell in self._cells.values() if cell.idle):
            pass
        if (held := self._held) and not (held.serves and held.busy and self._lanes.suspected):
            self._held, held.apart = None, False
            self._fill_cell(step, held)
        serving = sorted((cell for cell in self._cells.values() if cell.serves), key=attrgetter("busy"))
        if self._lanes.suspected and not any(cell.apart for cell in serving):
            able = (cell for entry in self._lanes.suspects() for cell in serving if any(cell.able(entry)))
            if cell := next(able, None):
                self._held, cell.apart = cell, True
                cell.close()

    def _place_suspect(self, step: Step, cell: Cell) -> bool:
        """Give an idle cell the first suspect that it can take; False: there is none."""
        for entry in self._lanes.suspects():
            able = list(cell.able(entry))
            few = self._rng.sample(able, min(TRIES, len(able)))
            if agent := choose(few, entry.attempt.skill, self._now, self._rng):
                self._lanes.leave(entry)
                self._assign(step, agent, entry.attempt, entry.task)
                return True
        return False

    def _refuse_stranded(self, step: Step, waiting: Iterable[Waiting]) -> None:
        """Refuse those that nobody can take any more."""
        for entry in [entry for entry in waiting if not self._somebody_could(entry.attempt, entry.task, entry.lane)]:
            self._lanes.leave(entry)
            step.reports.append(_report(entry.attempt, FailureKind.NO_AGENT, self._lanes.why_none(entry.attempt)))

    def _assign(self, step: Step, agent: Agent, attempt: Attempt, task: TaskRecord) -> None:
        agent.close()
        agent.attempt, agent.task = attempt, task
        agent.cell.busy += 1
        if attempt.suspect:
            agent.cell.apart = True
            agent.cell.close()
            if self._held is agent.cell:
                self._held = None
        self._busy[attempt.id] = agent
        task.in_hand += 1
        before = task.give(attempt.replica, agent.agent_id)
        step.assignments.append(Assignment(agent.cell.name, agent.agent_id, attempt))
        if task.waiting:
            self._refuse_stranded(step, task.waiting.values())
            if before is not None and before in self._agents:  # it may take other replicas of the task now
                self._agents[before].passed.clear()
                self._fill(step, self._agents[before])

    def _end(self, agent: Agent) -> None:
        assert agent.attempt is not None and agent.task is not None
        del self._busy[agent.attempt.id]
        agent.task.in_hand -= 1
        agent.cell.busy -= 1
        if agent.attempt.suspect:
            agent.cell.apart = False
            self._left.append(agent.cell)
        agent.attempt = agent.task = None


def _report(attempt: Attempt, failure: FailureKind, detail: str, agent: Agent | None = None) -> Report:
    return Report(
        attempt.id,
        attempt.mission_id,
        agent=agent.agent_id if agent else "",
        policy=agent.label if agent else "",
        failure=failure,
        detail=detail,
    )
