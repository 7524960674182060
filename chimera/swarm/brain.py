"""The mission state machine: what happened goes in, what to do comes out.

No Ray, no clock, no chance: `handle(happening, now)` is a function of what happened so far, so every path is tested
with plain calls. Its shell (the coordinator actor) journals each `Record` of a step before it performs anything else
of it, and `chimera.swarm.replay` makes a brain again from what was journalled.

What changes a brain is recorded, or follows from what is recorded and the time: a happening that records nothing
changes nothing. The time is that of the records, so that a replay sees the very same: a mission's time line begins
with the wall clock's time and goes on as the monotonic clock does, whatever becomes of the wall clock meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from chimera.core.errors import GraphError, ReplyError
from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, Decision, FailureKind, Reply, Spend
from chimera.swarm import facts
from chimera.swarm.agenda import Agenda
from chimera.swarm.attempt import NO_LIMIT, Attempt, Report, Settled
from chimera.swarm.budget import Purse
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.instructions import (
    Appraise,
    Cancel,
    Cancelled,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Resumed,
    Started,
    Tick,
    WakeAt,
)
from chimera.swarm.known import known
from chimera.swarm.progress import Progress
from chimera.swarm.running import Fault, RunningTask, appraise_failure, appraise_voters, vote_of
from chimera.swarm.verdict import End, confidence_in, verdict

NO_MONEY = (
    "the mission's budget has not enough left for this attempt (what an attempt spent whose host died is not known,"
    " and counts as all it had): raise the budget, or lower the task's `spend`"
)


class MissionBrain:
    """One mission, from admission to its end. `budget` is for the whole of it, `deadline_s` counts from its start."""

    def __init__(
        self,
        *,
        mission_id: str,
        graph: TaskGraph,
        deadline_s: float,
        decomposer: TaskDecomposer,
        budget: Budget = NO_LIMIT,
        swarm: str = "",
    ) -> None:
        self.mission_id = mission_id
        self.ended = False
        self.wake_at = math.inf
        """When the last `WakeAt` asked for a Tick, in monotonic seconds."""
        self._swarm = swarm
        self._deadline_s = deadline_s
        self._budget = budget
        self._purse = Purse(budget)
        self._progress = Progress(graph, decomposer)
        self._agenda = Agenda()
        self._running: dict[str, RunningTask] = {}
        self._open: dict[str, RunningTask] = {}
        self._queue: deque[tuple[RunningTask, int]] = deque()
        self._ahead = sum(node.task.replicas * node.task.max_attempts for node in graph.nodes)
        self._unheard: list[str] = []
        self._steps: list[Instruction] = []
        self._sending: list[Attempt] = []
        self._seq = 0
        self._offset_s: float | None = None
        self._now_s = -math.inf
        self._wake_s = math.inf
        self._started_s = self._base_s = 0.0
        self._attempts = 0
        self._usd = self._seconds = 0.0
        self._tokens = self._calls = 0

    @property
    def open_attempts(self) -> list[str]:
        """The attempts that have not ended."""
        return list(self._open)

    @property
    def priority(self) -> int:
        return self._progress.graph.nodes[0].task.priority

    @property
    def limited(self) -> bool:
        """Whether the mission has a budget."""
        return self._purse.limited

    @property
    def reserved(self) -> Spend:
        """What attempts in progress may still spend of the mission's budget."""
        return self._purse.reserved

    @property
    def spent(self) -> Spend:
        """What attempts that ended have spent of the mission's budget."""
        return self._purse.spent

    def outstanding(self, now: float) -> tuple[Attempt, ...]:
        """Every attempt in progress, as it was dispatched but for the time that is left: to be sent once more."""
        now_s = now + (self._offset_s or 0.0)
        return tuple(
            self._attempt(task, attempt_id, now_s) for task in self._running.values() for attempt_id in task.open
        )

    def handle(self, happening: Happening, now: float, wall: float | None = None) -> list[Instruction]:
        """What to do now that `happening` has happened at `now` (monotonic seconds). `wall` counts the first time."""
        if self._offset_s is None:
            self.synchronize(now, now if wall is None else wall)
        return self.happened(happening, max(self._now_s, now + (self._offset_s or 0.0)))

    def synchronize(self, now: float, wall: float) -> None:
        """`now` (monotonic) is `wall` on the mission's time line, or its latest event's time if that is later."""
        self._offset_s = max(wall, self._now_s) - now
        self.wake_at = self._wake_s - self._offset_s

    def happened(self, happening: Happening, now_s: float) -> list[Instruction]:
        """As `handle`, at a second of the mission's own time line: `at_s` of what is recorded."""
        if self.ended:
            return []
        self._now_s = now_s
        self._queue.extend((self._running[name], replica) for name, replica in self._agenda.retries(now_s))
        match happening:
            case Reported(report):
                self._report(report)
            case Started():
                self._start()
            case Tick():
                self._tick()
            case Cancelled(why):
                self._record(EventKind.MISSION_CANCELLED, "", {"why": why})
                self._end(cancelled=why)
            case Resumed(swarm):
                self._resume(swarm)
        self._advance()
        steps, self._steps = self._steps, []
        return steps

    def _start(self) -> None:
        if self._seq:
            return
        self._started_s = self._base_s = self._now_s
        told = facts.admitted(self._progress.graph, self._deadline_s, self._budget if self.limited else None)
        self._record(EventKind.MISSION_ADMITTED, "", told)

    def _resume(self, swarm: str) -> None:
        self._swarm = swarm
        self._base_s = self._now_s
        self._agenda.begin_anew({name: self._due_s(task.node) for name, task in self._running.items()})
        self._record(EventKind.MISSION_RESUMED, "", {})
        if self._purse.limited:
            self._write_off()

    def _write_off(self) -> None:
        """What the other swarm's attempts spent is not known: it counts as all they had, and they are made anew."""
        for attempt_id in self._purse.attempts:
            self._purse.settle(attempt_id, None)
        for task in self._running.values():
            for attempt_id, replica in task.open.items():
                del self._open[attempt_id]
                self._wait(task, replica)
                self._queue.append((task, replica))
            task.open.clear()

    def _tick(self) -> None:
        self._wake_s = self.wake_at = math.inf
        if self._now_s >= self._base_s + self._deadline_s:
            self._end(expired=True)
            return
        for name in self._agenda.overdue(self._now_s):
            self._close(self._running[name], expired=True)

    def _report(self, report: Report) -> None:
        if self._purse.limited:
            spent = report.spent.model_copy(update={"seconds": report.elapsed_s})
            unknown = report.failure is FailureKind.LOST
            had_money = self._purse.settle(report.attempt_id, None if unknown else spent)
        else:
            had_money = False
        task = self._open.pop(report.attempt_id, None)
        if task is None:  # late: its task was decided without it
            if had_money:  # in the journal all the same: what it gave back may be spent by others
                task_key, replica_, _ = report.attempt_id.rsplit("/", 2)
                told = facts.failed(int(replica_), report, late=True)
                self._record(EventKind.ATTEMPT_FAILED, task_key.removeprefix(f"{self.mission_id}/"), told)
            return
        replica = task.open.pop(report.attempt_id)
        self._usd += report.spent.usd
        self._tokens += report.spent.tokens
        self._calls += report.spent.calls
        self._seconds += report.elapsed_s
        if report.failure is None:
            try:
                reply = Reply.model_validate_json(report.reply or b"")
                vote = vote_of(replica, report, reply)
                decision = task.vote.add(vote)
            except (ReplyError, ValueError) as error:
                report = replace(report, reply=None, failure=FailureKind.INVALID, detail=str(error))
            else:
                task.votes.append(vote)
                task.barred.add(report.agent)
                self._ahead -= task.ahead.pop(replica)
                self._record(EventKind.REPLY_ACCEPTED, task.node.id, facts.accepted(replica, report, reply))
                self._decided(task, decision)
                return
        self._failed(task, replica, report)

    def _failed(self, task: RunningTask, replica: int, report: Report) -> None:
        self._record(EventKind.ATTEMPT_FAILED, task.node.id, facts.failed(replica, report))
        if blamed := appraise_failure(task.node, report):
            self._steps.append(Appraise(blamed))
        if task.failed(replica, report):
            again_s = self._now_s + task.pause_s(self.mission_id, replica)
            if again_s < self._agenda.due_s(task.node.id):
                self._wait(task, replica)
                self._agenda.retry(again_s, task.node.id, replica)
                return
            report = replace(report, detail=f"{report.detail}; the deadline leaves no time for another try")
        if evidence := task.evidence(replica):
            self._record(EventKind.TASK_QUARANTINED, task.node.id, {"replica": replica, "evidence": [*evidence]})
        report = task.last_word(replica, report)
        self._ahead -= task.ahead.pop(replica)
        vote = vote_of(replica, report)
        task.votes.append(vote)
        self._decided(task, task.vote.add(vote))

    def _wait(self, task: RunningTask, replica: int) -> None:
        self._ahead += task.wait(replica)

    def _decided(self, task: RunningTask, decision: Decision | None) -> None:
        if decision is None:
            self._queue.extend((task, replica) for replica in task.to_ask())
            return
        self._settle(task, decision, saved=len(task.open) + len(task.waiting))
        if task.input_error and not any(vote.reply for vote in task.votes):
            self._end(fault=task.input_error)

    def _close(self, task: RunningTask, *, expired: bool) -> None:
        """Decide the task over the votes that are in."""
        missing = dict.fromkeys(task.waiting.difference(task.spare), "")
        missing |= {replica: attempt_id for attempt_id, replica in task.open.items()}
        if expired and missing:
            self._unheard.append(task.node.id)
            detail = f"not heard: the task's time of {min(task.node.task.deadline_s, self._deadline_s):g} s was up"
            for replica, attempt_id in missing.items():
                unheard = Report(attempt_id, self.mission_id, failure=FailureKind.TIMEOUT, detail=detail)
                task.votes.append(vote_of(replica, unheard))
        self._settle(task, task.vote.close())

    def _settle(self, task: RunningTask, decision: Decision, *, saved: int = 0) -> None:
        node = task.node
        del self._running[node.id]
        self._agenda.end(node.id)
        self._ahead -= sum(task.ahead.values())
        task.waiting.clear()
        votes = tuple(sorted(task.votes, key=lambda vote: (vote.policy, vote.voter)))
        supporters = task.vote.supporters
        settled = Settled(node.task.inputs, decision, votes, confidence_in(decision, votes, supporters), supporters)
        self._progress.settle(node.id, settled)
        after_s = round(self._now_s - task.started_at_s, 6)
        self._record(EventKind.TASK_DECIDED, node.id, facts.decided(decision, after_s, saved))
        if found := appraise_voters(node, settled, self._progress.settled):
            self._steps.append(Appraise(found))
        if task.open:
            self._call_off(task)

    def _call_off(self, task: RunningTask) -> None:
        """Nobody waits for the task's attempts any more. Those that this very step began are never sent."""
        unsent = {attempt.id for attempt in self._sending if attempt.id in task.open}
        self._sending = [attempt for attempt in self._sending if attempt.id not in unsent]
        self._attempts -= len(unsent)
        for attempt_id in task.open:
            del self._open[attempt_id]
        if sent := tuple(attempt_id for attempt_id in task.open if attempt_id not in unsent):
            self._steps.append(Cancel(sent))

    def _advance(self) -> None:
        """Start whatever may start; end the mission when nothing more can come."""
        while not self.ended:
            if self._progress.output is not None:
                self._end()
            elif node := self._progress.next():
                if node.each is None:
                    self._launch(node)
                else:
                    self._expand(node)
            elif not (self._queue and self._try_next()):
                break
        if not self.ended and not self._running:
            self._end()
        if self.ended:
            return
        if self._sending:
            self._steps.append(Dispatch(tuple(self._sending)))
            self._sending = []
        next_s = min(self._agenda.next_s, self._base_s + self._deadline_s)
        if next_s != self._wake_s:
            self._wake_s = next_s
            self.wake_at = next_s - (self._offset_s or 0.0)
            self._steps.append(WakeAt(self.wake_at))

    def _expand(self, fan: TaskNode) -> None:
        try:
            tasks = self._progress.expand(fan)
        except GraphError as error:
            self._end(fault=Fault(type(error).__name__, str(error), error.reason))
            return
        self._ahead += (sum(node.task.replicas for node in tasks) - fan.task.replicas) * fan.task.max_attempts
        self._record(EventKind.GRAPH_EXPANDED, fan.id, {"tasks": len(tasks)})

    def _launch(self, node: TaskNode) -> None:
        task = self._running[node.id] = RunningTask.of(node, self._progress.upstream(node), self._now_s)
        self._agenda.begin(node.id, self._due_s(node))
        self._record(EventKind.TASK_STARTED, node.id, {"role": node.task.role, "replicas": node.task.replicas})
        self._queue.extend((task, replica) for replica in task.to_ask())

    def _try_next(self) -> bool:
        """Send out the replica that has waited longest, or fail it if no money can come; False: it has to wait on."""
        task, replica = self._queue[0]
        attempt_id = task.next_id(self.mission_id, replica)
        funded = True
        if replica in task.waiting and self._purse.limited:
            ask = self._purse.share(self._ahead, task.node.task.spend)
            funded = self._purse.reserve(attempt_id, ask)
            if not funded and self._purse.could(ask):
                return False
        self._queue.popleft()
        if replica in task.waiting:  # or else its task has been decided
            task.waiting.discard(replica)
            if funded:
                self._begin(task, replica, attempt_id)
            else:
                broke = Report("", self.mission_id, failure=FailureKind.NO_BUDGET, detail=NO_MONEY)
                self._failed(task, replica, broke)
        return True

    def _begin(self, task: RunningTask, replica: int, attempt_id: str) -> None:
        task.begin(attempt_id, replica)
        self._ahead -= 1
        self._open[attempt_id] = task
        self._attempts += 1
        self._sending.append(self._attempt(task, attempt_id, self._now_s))
        if task.tries[replica] > 1 or self._now_s > task.started_at_s:
            self._record(EventKind.ATTEMPT_STARTED, task.node.id, {"replica": replica, "try": task.tries[replica]})

    def _attempt(self, task: RunningTask, attempt_id: str, now_s: float) -> Attempt:
        spend = self._purse.grant(attempt_id) if self._purse.limited else task.node.task.spend or NO_LIMIT
        return task.attempt(self.mission_id, attempt_id, self._due_s(task.node) - now_s, spend)

    def _end(self, *, fault: Fault | None = None, expired: bool = False, cancelled: str | None = None) -> None:
        for task in list(self._running.values()):
            self._close(task, expired=expired)
        self.ended = True
        result = verdict(
            self.mission_id,
            self._progress.output,
            self._progress.settled,
            End(fault, cancelled, self._deadline_s if expired else None, self._unheard),
            elapsed_s=round(self._now_s - self._started_s, 6),
            spent=known(Spend, usd=self._usd, tokens=self._tokens, calls=self._calls, seconds=self._seconds),
            attempts=self._attempts,
        )
        self._record(EventKind.MISSION_ENDED, "", facts.ended(result))
        self._steps.append(Finish(result))

    def _due_s(self, node: TaskNode) -> float:
        return self._base_s + min(node.task.deadline_s, self._deadline_s)

    def _record(self, kind: EventKind, task_id: str, data: facts.Data) -> None:
        self._seq += 1
        event = known(
            Event,
            mission_id=self.mission_id,
            seq=self._seq,
            kind=kind,
            at_s=self._now_s,
            task_id=task_id,
            swarm=self._swarm,
            data=data,
        )
        self._steps.append(Record(event))
