"""Decisions that are held for a person: when one is, what the person is shown, and what becomes of it. Pure functions.

Until somebody has answered, a held decision is none: no task that waits for it starts, and it is nobody's result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from chimera.core.errors import ReplyError
from chimera.core.hashing import canonical_json
from chimera.core.types import Decision, Frozen, Name, Outcome, Share, Task
from chimera.swarm import equality
from chimera.swarm.agenda import Agenda
from chimera.swarm.attempt import Appraisal, Settled
from chimera.swarm.consensus import Candidate
from chimera.swarm.running import RunningTask, appraise_voters
from chimera.swarm.status import HeldStatus
from chimera.swarm.verdict import confidence_in

MAX_OTHERS = 8
"""Further values that a person is shown."""

MAX_OTHER_CHARS = 10_000
"""Of the JSON of one of them: what is longer is not shown."""

MAX_BRIEF_CHARS = 300
"""Of a goal or a value, in a list."""

NEAR = 0.5
"""What a vote is worth whose value a person had to edit."""

NOBODY = "nobody decided in time"


class Review(Frozen):
    """What a person says of a held decision: approved as it is, edited to `value`, or rejected for a `reason`.

    `by` names the person. Raises ValueError for a rejection without a reason, a value without an edit, and a value
    that has no JSON form.
    """

    verdict: Literal["approve", "edit", "reject"]
    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(default="", max_length=10_000)
    value: JsonValue = None

    @model_validator(mode="after")
    def _fits_together(self) -> Review:
        if self.verdict == "reject" and not self.reason.strip():
            raise ValueError("say why it is rejected: a rejection has a reason")
        if self.verdict != "edit" and self.value is not None:
            raise ValueError("a value is only for an edit")
        canonical_json([self.value, self.by, self.reason]).encode()
        return self


class HeldTask(Frozen):
    """What a person is shown: the task, what was proposed, how sure the swarm is of it, and what else was voted for.

    Times are in wall-clock seconds since the epoch; at `until_s` it counts as rejected.
    """

    mission_id: Name
    task_id: Name
    goal: str
    role: Name = "worker"
    proposal: Decision
    confidence: Share
    others: tuple[JsonValue, ...] = ()
    since_s: float
    until_s: float

    @property
    def key(self) -> str:
        """Names the task among those of all missions: a task is held once, so whoever is asked twice is asked once."""
        return f"{self.mission_id}/{self.task_id}"

    def brief(self) -> HeldStatus:
        """What a list shows of it."""
        proposed = canonical_json(self.proposal.value) if self.proposal.agreed else ""
        return HeldStatus(
            mission_id=self.mission_id,
            task_id=self.task_id,
            goal=_cut(self.goal),
            proposed=_cut(proposed),
            outcome=self.proposal.outcome,
            confidence=self.confidence,
            since_s=self.since_s,
            until_s=self.until_s,
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A held task as its brain keeps it. `after_s` is how long its vote took; `saved` replicas were not needed."""

    task: RunningTask
    proposed: Settled
    after_s: float
    saved: int
    since_s: float
    until_s: float

    def shown(self, mission_id: str) -> HeldTask:
        """What a person is shown of it."""
        spec, decision = self.task.node.task, self.proposed.decision
        proposed = equality.key(decision.value) if decision.agreed else None
        candidates = self.task.vote.candidates
        others = [each.value for each in candidates if equality.key(each.value) != proposed][:MAX_OTHERS]
        return HeldTask(
            mission_id=mission_id,
            task_id=self.task.node.id,
            goal=spec.goal,
            role=spec.role,
            proposal=decision,
            confidence=self.proposed.confidence,
            others=tuple(value for value in others if len(json.dumps(value)) <= MAX_OTHER_CHARS),
            since_s=self.since_s,
            until_s=self.until_s,
        )

    def reviewed(self, review: Review | None) -> Settled:
        """What the task is decided to be; None: nobody has said anything in time."""
        decision = self.proposed.decision
        if review is None or review.verdict == "reject":
            return _none(self.proposed, told(review))
        if review.verdict == "approve":
            return replace(
                self.proposed, decision=_with(decision, explanation=f"{decision.explanation}; {told(review)}")
            )
        same = self._voted_for(review.value)
        supporters = same.voters if same else ()
        support = min(1.0, same.weight / decision.electorate) if same else 0.0
        edited = _with(decision, outcome=Outcome.AGREED, value=review.value, support=support, explanation=told(review))
        confidence = confidence_in(edited, self.proposed.votes, supporters)
        return replace(self.proposed, decision=edited, supporters=supporters, confidence=confidence)

    def _voted_for(self, value: JsonValue) -> Candidate | None:
        """The agents' own candidate that is the same value."""
        try:
            wanted = equality.key(equality.canonical(value, self.task.node.task.equality))
        except ReplyError:  # a person may say what no agent could have
            return None
        return next((each for each in self.task.vote.candidates if equality.key(each.value) == wanted), None)


class Holds:
    """The held tasks of a mission, and what was said of those that were."""

    def __init__(self) -> None:
        self.answers: dict[str, Review] = {}
        self._holdings: dict[str, Holding] = {}
        self._ends = Agenda()

    def __contains__(self, name: object) -> bool:
        return name in self._holdings

    def __len__(self) -> int:
        return len(self._holdings)

    def __iter__(self) -> Iterator[Holding]:
        return iter(tuple(self._holdings.values()))

    @property
    def next_s(self) -> float:
        """When the first of them has waited long enough."""
        return self._ends.next_s

    def add(self, holding: Holding) -> None:
        name = holding.task.node.id
        self._holdings[name] = holding
        self._ends.begin(name, holding.until_s)

    def refusal(self, name: str, review: Review) -> str:
        """Why this cannot be said of the task; empty when it can, or has been."""
        if name not in self._holdings:
            return contradiction(name, self.answers.get(name), review)
        if review.verdict == "approve" and not self._holdings[name].proposed.decision.agreed:
            return f"task {name!r}: the agents agreed on no value that could be approved: edit it, or reject it"
        return ""

    def pop(self, name: str, review: Review | None) -> Holding:
        """The task is held no longer: it was answered, or (None) nobody has."""
        if review is not None:
            self.answers[name] = review
        self._ends.end(name)
        return self._holdings.pop(name)

    def overdue(self, now_s: float) -> Iterator[str]:
        """Those that nobody has answered in time."""
        return self._ends.overdue(now_s)

    def begin_anew(self, now_s: float) -> None:
        """Each may wait from now on as long as at first."""
        for name, holding in self._holdings.items():
            self._holdings[name] = replace(holding, until_s=now_s + holding.task.node.task.review_s)
        self._ends.begin_anew({name: holding.until_s for name, holding in self._holdings.items()})


def to_review(task: Task, settled: Settled) -> bool:
    """Whether a person has to look at it: never where no agent replied, for then there is nothing to look at."""
    if task.review == "never" or not any(vote.reply for vote in settled.votes):
        return False
    return task.review == "always" or settled.confidence < task.review_below


def contradiction(name: str, given: Review | None, review: Review) -> str:
    """Why this cannot be said any more of a task that is not held, of which `given` was; empty if it is just that."""
    if given is None:
        return f"task {name!r} is not held for a person: it never was, or its time was up, or its mission has ended"
    if given != review:
        return f"task {name!r} has its answer already, and another one: {told(given)}"
    return ""


def withheld(proposed: Settled) -> Settled:
    """A decision that a person had to look at, and nobody has: it is none."""
    return _none(proposed, "a person had to look at what was proposed, and the mission ended before")


def told(review: Review | None) -> str:
    """What a person said, in words."""
    if review is None:
        return NOBODY
    done = {"approve": "approved", "edit": "edited", "reject": "rejected"}[review.verdict]
    return f"{done} by {review.by}" + (f": {review.reason}" if review.reason else "")


def appraise_reviewed(
    holding: Holding, review: Review | None, settled: Settled, upstream: Mapping[str, Settled]
) -> tuple[Appraisal, ...]:
    """What a person's word says of those who voted: approved, it is as any decision; edited, 1 for who had said just
    that, NEAR for who had said what was edited and 0 for all others; rejected, 0 for who had said it and nothing of the
    others. Time that ran out says nothing of anybody."""
    if review is None:
        return ()
    node, proposed = holding.task.node, set(holding.proposed.supporters)
    if review.verdict == "approve":
        return appraise_voters(node, settled, upstream)
    found = []
    for vote in settled.votes:
        if vote.reply is None or not vote.agent or (review.verdict == "reject" and vote.voter not in proposed):
            continue
        good = 0.0
        if review.verdict == "edit":
            good = 1.0 if vote.voter in settled.supporters else NEAR * (vote.voter in proposed)
        found.append(Appraisal(vote.agent, node.task.skill or "", good))
    return tuple(found)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_BRIEF_CHARS else text[: MAX_BRIEF_CHARS - 3] + "..."


def _none(proposed: Settled, why: str) -> Settled:
    decision = _with(proposed.decision, outcome=Outcome.NO_QUORUM, value=None, support=0.0, explanation=why)
    return replace(proposed, decision=decision, supporters=(), confidence=0.0)


def _with(decision: Decision, **changes: object) -> Decision:
    return decision.model_copy(update=changes)
