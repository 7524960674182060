"""A mission driven by plain calls, for the tests of its brain: no Ray, no clock, no chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, FailureKind, Reply, Spend, Task, TaskResult
from chimera.swarm.attempt import NO_LIMIT, Appraisal, Attempt, Report, Work
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.held import HeldTask, Review
from chimera.swarm.instructions import (
    Appraise,
    Ask,
    Cancel,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Resumed,
    Reviewed,
    Started,
    Tick,
    WakeAt,
)
from chimera.swarm.running import RETRY_CAP_S


def node(name: str, *after: str, each: str | None = None, needs: Any = "agreed", **task: Any) -> TaskNode:
    return TaskNode(id=name, task=Task(goal=name, **task), after=after, each=each, needs=needs)


def encoded(value: Any, **reply: Any) -> bytes:
    return Reply(value=value, **reply).model_dump_json().encode()


@dataclass(frozen=True)
class Told:
    """What a brain was told, and whether just when it had asked for a Tick; its answer; what it left open and held."""

    happening: Happening
    now: float
    due: bool
    steps: list[Instruction]
    open: set[str]
    held: list[HeldTask]


class Mission:
    """A brain and what it has asked for so far. It is started at 0 s."""

    def __init__(
        self,
        *nodes: TaskNode,
        output: str | None = None,
        deadline_s: float = 60.0,
        max_nodes: int = 100,
        budget: Budget = NO_LIMIT,
        name: str = "m",
        wall_ahead_s: float = 0.0,
    ) -> None:
        graph = TaskGraph(nodes=nodes, output=output or nodes[-1].id)
        decomposer = TaskDecomposer(max_nodes=max_nodes)
        self.brain = MissionBrain(
            mission_id=name, graph=graph, deadline_s=deadline_s, decomposer=decomposer, budget=budget, swarm="s"
        )
        self.deadline_s = self.due_s = deadline_s
        self.wall_ahead_s = wall_ahead_s
        self.told: list[Told] = []
        self.open: dict[str, Attempt] = {}
        self.cancelled: dict[str, Attempt] = {}
        self.events: list[Event] = []
        self.appraisals: list[Appraisal] = []
        self.asked: list[HeldTask] = []
        self.result: TaskResult | None = None
        self.wake_at_s = 0.0
        self.now = 0.0
        self.tell(Started())

    def tell(self, happening: Happening, now: float | None = None) -> list[Instruction]:
        before, self.now = self.now, self.now if now is None else now
        if self.told and self.told[-1].held:
            self.due_s += self.now - before  # the deadline stood still
        due = self.now == self.brain.wake_at
        steps = self.brain.handle(happening, self.now, self.now + self.wall_ahead_s)
        self.told.append(Told(happening, self.now, due, steps, set(self.brain.open_attempts), self.brain.held))
        if isinstance(happening, Resumed):
            self.due_s = self.now + self.deadline_s
            for gone in self.open.keys() - set(self.brain.open_attempts):
                self.cancelled[gone] = self.open.pop(gone)
        for step in steps:
            match step:
                case Dispatch(attempts):
                    assert self.open.keys().isdisjoint(a.id for a in attempts), "an attempt is sent once"
                    self.open |= {attempt.id: attempt for attempt in attempts}
                case Cancel(ids):
                    assert self.open.keys() >= set(ids), "what was never sent is not cancelled"
                    self.cancelled |= {attempt_id: self.open.pop(attempt_id) for attempt_id in ids}
                case Record(event):
                    self.events.append(event)
                case Appraise(appraisals):
                    self.appraisals += appraisals
                case Ask(held):
                    assert self.events[-1].kind is EventKind.TASK_HELD, "nobody is asked what is not recorded"
                    self.asked.append(held)
                case WakeAt(at_s):
                    self.wake_at_s = at_s
                case Finish(result):
                    assert self.result is None, "a mission ends once"
                    self.result = result
        if self.result is None:
            assert set(self.brain.open_attempts) == self.open.keys() == {a.id for a in self.brain.outstanding(self.now)}
        return steps

    def reply(self, task_id: str, value: Any, replica: int = 0, now: float | None = None, **reply: Any) -> None:
        attempt = self.attempt(task_id, replica)
        said = Reply(value=value, **reply)
        spent = Spend(usd=said.cost_usd, tokens=said.tokens)
        self.report(attempt, now, agent=f"a{replica}", policy="p", reply=encoded(value, **reply), spent=spent)
        self.pause()

    def fail(self, task_id: str, kind: FailureKind, replica: int = 0, now: float | None = None, **report: Any) -> None:
        attempt = self.attempt(task_id, replica)
        self.report(attempt, now, failure=kind, **{"agent": f"a{replica}", "detail": "why", **report})
        self.pause()

    def review(self, task_id: str, verdict: Any, now: float | None = None, **said: Any) -> list[Instruction]:
        """A person answers."""
        return self.tell(Reviewed(task_id, Review(verdict=verdict, by="ada", **said)), now)

    def pause(self) -> None:
        """Let the time pass until a replica that failed is tried again, if one is."""
        if self.result is None and self.now < self.wake_at_s < self.now + RETRY_CAP_S:
            self.tell(Tick(), self.wake_at_s)

    def report(self, attempt: Attempt, now: float | None = None, **report: Any) -> list[Instruction]:
        return self.tell(Reported(Report(attempt.id, attempt.mission_id, **report)), now)

    def attempt(self, task_id: str, replica: int = 0) -> Attempt:
        """The replica's open attempt, which ends now."""
        [found] = [a for a in self.open.values() if (a.task_id, a.replica) == (task_id, replica)]
        del self.open[found.id]
        return found

    def work(self, task_id: str) -> Work:
        """What the open attempts of a task are about."""
        works = {attempt.work for attempt in self.open.values() if attempt.task_id == task_id}
        [packed] = works
        found = Work.unpack(packed)
        assert isinstance(found, Work)
        return found

    @property
    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]

    @property
    def ended(self) -> TaskResult:
        assert self.result is not None, "the mission goes on"
        return self.result
