"""The mission state machine: what happened goes in, what to do comes out.

No Ray, no clock, no chance: `handle(event, now)` is a function of the events so far, so every path is tested with
plain calls. Its shell (the coordinator actor) journals each `Record` before it performs the instructions after it.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from chimera.core.errors import GraphError, ReplyError
from chimera.core.events import Event, EventKind
from chimera.core.types import Consensus, Decision, FailureKind, MissionState, Outcome, TaskResult, Vote
from chimera.swarm.attempt import Attempt, Report, Settled
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.instructions import (
    Cancel,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Started,
    Tick,
    WakeAt,
)

MAX_LOST = 3
"""How often one replica may lose its host before it counts as failed: a task that kills hosts must not go round."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a mission failed: the name of an error class, its message, and for a GraphError its reason."""

    kind: str
    message: str
    reason: str = ""

    def as_dict(self) -> dict[Literal["kind", "message", "reason"], str]:
        return {"kind": self.kind, "message": self.message, "reason": self.reason}


@dataclass(slots=True)
class _Running:
    """A task in progress."""

    node: TaskNode
    vote: ConsensusEngine
    open: dict[str, int] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    cause: dict[int, Report] = field(default_factory=dict)
    input_error: Fault | None = None
    barred: set[str] = field(default_factory=set)
    votes: list[Vote] = field(default_factory=list)


class MissionBrain:
    """One mission, from admission to its end."""

    def __init__(self, *, mission_id: str, graph: TaskGraph, deadline_s: float, decomposer: TaskDecomposer) -> None:
        self.mission_id = mission_id
        self._graph = graph
        self._deadline_s = deadline_s
        self._decomposer = decomposer
        self._running: dict[str, _Running] = {}
        self._settled: dict[str, Settled] = {}
        self._unmet = {node.id: len(node.after) for node in graph.nodes}
        self._ready = deque(node.id for node in graph.nodes if not node.after)
        self._fanned_over: dict[str, str] = {}
        self._dues: list[tuple[float, str]] = []
        self._wake_at = math.inf
        self._unheard: list[str] = []
        self._task_of: dict[str, str] = {}
        self._seq = 0
        self._started_at = 0.0
        self._wall_offset = 0.0
        self._attempts = 0
        self._cost_usd = 0.0
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def open_attempts(self) -> list[str]:
        """The attempts that have not ended."""
        return list(self._task_of)

    def handle(self, happening: Happening, now: float, wall: float | None = None) -> list[Instruction]:
        """What to do now that `happening` has happened at `now` (monotonic seconds; `wall` is for the record)."""
        if self._ended:
            return []
        self._wall_offset = (wall if wall is not None else now) - now
        match happening:
            case Started():
                steps = self._start(now)
            case Reported(report):
                steps = self._report(report, now)
            case Tick():
                steps = self._tick(now)
        return list(steps)

    def _start(self, now: float) -> Iterator[Instruction]:
        self._started_at = now
        graph = self._graph.model_dump(mode="json")
        yield self._record(now, EventKind.MISSION_ADMITTED, graph=graph, deadline_s=self._deadline_s)
        yield from self._advance(now)

    def _tick(self, now: float) -> Iterator[Instruction]:
        self._wake_at = math.inf
        if now >= self._started_at + self._deadline_s:
            yield from self._end(now, expired=True)
            return
        for task in [t for t in self._running.values() if now >= self._due(t.node)]:
            yield from self._settle(task, task.vote.close(), now, expired=True)
        yield from self._advance(now)

    def _report(self, report: Report, now: float) -> Iterator[Instruction]:
        task = self._running.get(self._task_of.pop(report.attempt_id, ""))
        replica = task.open.pop(report.attempt_id, None) if task else None
        if task is None or replica is None:
            return  # late: its task was decided without it
        self._cost_usd += report.cost_usd
        if report.failure is None and report.reply is not None:
            vote = self._vote(replica, report)
            try:
                decision = task.vote.add(vote)
            except ReplyError as error:
                report = replace(report, reply=None, failure=FailureKind.INVALID, detail=str(error), cost_usd=0.0)
            else:
                task.votes.append(vote)
                task.barred.add(report.agent)
                yield self._record(now, EventKind.REPLY_ACCEPTED, task, **_facts(vote))
                yield from self._decided(task, decision, now)
                return
        yield from self._failed(task, replica, report, now)

    def _failed(self, task: _Running, replica: int, report: Report, now: float) -> Iterator[Instruction]:
        kind = report.failure or FailureKind.INVALID
        yield self._record(
            now, EventKind.ATTEMPT_FAILED, task, agent=report.agent, replica=replica, failure=kind, detail=report.detail
        )
        if report.input_error:
            task.input_error = Fault(report.input_error, report.detail)
        if kind is FailureKind.LOST:
            task.lost[replica] = task.lost.get(replica, 0) + 1
            again = task.lost[replica] < MAX_LOST
        else:
            if report.agent:
                task.barred.add(report.agent)
            tries = task.tries[replica] - task.lost.get(replica, 0)
            again = kind is not FailureKind.NO_AGENT and tries < task.node.task.max_attempts
        if again and not report.input_error and now < self._due(task.node):
            task.cause[replica] = report
            yield from self._dispatch(task, [replica], now)
            return
        if kind is FailureKind.NO_AGENT and (cause := task.cause.get(replica)):
            # The vote tells what went wrong, and not only that nobody was left to try again.
            report = replace(cause, detail=f"{cause.detail}; {report.detail}")
        vote = self._vote(replica, report)
        task.votes.append(vote)
        yield from self._decided(task, task.vote.add(vote), now)

    def _decided(self, task: _Running, decision: Decision | None, now: float) -> Iterator[Instruction]:
        if decision is None:
            return
        yield from self._settle(task, decision, now)
        if task.input_error and not any(vote.reply for vote in task.votes):
            yield from self._end(now, error=task.input_error)
        else:
            yield from self._advance(now)

    def _settle(
        self, task: _Running, decision: Decision, now: float, *, expired: bool = False
    ) -> Iterator[Instruction]:
        node = task.node
        del self._running[node.id]
        for attempt_id, replica in task.open.items():
            self._task_of.pop(attempt_id, None)
            if expired:
                detail = f"not heard: the task's time of {min(node.task.deadline_s, self._deadline_s):g} s was up"
                unheard = Report(attempt_id, self.mission_id, failure=FailureKind.TIMEOUT, detail=detail)
                task.votes.append(self._vote(replica, unheard))
        if expired and task.open:
            self._unheard.append(node.id)
        votes = tuple(sorted(task.votes, key=lambda vote: (vote.policy, vote.voter)))
        supporters = _supporters(task.vote, decision)
        confidence = _confidence(decision, votes, supporters)
        self._settled[node.id] = Settled(node.task.inputs, decision, votes, confidence, supporters)
        for name in self._graph.dependents(node.id):
            if decision.agreed or self._graph.node(name).needs == "settled":
                self._meet(name)
        yield self._record(now, EventKind.TASK_DECIDED, node.id, **decision.model_dump(mode="json"))
        if task.open:
            yield Cancel(tuple(task.open))

    def _meet(self, name: str) -> None:
        self._unmet[name] -= 1
        if self._unmet[name] == 0:
            self._ready.append(name)

    def _advance(self, now: float) -> Iterator[Instruction]:
        """Start every task whose dependencies are there; end the mission when nothing more can come."""
        while self._ready and not self._ended:
            node = self._graph.node(self._ready.popleft())
            if node.each is None:
                yield from self._launch(node, now)
            elif self._settled[node.each].decision.agreed:
                yield from self._expand(node, now)
        if self._ended:
            return
        if self._graph.output in self._settled or not self._running:
            yield from self._end(now)
            return
        while self._dues and self._dues[0][1] not in self._running:
            heapq.heappop(self._dues)
        next_s = min(self._dues[0][0] if self._dues else math.inf, self._started_at + self._deadline_s)
        if next_s != self._wake_at:
            self._wake_at = next_s
            yield WakeAt(next_s)

    def _expand(self, node: TaskNode, now: float) -> Iterator[Instruction]:
        items = self._settled[str(node.each)].decision.value
        followers = self._graph.dependents(node.id)
        try:
            self._graph = self._decomposer.expand(self._graph, node.id, items)
        except GraphError as error:
            yield from self._end(now, error=Fault(type(error).__name__, str(error), error.reason))
            return
        for new in self._graph.nodes:
            if new.id not in self._unmet:
                self._fanned_over[new.id] = str(node.each)
                self._unmet[new.id] = 0
                self._ready.append(new.id)
        for name in dict.fromkeys(followers):
            waited_for = [(d, self._settled.get(d)) for d in self._graph.node(name).after]
            needs_agreed = self._graph.node(name).needs == "agreed"
            self._unmet[name] = sum(s is None or (needs_agreed and not s.decision.agreed) for _, s in waited_for)
            if self._unmet[name] == 0:
                self._ready.append(name)
        count = len(items) if isinstance(items, list) else 0
        yield self._record(now, EventKind.GRAPH_EXPANDED, node.id, tasks=count)

    def _launch(self, node: TaskNode, now: float) -> Iterator[Instruction]:
        spec = node.task
        vote = ConsensusEngine(
            method=spec.consensus,
            electorate=spec.replicas,
            threshold=spec.threshold,
            equality=spec.equality,
            early_stop=spec.early_stop,
        )
        task = self._running[node.id] = _Running(node, vote)
        heapq.heappush(self._dues, (self._due(node), node.id))
        yield self._record(now, EventKind.TASK_STARTED, task, role=spec.role, replicas=spec.replicas)
        yield from self._dispatch(task, list(range(spec.replicas)), now)

    def _dispatch(self, task: _Running, replicas: list[int], now: float) -> Iterator[Instruction]:
        spec = task.node.task
        left_s = max(self._due(task.node) - now, 0.001)
        timeout_s = min(spec.attempt_timeout_s or spec.deadline_s / 4, left_s)
        fanned_over = self._fanned_over.get(task.node.id)  # it has its item, and need not carry all the others'
        upstream = {n: self._settled[n] for n in task.node.after if n in self._settled and n != fanned_over}
        attempts = []
        for replica in replicas:
            task.tries[replica] = number = task.tries.get(replica, 0) + 1
            attempt_id = f"{self.mission_id}/{task.node.id}/{replica}/{number}"
            task.open[attempt_id] = replica
            self._task_of[attempt_id] = task.node.id
            attempts.append(
                Attempt(
                    attempt_id, self.mission_id, task.node.id, replica, number, spec, timeout_s, upstream,
                    frozenset(task.barred),
                )
            )  # fmt: skip
        self._attempts += len(attempts)
        if task.tries[replicas[0]] > 1:
            yield self._record(now, EventKind.ATTEMPT_STARTED, task, replicas=list(replicas), again=True)
        yield Dispatch(tuple(attempts))

    def _end(self, now: float, *, error: Fault | None = None, expired: bool = False) -> Iterator[Instruction]:
        for task in list(self._running.values()):
            yield from self._settle(task, task.vote.close(), now, expired=expired)
        self._ended = True
        result = self._result(now, error, expired=expired)
        summary = result.model_dump(mode="json", include={"state", "explanation", "error", "elapsed_s", "attempts"})
        yield self._record(now, EventKind.MISSION_ENDED, **summary)
        yield Finish(result)

    def _result(self, now: float, error: Fault | None, *, expired: bool) -> TaskResult:
        output = self._settled.get(self._graph.output)
        decision = output.decision if output else None
        if error:
            state, why = MissionState.FAILED, error.message
        elif expired:
            state, why = MissionState.EXPIRED, f"the deadline of {self._deadline_s:g} s passed; {self._why_not()}"
        elif self._unheard:
            names = ", ".join(self._unheard[:5]) + (f" and {len(self._unheard) - 5} more" * (len(self._unheard) > 5))
            state, why = MissionState.EXPIRED, f"time was up before all had replied to {names}; {self._why_not()}"
        elif output and (partial := _undecided(output)):
            state, why = MissionState.UNDECIDED, partial
        elif decision and decision.agreed:
            state, why = MissionState.ANSWERED, decision.explanation
        else:
            state, why = MissionState.UNDECIDED, self._why_not()
        return TaskResult(
            mission_id=self.mission_id,
            state=state,
            value=decision.value if decision else None,
            confidence=output.confidence if output else 0.0,
            decision=decision,
            replies=output.votes if output else (),
            supporters=output.supporters if output else (),
            explanation=why,
            error=error.as_dict() if error else None,
            elapsed_s=now - self._started_at,
            cost_usd=self._cost_usd,
            attempts=self._attempts,
        )

    def _why_not(self) -> str:
        """The first tasks that were not agreed, and what their voters said."""
        reasons = []
        for name, settled in self._settled.items():
            if settled.decision.outcome is not Outcome.AGREED:
                failures = sorted({f"{v.failure}: {v.detail}" for v in settled.votes if v.failure})[:3]
                reasons.append(f"{name}: {settled.decision.explanation}" + "".join(f"; {f}" for f in failures))
        return " | ".join(reasons[:5]) or "every task was decided"

    def _due(self, node: TaskNode) -> float:
        return self._started_at + min(node.task.deadline_s, self._deadline_s)

    def _vote(self, replica: int, report: Report) -> Vote:
        return Vote(
            voter=f"replica-{replica}",
            agent=report.agent,
            policy=report.policy,
            reply=report.reply if report.failure is None else None,
            failure=report.failure,
            detail=report.detail,
            elapsed_s=report.elapsed_s,
            cost_usd=report.cost_usd,
        )

    def _record(self, now: float, kind: EventKind, task: _Running | str = "", **data: JsonValue) -> Record:
        self._seq += 1
        task_id = task.node.id if isinstance(task, _Running) else task
        at_s = now + self._wall_offset
        return Record(
            Event(mission_id=self.mission_id, seq=self._seq, kind=kind, at_s=at_s, task_id=task_id, data=dict(data))
        )


def _undecided(output: Settled) -> str:
    """Why the output's value is only a partial answer, in the words of the first supporter that says so."""
    told = (v.reply.undecided for v in output.votes if v.reply and v.voter in output.supporters)
    return next((why for why in told if why), "")


def _facts(vote: Vote) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = vote.model_dump(mode="json", exclude={"failure", "detail"})
    return facts


def _supporters(vote: ConsensusEngine, decision: Decision) -> tuple[str, ...]:
    """The voters whose reply is the decision's, or for `weighted` names it."""
    if not decision.agreed:
        return ()
    return next((candidate.voters for candidate in vote.candidates if candidate.value == decision.value), ())


def _confidence(decision: Decision, votes: tuple[Vote, ...], supporters: tuple[str, ...]) -> float:
    """How sure the swarm is of the decision's value: the mean over the voters that were heard, failures among them."""
    if not decision.agreed or not votes:
        return 0.0
    if decision.method is Consensus.WEIGHTED:
        return round(min(1.0, decision.support * decision.electorate / len(votes)), 6)
    return round(sum(v.reply.confidence for v in votes if v.reply and v.voter in supporters) / len(votes), 6)
