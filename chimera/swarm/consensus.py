"""Consensus: replies become one decision, streamed, and made as soon as it cannot change.

`n` is the electorate: how many voters were asked. A voter that failed, or has not answered when the vote is closed,
abstains: it stays in `n`. Replies are the same when their canonical forms are (`chimera.swarm.equality`).

What a value needs to be agreed, besides leading alone:

- `majority`: the votes of more than half of `n`.
- `quorum`: at least `threshold * n` votes, rounded up exactly; the threshold is 0.51 unless given.
- `unanimous`: the votes of all `n`.
- `weighted`: any weight above zero. This is score voting with a plurality of weight: each value that a reply names, as
  its value or as an alternative, gets the reply's confidence in it, and one that a reply names more than once gets the
  largest. Confidence counts in whole millionths, so that the order of adding cannot matter. The other methods count a
  reply's value as one vote, and ignore its confidence and alternatives.

If none is agreed, a lead that two or more values share is a tie (but not for `unanimous`, where any dissent is just
a missed quorum), and everything else, silence and zero weight included, is no quorum.

**Early stop.** With `r` voters out, each may still give up to one vote (or full confidence) to any values, old or new.
Whoever leads alone, has what it needs, and leads by more than `r`, stays agreed; nothing less is safe, since the rest
may abstain or all back the runner-up or a new value. No quorum is certain when neither the leader can reach what it
needs nor a tie can come about. A tie is never certain before the last vote, since that vote can break it.

**Certainty.** With one below 1, `majority`, `quorum` and `unanimous` also end once the complete vote would agree on the
leader with that probability. Each voter that is out is taken to back it with a chance that is not known
beforehand (uniform) and learnt from the votes that are in, and the runner-up otherwise; how many will is then
beta-binomial. Source: P. Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", EMNLP 2023.

**Tolerance.** Numbers within a tolerance of each other do not form classes (1.0 and 1.2 may both be near 1.1, and not
near one another), so the heaviest exact number becomes an anchor and absorbs its neighbours, then the next, and so on
(`equality.anchors`); an anchor has the votes of its group. A late vote can therefore move an anchor and with it the
value decided. A decision is early only when one exact number leads every other by more than `r`, so that it stays the
first anchor and keeps all its neighbours, and its group has what it needs and outweighs all others put together by
more than `r`; or, for `unanimous`, when two numbers are more than two tolerances apart, so that no anchor reaches both.
Otherwise it waits for all votes: sound always, not always soonest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from pydantic import JsonValue

from chimera.core.errors import InputError, SwarmError
from chimera.core.stats import beta_binomial_tail
from chimera.core.types import Consensus, Decision, Equality, EqualityKind, Outcome, Reply, Vote
from chimera.swarm.equality import anchors, canonical, key, number
from chimera.swarm.known import known

DEFAULT_THRESHOLD = 0.51
_MILLION = 1_000_000
_NONE = Fraction(0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that was voted for. `weight` is in votes, or for `weighted` in summed confidence; `voters` are sorted."""

    value: JsonValue
    weight: float
    voters: tuple[str, ...]


class ConsensusEngine:
    """Counts the votes of one task. Keeps one ballot a voter; without a tolerance, a vote costs O(1) a value it names.

    Raises InputError for an electorate below 1, and for a threshold without `quorum` or outside (0, 1].
    """

    def __init__(
        self,
        *,
        method: Consensus,
        electorate: int,
        threshold: float | None = None,
        equality: Equality = Equality(),
        early_stop: bool = True,
        certainty: float = 1.0,
    ) -> None:
        if electorate < 1:
            raise InputError(f"a vote needs at least 1 voter, got {electorate}")
        if threshold is not None and (method is not Consensus.QUORUM or not 0 < threshold <= 1):
            raise InputError(f"a threshold is for quorum, above 0 and at most 1; got {threshold} for {method.value}")
        self._method = method
        self._electorate = electorate
        self._equality = equality
        self._tolerance = Fraction(repr(equality.tolerance)) if equality.tolerance else _NONE
        self._early_stop = early_stop
        self._certainty = certainty
        self._unit = _MILLION if method is Consensus.WEIGHTED else 1
        self._need = _needed(method, electorate, threshold)
        self._ballots: dict[str, dict[str, int]] = {}
        self._forms: dict[tuple[type, str | int | None], tuple[JsonValue, str]] = {}
        self._failures: dict[str, int] = {}
        self._values: dict[str, JsonValue] = {}
        self._numbers: dict[str, Fraction] = {}
        self._weights: dict[str, int] = {}
        self._leader = ""
        self._lead = 0
        self._runner_up = 0
        self._decision: Decision | None = None
        self._supporters: tuple[str, ...] = ()

    @property
    def supporters(self) -> tuple[str, ...]:
        """The voters, sorted, whose reply was the decision's value when it was made, or for `weighted` named it."""
        return self._supporters

    @property
    def decision(self) -> Decision | None:
        """The decision once it is made. It never changes after that."""
        return self._decision

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every value voted for so far: heaviest first, and of equals the smallest number or the first as JSON text."""
        return tuple(
            Candidate(self._values[name], weight / self._unit, tuple(sorted(group)))
            for name, weight, group in self._groups()
        )

    def add(self, vote: Vote) -> Decision | None:
        """Count `vote`. Returns the decision from the one call that makes it, and None from every other.

        A voter's first accepted vote counts, and its later ones are ignored. A vote after the decision still counts in
        `candidates`, for the record, and leaves the decision as it is. Raises, and then has changed nothing:
        ReplyError when the reply cannot be compared (count a failed vote for that voter instead); SwarmError when the
        whole electorate has voted already.
        """
        if vote.voter in self._ballots:
            return None
        if len(self._ballots) >= self._electorate:
            raise SwarmError(f"{vote.voter} votes, but all {self._electorate} voters have voted")
        entries = self._entries(vote.reply) if vote.reply is not None else []
        if vote.failure is not None:
            self._failures[vote.failure.value] = self._failures.get(vote.failure.value, 0) + 1
        ballot = self._ballots[vote.voter] = {}
        for form, name, score in entries:
            self._score(ballot, form, name, score)
        if self._decision is not None:
            return None
        remaining = self._electorate - len(self._ballots)
        if not remaining:
            return self.close()
        if self._early_stop and (outcome := self._foresee(remaining)) is not None:
            self._decision = self._decide(outcome)
        return self._decision

    def close(self) -> Decision:
        """The decision over the votes that are in, as if all other voters abstained; the one made before, if any."""
        if self._decision is None:
            self._decision = self._decide()
        return self._decision

    def wanted(self) -> int:
        """How many of the voters that are out a decision takes at least: if all of them back the leader."""
        remaining = self._electorate - len(self._ballots)
        if not self._early_stop or self._tolerance:
            return remaining
        for more in range(1, remaining):
            if self._safe(self._lead + more * self._unit, remaining - more):
                return more
        return remaining

    def _safe(self, lead: int, remaining: int) -> bool:
        """Whether a leader with this lead stays agreed, surely or as surely as is asked for, with `remaining` out."""
        coming = remaining * self._unit
        if lead >= self._need and lead > self._runner_up + coming:
            return True
        if self._certainty >= 1.0 or not lead:
            return False
        more = max(self._need - lead, (self._runner_up + remaining - lead) // 2 + 1)
        against = self._electorate - remaining - lead
        return beta_binomial_tail(more, remaining, 1 + lead, 1 + against) >= self._certainty

    def _entries(self, reply: Reply) -> list[tuple[JsonValue, str, int]]:
        """What a reply gives its voter's score to, as canonical form and key. Raises ReplyError; nothing is counted."""
        if self._method is not Consensus.WEIGHTED:
            return [(*self._form(reply.value), 1)]
        named = [(reply.value, reply.confidence), *((other.value, other.confidence) for other in reply.alternatives)]
        return [(*self._form(value), round(confidence * _MILLION)) for value, confidence in named]

    def _form(self, value: JsonValue) -> tuple[JsonValue, str]:
        """The canonical form of `value` and its key. Most voters say the same, and mostly a word or a whole number."""
        if value is not None and not isinstance(value, str | int):
            form = canonical(value, self._equality)
            return form, key(form)
        said = (type(value), value)
        if said not in self._forms:
            form = canonical(value, self._equality)
            self._forms[said] = form, key(form)
        return self._forms[said]

    def _score(self, ballot: dict[str, int], form: JsonValue, name: str, score: int) -> None:
        """Enter a score on a ballot, where a value's largest counts, and keep the two heaviest weights up to date."""
        if name not in self._values:
            self._values[name] = form
            if self._equality.kind is EqualityKind.NUMERIC:
                self._numbers[name] = number(form)
        gain = max(0, score - ballot.get(name, 0))
        ballot[name] = ballot.get(name, 0) + gain
        weight = self._weights[name] = self._weights.get(name, 0) + gain
        if name == self._leader:
            self._lead = weight
        elif weight > self._lead:
            self._leader, self._lead, self._runner_up = name, weight, self._lead
        else:
            self._runner_up = max(self._runner_up, weight)

    def _groups(self) -> list[tuple[str, int, dict[str, int]]]:
        """Each candidate's key, weight and scores by voter, best first."""
        anchor_of = anchors(self._weights, self._numbers, self._tolerance) if self._tolerance else {}
        groups: dict[str, dict[str, int]] = {}
        for voter, ballot in self._ballots.items():
            for name, score in ballot.items():
                group = groups.setdefault(anchor_of.get(name, name), {})
                group[voter] = max(score, group.get(voter, 0))
        weighed = [(name, sum(group.values()), group) for name, group in groups.items()]
        return sorted(weighed, key=lambda entry: (-entry[1], self._numbers.get(entry[0], 0), entry[0]))

    def _foresee(self, remaining: int) -> Outcome | None:
        """The outcome that no behaviour of the `remaining` voters can change, if there is one."""
        if self._tolerance:
            return self._foresee_near(remaining)
        coming = remaining * self._unit
        if self._safe(self._lead, remaining):
            return Outcome.AGREED
        if self._method is Consensus.UNANIMOUS:
            tie_possible = False
        elif self._lead:
            tie_possible = self._lead - self._runner_up <= coming
        else:
            tie_possible = remaining > 1
        return Outcome.NO_QUORUM if self._lead + coming < self._need and not tie_possible else None

    def _foresee_near(self, remaining: int) -> Outcome | None:
        """As `_foresee`, where numbers within a tolerance count together: sound, and silent when in doubt."""
        if self._method is Consensus.UNANIMOUS:
            spread = max(self._numbers.values(), default=0) - min(self._numbers.values(), default=0)
            return Outcome.NO_QUORUM if self._failures or spread > 2 * self._tolerance else None
        coming = remaining * self._unit
        if self._lead <= self._runner_up + coming:
            return None
        centre = self._numbers[self._leader]
        near = {name for name, point in self._numbers.items() if abs(point - centre) <= self._tolerance}
        ballots = self._ballots.values()
        inside = sum(max((score for name, score in b.items() if name in near), default=0) for b in ballots)
        outside = sum(max((score for name, score in b.items() if name not in near), default=0) for b in ballots)
        return Outcome.AGREED if inside >= self._need and inside > outside + coming else None

    def _decide(self, foreseen: Outcome | None = None) -> Decision:
        """The decision over the votes that are in; `foreseen` is its outcome where votes that are out cannot matter."""
        groups = self._groups()
        weights = [weight for _, weight, _ in groups if weight]
        lead, runner_up = (*weights, 0, 0)[:2]
        if foreseen is not None:
            outcome = foreseen
        elif lead >= self._need and lead > runner_up:
            outcome = Outcome.AGREED
        elif lead and lead == runner_up and self._method is not Consensus.UNANIMOUS:
            outcome = Outcome.TIE
        else:
            outcome = Outcome.NO_QUORUM
        if outcome is Outcome.AGREED:
            self._supporters = tuple(sorted(groups[0][2]))
        return known(
            Decision,
            outcome=outcome,
            method=self._method,
            value=self._values[groups[0][0]] if outcome is Outcome.AGREED else None,
            support=lead / (self._electorate * self._unit),
            electorate=self._electorate,
            counted=len(self._ballots) - sum(self._failures.values()),
            explanation=self._explain(outcome, weights),
        )

    def _explain(self, outcome: Outcome, weights: list[int]) -> str:
        """One plain sentence; the same for the same votes, in whichever order they came."""
        lead, runner_up = (f"{weight / self._unit:.6g}" for weight in (*weights, 0, 0)[:2])
        weighted = self._method is Consensus.WEIGHTED
        if not weights:
            said = f"no value has any {'weight' if weighted else 'vote'}"
        elif outcome is Outcome.TIE:
            each = f"weight {lead}" if weighted else _count(weights[0], "vote")
            said = f"tie between {weights.count(weights[0])} values with {each} each"
        elif weighted:
            said = f"the winner has weight {lead} of {self._electorate}, the next has {runner_up}"
        else:
            only = "" if outcome is Outcome.AGREED else "only "
            said = f"{only}{lead} of {self._electorate} agreed ({self._method.value} needs {self._need})"
        if self._failures:
            counts = sorted(self._failures.items())
            kinds = ", ".join(f"{kind} ({times})" if len(counts) > 1 < times else kind for kind, times in counts)
            said += f"; {_count(sum(self._failures.values()), 'voter')} failed: {kinds}"
        if remaining := self._electorate - len(self._ballots):
            said += f"; {_count(remaining, 'voter')} not heard"
        return said


def _needed(method: Consensus, electorate: int, threshold: float | None) -> int:
    """The votes, or millionths of confidence, without which no value is agreed.

    The threshold is taken as the decimal that it prints as: 0.07 of 100 is 7, where floats would make it 8.
    """
    match method:
        case Consensus.MAJORITY:
            return electorate // 2 + 1
        case Consensus.QUORUM:
            return math.ceil(Fraction(repr(float(threshold or DEFAULT_THRESHOLD))) * electorate)
        case Consensus.UNANIMOUS:
            return electorate
        case Consensus.WEIGHTED:
            return 1


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"
