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
from dataclasses import replace

from chimera.core.errors import GraphError, ReplyError
from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, Decision, FailureKind, Reply, Spend
from chimera.swarm import facts
from chimera.swarm.agenda import Agenda
from chimera.swarm.attempt import NO_LIMIT, Appraisal, Attempt, Report, Settled
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.held import HeldTask, Holding, Holds, Review, appraise_reviewed, to_review, told, withheld
from chimera.swarm.instructions import (
    Appraise,
    Ask,
    Cancel,
    Cancelled,
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
from chimera.swarm.known import known
from chimera.swarm.outgoing import NO_MONEY, Outgoing
from chimera.swarm.progress import Progress
from chimera.swarm.running import Fault, RunningTask, appraise_failure, appraise_voters, vote_of
from chimera.swarm.timeline import TimeLine
from chimera.swarm.verdict import End, confidence_in, verdict


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
        self._swarm = swarm
        self._time = TimeLine(deadline_s)
        self._budget = budget
        self._progress = Progress(graph, decomposer)
        self._agenda = Agenda()
        self.holds = Holds()
        self._running: dict[str, RunningTask] = {}
        ahead = sum(node.task.replicas * node.task.max_attempts for node in graph.nodes)
        self._outgoing = Outgoing(mission_id, budget, ahead)
        self._unheard: list[str] = []
        self._steps: list[Instruction] = []
        self.seq = 0

    @property
    def wake_at(self) -> float:
        """When the last `WakeAt` asked for a Tick, in monotonic seconds."""
        return self._time.wake_at

    @property
    def held(self) -> list[HeldTask]:
        """The tasks that wait for a person."""
        return [holding.shown(self.mission_id) for holding in self.holds]

    @property
    def waits(self) -> bool:
        """Whether all that goes on is that a person is waited for."""
        return bool(self.holds) and not self._running

    @property
    def open_attempts(self) -> list[str]:
        """The attempts that have not ended."""
        return list(self._outgoing.open)

    @property
    def priority(self) -> int:
        return self._progress.graph.nodes[0].task.priority

    @property
    def limited(self) -> bool:
        """Whether the mission has a budget."""
        return self._outgoing.purse.limited

    @property
    def reserved(self) -> Spend:
        """What attempts in progress may still spend of the mission's budget."""
        return self._outgoing.purse.reserved

    @property
    def spent(self) -> Spend:
        """What attempts that ended have spent of the mission's budget."""
        return self._outgoing.purse.spent

    def outstanding(self, now: float) -> tuple[Attempt, ...]:
        """Every attempt in progress, as it was dispatched but for the time that is left: to be sent once more."""
        now_s = self._time.at(now)
        return tuple(
            self._outgoing.attempt(task, attempt_id, self._left_s(task, now_s))
            for task in self._running.values()
            for attempt_id in task.open
        )

    def handle(self, happening: Happening, now: float, wall: float | None = None) -> list[Instruction]:
        """What to do now that `happening` has happened at `now` (monotonic seconds). `wall` counts the first time."""
        if not self._time.synchronized:
            self.synchronize(now, now if wall is None else wall)
        return self.happened(happening, max(self._time.now_s, self._time.at(now)))

    def synchronize(self, now: float, wall: float) -> None:
        """`now` (monotonic) is `wall` on the mission's time line, or its latest event's time if that is later."""
        self._time.synchronize(now, wall)

    def happened(self, happening: Happening, now_s: float) -> list[Instruction]:
        """As `handle`, at a second of the mission's own time line: `at_s` of what is recorded."""
        if self.ended:
            return []
        self._time.now_s = now_s
        for name, replica in self._agenda.retries(now_s):
            self._outgoing.ask(self._running[name], [replica])
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
            case Reviewed(name, review):
                self._reviewed(name, review)
        self._advance()
        steps, self._steps = self._steps, []
        return steps

    def _start(self) -> None:
        if self.seq:
            return
        self._time.begin()
        budget = self._budget if self.limited else None
        admitted = facts.admitted(self._progress.graph, self._time.deadline_s, budget)
        self._record(EventKind.MISSION_ADMITTED, "", admitted)

    def _resume(self, swarm: str) -> None:
        self._swarm = swarm
        self._time.begin_anew()
        self._begin_dues_anew()
        self.holds.begin_anew(self._time.now_s)
        self._record(EventKind.MISSION_RESUMED, "", {})
        if self.limited:
            self._outgoing.write_off(self._running.values())

    def _tick(self) -> None:
        now_s, self._time.wake_s = self._time.now_s, math.inf
        if now_s >= self._time.due_s():
            self._end(expired=True)
            return
        for name in self.holds.overdue(now_s):
            self._reviewed(name, None)
            return
        for name in self._agenda.overdue(now_s):
            self._close(self._running[name], expired=True)

    def _report(self, report: Report) -> None:
        had_money = self._outgoing.settle(report)
        task = self._outgoing.open.pop(report.attempt_id, None)
        if task is None:  # late: its task was decided without it
            if had_money:  # in the journal all the same: what it gave back may be spent by others
                self._record(EventKind.ATTEMPT_FAILED, *facts.late(report))
            return
        replica = task.open.pop(report.attempt_id)
        self._outgoing.bill.add(report.spent, report.elapsed_s)
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
                self._outgoing.done(task, replica)
                self._record(EventKind.REPLY_ACCEPTED, task.node.id, facts.accepted(replica, report, reply))
                self._decided(task, decision)
                return
        self._failed(task, replica, report)

    def _failed(self, task: RunningTask, replica: int, report: Report) -> None:
        self._record(EventKind.ATTEMPT_FAILED, task.node.id, facts.failed(replica, report))
        if blamed := appraise_failure(task.node, report):
            self._steps.append(Appraise(blamed))
        if task.failed(replica, report):
            again_s = self._time.now_s + task.pause_s(self.mission_id, replica)
            if again_s < self._time.due_s(task.node.task.deadline_s):
                self._outgoing.wait(task, replica)
                self._agenda.retry(again_s, task.node.id, replica)
                return
            report = replace(report, detail=f"{report.detail}; the deadline leaves no time for another try")
        if evidence := task.evidence(replica):
            self._record(EventKind.TASK_QUARANTINED, task.node.id, {"replica": replica, "evidence": [*evidence]})
        report = task.last_word(replica, report)
        self._outgoing.done(task, replica)
        vote = vote_of(replica, report)
        task.votes.append(vote)
        self._decided(task, task.vote.add(vote))

    def _decided(self, task: RunningTask, decision: Decision | None) -> None:
        if decision is None:
            self._outgoing.ask(task, task.to_ask())
            return
        self._settle(task, decision, saved=len(task.open) + len(task.waiting))
        if task.input_error and not any(vote.reply for vote in task.votes):
            self._end(fault=task.input_error)

    def _close(self, task: RunningTask, *, expired: bool, ending: bool = False) -> None:
        """Decide the task over the votes that are in."""
        if expired and task.silence(self.mission_id, min(task.node.task.deadline_s, self._time.deadline_s)):
            self._unheard.append(task.node.id)
        self._settle(task, task.vote.close(), ending=ending)

    def _settle(self, task: RunningTask, decision: Decision, *, saved: int = 0, ending: bool = False) -> None:
        """The vote is over. Where a person has to look at it the task is held, or decided to be nothing at the end."""
        node = task.node
        del self._running[node.id]
        self._agenda.end(node.id)
        self._outgoing.close(task)
        votes = tuple(sorted(task.votes, key=lambda vote: (vote.policy, vote.voter)))
        supporters = task.vote.supporters
        settled = Settled(node.task.inputs, decision, votes, confidence_in(decision, votes, supporters), supporters)
        now_s = self._time.now_s
        after_s = round(now_s - task.started_at_s, 6)
        if not to_review(node.task, settled):
            self._decide(node, settled, after_s, saved, appraise_voters(node, settled, self._progress.settled))
        elif ending:
            self._decide(node, withheld(settled), after_s, saved)
        else:
            self._hold(Holding(task, settled, after_s, saved, now_s, now_s + node.task.review_s))
        if sent := self._outgoing.call_off(task):
            self._steps.append(Cancel(sent))

    def _decide(
        self, node: TaskNode, settled: Settled, after_s: float, saved: int, found: tuple[Appraisal, ...] = ()
    ) -> None:
        self._progress.settle(node.id, settled)
        self._record(EventKind.TASK_DECIDED, node.id, facts.decided(settled.decision, after_s, saved))
        if found:
            self._steps.append(Appraise(found))

    def _hold(self, holding: Holding) -> None:
        """Ask a person, and let the deadline stand still until all that is held was answered."""
        if not self.holds:
            self._time.stop()
            self._begin_dues_anew()
        self.holds.add(holding)
        self._record(EventKind.TASK_HELD, holding.task.node.id, facts.held(holding))
        self._steps.append(Ask(holding.shown(self.mission_id)))

    def _reviewed(self, name: str, review: Review | None) -> None:
        """A person has answered, or (None) nobody has in time. An answer that does not fit changes nothing."""
        if name not in self.holds or (review and self.holds.refusal(name, review)):
            return
        holding = self.holds.pop(name, review)
        self._record(EventKind.TASK_REVIEWED, name, facts.reviewed(review))
        if not self.holds:
            self._time.go_on()
            self._begin_dues_anew()
        node, settled = holding.task.node, holding.reviewed(review)
        found = appraise_reviewed(holding, review, settled, self._progress.settled)
        self._decide(node, settled, holding.after_s, holding.saved, found)
        if not settled.decision.agreed:
            self._end(fault=Fault("SwarmError", f"{name}: {told(review)}", "rejected"))
        elif name in self._unheard:  # a person has made up for those who were not heard
            self._unheard.remove(name)

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
            elif not self._try_next():
                break
        if not self.ended and not self._running and not self.holds:
            self._end()
        if self.ended:
            return
        if sending := self._outgoing.take():
            self._steps.append(Dispatch(sending))
        next_s = min(self._agenda.next_s, self.holds.next_s, self._time.due_s())
        if next_s != self._time.wake_s:
            self._time.wake_s = next_s
            self._steps.append(WakeAt(self.wake_at))

    def _expand(self, fan: TaskNode) -> None:
        try:
            tasks = self._progress.expand(fan)
        except GraphError as error:
            self._end(fault=Fault(type(error).__name__, str(error), error.reason))
            return
        self._outgoing.ahead += (sum(node.task.replicas for node in tasks) - fan.task.replicas) * fan.task.max_attempts
        self._record(EventKind.GRAPH_EXPANDED, fan.id, {"tasks": len(tasks)})

    def _launch(self, node: TaskNode) -> None:
        task = self._running[node.id] = RunningTask.of(node, self._progress.upstream(node), self._time.now_s)
        self._agenda.begin(node.id, self._time.due_s(node.task.deadline_s))
        self._record(EventKind.TASK_STARTED, node.id, {"role": node.task.role, "replicas": node.task.replicas})
        self._outgoing.ask(task, task.to_ask())

    def _try_next(self) -> bool:
        """Send out the replica that has waited longest, or fail it if no money can come; False: it has to wait on."""
        turn = self._outgoing.turn()
        if turn is None:
            return False
        task, replica = turn.task, turn.replica
        if not turn.funded:
            self._failed(task, replica, Report("", self.mission_id, failure=FailureKind.NO_BUDGET, detail=NO_MONEY))
            return True
        self._outgoing.begin(turn, self._left_s(task, self._time.now_s))
        if task.tries[replica] > 1 or self._time.now_s > task.started_at_s:
            self._record(EventKind.ATTEMPT_STARTED, task.node.id, {"replica": replica, "try": task.tries[replica]})
        return True

    def _end(self, *, fault: Fault | None = None, expired: bool = False, cancelled: str | None = None) -> None:
        for task in list(self._running.values()):
            self._close(task, expired=expired, ending=True)
        for held in self.holds:
            self.holds.pop(held.task.node.id, None)
            self._decide(held.task.node, withheld(held.proposed), held.after_s, held.saved)
        self.ended = True
        result = verdict(
            self.mission_id,
            self._progress.output,
            self._progress.settled,
            End(fault, cancelled, self._time.deadline_s if expired else None, self._unheard),
            elapsed_s=round(self._time.now_s - self._time.started_s, 6),
            spent=self._outgoing.bill.total,
            attempts=self._outgoing.begun,
        )
        self._record(EventKind.MISSION_ENDED, "", facts.ended(result))
        self._steps.append(Finish(result))

    def _left_s(self, task: RunningTask, now_s: float) -> float:
        return self._time.left_s(task.node.task.deadline_s, now_s)

    def _begin_dues_anew(self) -> None:
        due_s = {name: self._time.due_s(task.node.task.deadline_s) for name, task in self._running.items()}
        self._agenda.begin_anew(due_s)

    def _record(self, kind: EventKind, task_id: str, data: facts.Data) -> None:
        self.seq += 1
        event = known(
            Event,
            mission_id=self.mission_id,
            seq=self.seq,
            kind=kind,
            at_s=self._time.now_s,
            task_id=task_id,
            swarm=self._swarm,
            data=data,
        )
        self._steps.append(Record(event))
