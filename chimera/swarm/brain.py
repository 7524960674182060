"""The mission state machine: what happened goes in, what to do comes out.

No Ray, no clock, no chance: `handle(event, now)` is a function of the events so far, so every path is tested with
plain calls. Its shell (the coordinator actor) journals each `Record` before it performs the instructions after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from chimera.core.errors import GraphError, ReplyError
from chimera.core.events import Event, EventKind
from chimera.core.types import Consensus, Decision, FailureKind, MissionState, Outcome, TaskResult, Vote
from chimera.swarm.attempt import Attempt, Report, Settled
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode

MAX_LOST = 3
"""How often one replica may lose its host before it counts as failed: a task that kills hosts must not go round."""


@dataclass(frozen=True, slots=True)
class Started:
    """The mission was admitted."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An attempt ended."""

    report: Report


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. Sent at the moment that the last `WakeAt` named, or later."""


Happening = Started | Reported | Tick


@dataclass(frozen=True, slots=True)
class Record:
    """Append this event to the journal before performing what follows."""

    event: Event


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these attempts to agents."""

    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop these attempts: nobody waits for them any more."""

    attempt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a Tick when the clock (the one of `now`) reaches `at_s`."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The mission has ended with this result."""

    result: TaskResult


Instruction = Record | Dispatch | Cancel | WakeAt | Finish


@dataclass(slots=True)
class _Running:
    """A task in progress."""

    node: TaskNode
    vote: ConsensusEngine
    open: dict[str, int] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    cause: dict[int, Report] = field(default_factory=dict)
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
        self._waiting = {node.id for node in graph.nodes}
        self._task_of: dict[str, str] = {}
        self._seq = 0
        self._started_at = 0.0
        self._wall_offset = 0.0
        self._attempts = 0
        self._cost_usd = 0.0
        self._expired = False
        self._ended = False

    @property
    def ended(self) -> bool:
        return self._ended

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
        for task in [t for t in self._running.values() if now >= self._due(t.node)]:
            self._expired = True
            yield from self._settle(task, task.vote.close(), now)
        if now >= self._started_at + self._deadline_s:
            self._expired = True
            yield from self._end(now)
        else:
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
            yield from self._end(now, error=(report.input_error, report.detail))
            return
        if kind is FailureKind.LOST:
            task.lost[replica] = task.lost.get(replica, 0) + 1
            again = task.lost[replica] < MAX_LOST
        else:
            if report.agent:
                task.barred.add(report.agent)
            tries = task.tries[replica] - task.lost.get(replica, 0)
            again = kind is not FailureKind.NO_AGENT and tries < task.node.task.max_attempts
        if again and now < self._due(task.node):
            task.cause[replica] = report
            yield from self._dispatch(task, [replica], now)
            return
        if kind is FailureKind.NO_AGENT and (cause := task.cause.get(replica)):
            report = replace(
                cause, detail=f"{cause.detail}; {report.detail}"
            )  # what went wrong, not that it was the last
        vote = self._vote(replica, report)
        task.votes.append(vote)
        yield from self._decided(task, task.vote.add(vote), now)

    def _decided(self, task: _Running, decision: Decision | None, now: float) -> Iterator[Instruction]:
        if decision is not None:
            yield from self._settle(task, decision, now)
            yield from self._advance(now)

    def _settle(self, task: _Running, decision: Decision, now: float) -> Iterator[Instruction]:
        node = task.node
        del self._running[node.id]
        votes = tuple(sorted(task.votes, key=lambda vote: (vote.policy, vote.voter)))
        self._settled[node.id] = Settled(node.task.inputs, decision, votes, _confidence(task.vote, decision, votes))
        for attempt_id in task.open:
            self._task_of.pop(attempt_id, None)
        yield self._record(now, EventKind.TASK_DECIDED, node.id, **decision.model_dump(mode="json"))
        if task.open:
            yield Cancel(tuple(task.open))

    def _advance(self, now: float) -> Iterator[Instruction]:
        """Start every task whose dependencies are there; end the mission when nothing more can come."""
        while not self._ended and (ready := [n for n in self._graph.nodes if n.id in self._waiting and self._ready(n)]):
            for node in ready:
                self._waiting.discard(node.id)
                if node.each:
                    yield from self._expand(node, now)
                    break
                yield from self._launch(node, now)
        if self._ended:
            return
        if self._graph.output in self._settled or not self._running:
            yield from self._end(now)
        else:
            dues = [self._due(task.node) for task in self._running.values()]
            yield WakeAt(min([*dues, self._started_at + self._deadline_s]))

    def _ready(self, node: TaskNode) -> bool:
        done = [self._settled.get(name) for name in node.after]
        if node.each and (source := self._settled.get(node.each)) and not source.decision.agreed:
            return False
        return all(s is not None and (node.needs == "settled" or s.decision.agreed) for s in done)

    def _expand(self, node: TaskNode, now: float) -> Iterator[Instruction]:
        items = self._settled[str(node.each)].decision.value
        try:
            self._graph = self._decomposer.expand(self._graph, node.id, items)
        except GraphError as error:
            yield from self._end(now, error=(type(error).__name__, str(error)))
            return
        known = self._running.keys() | self._settled.keys()
        self._waiting = {n.id for n in self._graph.nodes} - known
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
        yield self._record(now, EventKind.TASK_STARTED, task, role=spec.role, replicas=spec.replicas)
        yield from self._dispatch(task, list(range(spec.replicas)), now)

    def _dispatch(self, task: _Running, replicas: list[int], now: float) -> Iterator[Instruction]:
        spec = task.node.task
        left_s = max(self._due(task.node) - now, 0.001)
        timeout_s = min(spec.attempt_timeout_s or spec.deadline_s / 4, left_s)
        upstream = {name: self._settled[name] for name in task.node.after if name in self._settled}
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

    def _end(self, now: float, error: tuple[str, str] | None = None) -> Iterator[Instruction]:
        for task in list(self._running.values()):
            yield from self._settle(task, task.vote.close(), now)
        self._ended = True
        result = self._result(now, error)
        summary = result.model_dump(mode="json", include={"state", "explanation", "error", "elapsed_s", "attempts"})
        yield self._record(now, EventKind.MISSION_ENDED, **summary)
        yield Finish(result)

    def _result(self, now: float, error: tuple[str, str] | None) -> TaskResult:
        output = self._settled.get(self._graph.output)
        decision = output.decision if output else None
        votes = output.votes if output else ()
        if error:
            state, why = MissionState.FAILED, error[1]
        elif self._expired:
            state, why = MissionState.EXPIRED, f"the deadline of {self._deadline_s:g} s passed; {self._why_not()}"
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
            replies=votes,
            explanation=why,
            error={"kind": error[0], "message": error[1]} if error else None,
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


def _facts(vote: Vote) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = vote.model_dump(mode="json", exclude={"failure", "detail"})
    return facts


def _confidence(vote: ConsensusEngine, decision: Decision, votes: tuple[Vote, ...]) -> float:
    """How sure the swarm is of the decision's value: the mean over the voters that were heard, failures among them."""
    if not decision.agreed or not votes:
        return 0.0
    if decision.method is Consensus.WEIGHTED:
        return round(min(1.0, decision.support * decision.electorate / len(votes)), 6)
    winners = next(candidate.voters for candidate in vote.candidates if candidate.value == decision.value)
    return round(sum(v.reply.confidence for v in votes if v.reply and v.voter in winners) / len(votes), 6)
