"""A task in progress, as a mission's brain keeps it: its vote, its attempts, and what happened to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from chimera.core.rng import rng
from chimera.core.types import Budget, FailureKind, Reply, Vote
from chimera.swarm.attempt import Appraisal, Attempt, Report, Settled, Work
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.graph import TaskNode
from chimera.swarm.known import known

SUSPECT_AFTER = 2
"""Hosts that a replica has lost when it becomes a suspect, which has a host to itself."""

CONVICTED_AFTER = 2
"""Hosts that died with a replica and nothing else in hand, the last when it was a suspect: then it is poison. One host
may have been killed from outside."""

MAX_LOST = 10
"""Hosts that one replica may lose, for whatever reason."""

RETRY_BASE_S = 0.1
RETRY_CAP_S = 5.0

_AGENTS_FAULT = (FailureKind.RAISED, FailureKind.TIMEOUT, FailureKind.INVALID)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a mission failed: the name of an error class, its message, and for a GraphError its reason."""

    kind: str
    message: str
    reason: str = ""

    def as_dict(self) -> dict[Literal["kind", "message", "reason"], str]:
        return {"kind": self.kind, "message": self.message, "reason": self.reason}


@dataclass(slots=True, eq=False)
class RunningTask:
    """`waiting` replicas are to be sent out yet, for the first time or again; the `spare` ones among them nobody needs
    so far. `open` are attempts by id, with their replica. By replica: `tries`; those of them that a full queue
    `refused`; those still `ahead`, as far as is known; `lost` hosts; the last `cause` of failure."""

    node: TaskNode
    vote: ConsensusEngine
    work: bytes
    started_at_s: float
    waiting: set[int] = field(default_factory=set)
    spare: deque[int] = field(default_factory=deque)
    open: dict[str, int] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    ahead: dict[int, int] = field(default_factory=dict)
    lost: dict[int, list[Report]] = field(default_factory=dict)
    cause: dict[int, Report] = field(default_factory=dict)
    input_error: Fault | None = None
    barred: set[str] = field(default_factory=set)
    votes: list[Vote] = field(default_factory=list)

    @classmethod
    def of(cls, node: TaskNode, upstream: Mapping[str, Settled], now_s: float) -> RunningTask:
        spec = node.task
        vote = ConsensusEngine(
            method=spec.consensus,
            electorate=spec.replicas,
            threshold=spec.threshold,
            equality=spec.equality,
            early_stop=spec.early_stop,
            certainty=spec.certainty,
        )
        work = Work(spec, upstream).pack()
        spare = deque(range(spec.replicas))
        ahead = dict.fromkeys(spare, spec.max_attempts)
        return cls(node, vote, work, now_s, waiting=set(spare), spare=spare, ahead=ahead)

    def to_ask(self) -> list[int]:
        """The replicas to ask now: all that are spare, or of a frugal task as many as a decision may still take."""
        count = len(self.spare)
        if self.node.task.frugal:
            count = min(count, self.vote.wanted() - len(self.open) - (len(self.waiting) - count))
        return [self.spare.popleft() for _ in range(count)]

    def next_id(self, mission_id: str, replica: int) -> str:
        """The id of the replica's next attempt: `mission/task/replica/number`."""
        return f"{mission_id}/{self.node.id}/{replica}/{self.tries.get(replica, 0) + 1}"

    def begin(self, attempt_id: str, replica: int) -> None:
        """The replica is sent out."""
        self.tries[replica] = self.tries.get(replica, 0) + 1
        self.ahead[replica] -= 1
        self.open[attempt_id] = replica

    def wait(self, replica: int) -> int:
        """The replica is to be sent out again. Returns how many tries more than before are ahead of it."""
        self.waiting.add(replica)
        before = self.ahead[replica]
        tries = self.tries[replica] - self.refused.get(replica, 0)
        self.ahead[replica] = max(1, self.node.task.max_attempts - tries)
        return self.ahead[replica] - before

    def attempt(self, mission_id: str, attempt_id: str, left_s: float, spend: Budget) -> Attempt:
        """The envelope of an open attempt, `left_s` before the task is due, with the budget that it has."""
        spec = self.node.task
        replica = self.open[attempt_id]
        timeout_s = min(spec.attempt_timeout_s or spec.deadline_s / 4, max(left_s, 0.001))
        if spend.seconds is not None:
            timeout_s = min(timeout_s, spend.seconds)
        return Attempt(
            attempt_id,
            mission_id,
            self.node.id,
            replica,
            self.tries[replica],
            spec.role,
            timeout_s,
            self.work,
            priority=spec.priority,
            skill=spec.skill or "",
            different=spec.different_policies,
            suspect=len(self.lost.get(replica, ())) >= SUSPECT_AFTER,
            barred=frozenset(self.barred),
            spend=spend,
        )

    def failed(self, replica: int, report: Report) -> bool:
        """Count a failure in. Whether the replica may be tried again."""
        kind = report.failure
        if report.input_error:
            self.input_error = Fault(report.input_error, report.detail)
        if kind is FailureKind.OVERLOADED:  # nobody has tried
            self.refused[replica] = self.refused.get(replica, 0) + 1
            return True
        if kind is FailureKind.LOST:
            self.lost.setdefault(replica, []).append(report)
            again = len(self.lost[replica]) < MAX_LOST and not self.evidence(replica)
        else:
            if report.agent:
                self.barred.add(report.agent)
            tries = self.tries.get(replica, 0) - len(self.lost.get(replica, ())) - self.refused.get(replica, 0)
            again = kind not in (FailureKind.NO_AGENT, FailureKind.NO_BUDGET) and tries < self.node.task.max_attempts
        if again and not report.input_error:
            self.cause[replica] = report
            return True
        return False

    def last_word(self, replica: int, report: Report) -> Report:
        """What the replica's vote is made of when it is not tried again after `report`."""
        if evidence := self.evidence(replica):
            detail = f"quarantined: {len(evidence)} hosts died with it: {'; '.join(evidence)}"
            return replace(report, failure=FailureKind.POISON, detail=detail)
        if len(self.lost.get(replica, ())) >= MAX_LOST:
            return replace(report, detail=f"{report.detail}; {MAX_LOST} hosts were lost with it, which is the most")
        if report.failure in (FailureKind.NO_AGENT, FailureKind.NO_BUDGET) and (cause := self.cause.get(replica)):
            # It tells what went wrong, and not only that nothing was left to try again with.
            return replace(cause, detail=f"{cause.detail}; {report.detail}")
        return report

    def silence(self, mission_id: str, after_s: float) -> bool:
        """Count in that those who have not replied were not heard after so many seconds; False if all were."""
        missing = dict.fromkeys(self.waiting.difference(self.spare), "")
        missing |= {replica: attempt_id for attempt_id, replica in self.open.items()}
        detail = f"not heard: the task's time of {after_s:g} s was up"
        for replica, attempt_id in missing.items():
            unheard = Report(attempt_id, mission_id, failure=FailureKind.TIMEOUT, detail=detail)
            self.votes.append(vote_of(replica, unheard))
        return bool(missing)

    def evidence(self, replica: int) -> list[str]:
        """Which hosts died with a replica that is poison; empty for any other."""
        lost = self.lost.get(replica, [])
        if len(lost) <= SUSPECT_AFTER or not lost[-1].alone or sum(report.alone for report in lost) < CONVICTED_AFTER:
            return []
        return [f"{report.agent}: {report.detail}" + " (alone)" * report.alone for report in lost]

    def pause_s(self, mission_id: str, replica: int) -> float:
        """How long to wait before the next try: exponential backoff with full jitter, the same in every replay.

        Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        tried = self.tries[replica]
        most_s = min(RETRY_CAP_S, RETRY_BASE_S * 2.0 ** min(tried - 1, 60))
        return rng("retry", mission_id, self.node.id, replica, tried).uniform(0.0, most_s)


def vote_of(replica: int, report: Report, reply: Reply | None = None) -> Vote:
    """The vote that a report comes to, with its `reply` where it has one."""
    return known(
        Vote,
        voter=f"replica-{replica}",
        agent=report.agent,
        policy=report.policy,
        reply=reply,
        failure=report.failure,
        detail=report.detail,
        elapsed_s=report.elapsed_s,
        cost_usd=report.spent.usd,
    )


def appraise_failure(node: TaskNode, report: Report) -> tuple[Appraisal, ...]:
    """What a failure says of its agent: nothing, where the agent had no part in it."""
    if report.failure not in _AGENTS_FAULT or not report.agent or report.input_error:
        return ()
    return (Appraisal(report.agent, node.task.skill or "", 0.0),)


def appraise_voters(node: TaskNode, settled: Settled, upstream: Mapping[str, Settled]) -> tuple[Appraisal, ...]:
    """What a decision says of its voters, and what its supporters, as judges, say of those who voted `upstream`."""
    if not settled.decision.agreed:
        return ()
    skill = node.task.skill or ""
    supporters = set(settled.supporters)
    found: list[Appraisal] = []
    opinions: list[tuple[str, float]] = []
    for vote in settled.votes:
        if vote.reply is not None:
            supports = vote.voter in supporters
            if vote.agent:
                found.append(Appraisal(vote.agent, skill, float(supports)))
            if supports and vote.reply.appraisals:
                opinions += vote.reply.appraisals.items()
    if opinions:
        judged = {vote.agent for name in node.after if name in upstream for vote in upstream[name].votes}
        found += [Appraisal(agent, "", good) for agent, good in opinions if agent in judged]
    return tuple(found)
