"""The engine against a full count: written apart from it, over all replies, with fractions and pairwise comparison."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from chimera.core.types import (
    Alternative,
    Consensus,
    Decision,
    Equality,
    EqualityKind,
    FailureKind,
    Outcome,
    Reply,
    Vote,
)
from chimera.swarm.consensus import ConsensusEngine

MAJORITY, WEIGHTED, UNANIMOUS, QUORUM = (
    Consensus.MAJORITY,
    Consensus.WEIGHTED,
    Consensus.UNANIMOUS,
    Consensus.QUORUM,
)
AGREED, TIE, NO_QUORUM = Outcome.AGREED, Outcome.TIE, Outcome.NO_QUORUM

Given = tuple[JsonValue, float]
"""A value and the confidence in it."""
Ballot = tuple[Given, ...]
"""What one voter says, its value first; an empty ballot is an abstention."""


@dataclass(frozen=True)
class Case:
    """A whole vote: `ballots[i]` is voter `i`'s."""

    method: Consensus
    ballots: tuple[Ballot, ...]
    equality: Equality = Equality()
    threshold: str | None = None

    def engine(self, *, early_stop: bool = True) -> ConsensusEngine:
        return ConsensusEngine(
            method=self.method,
            electorate=len(self.ballots),
            threshold=None if self.threshold is None else float(self.threshold),
            equality=self.equality,
            early_stop=early_stop,
        )

    def votes(self) -> list[Vote]:
        return [vote(f"v{i}", *ballot) for i, ballot in enumerate(self.ballots)]


def vote(voter: str, *ballot: Given) -> Vote:
    if not ballot:
        return Vote(voter=voter, failure=FailureKind.TIMEOUT)
    (value, confidence), *others = ballot
    alternatives = tuple(Alternative(value=other, confidence=c) for other, c in others)
    return Vote(voter=voter, reply=Reply(value=value, confidence=confidence, alternatives=alternatives))


def decide(engine: ConsensusEngine, votes: Iterable[Vote]) -> tuple[Decision, int]:
    """Stream the votes in: the decision, and after how many votes it came."""
    made = [(decision, i) for i, v in enumerate(votes, 1) if (decision := engine.add(v)) is not None]
    assert len(made) == 1, "a decision is returned once"
    assert engine.decision == made[0][0] == engine.close()
    return made[0]


# --- the full count ---------------------------------------------------------------------------------------------------


def same(one: JsonValue, other: JsonValue, kind: EqualityKind) -> bool:
    if kind is EqualityKind.NUMERIC:
        return Decimal(str(one)) == Decimal(str(other))
    if kind is EqualityKind.TEXT:
        a, b = (unicodedata.normalize("NFKC", str(value)).casefold().split() for value in (one, other))
        return a == b
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b, kind) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name], kind) for name in one)
    return one == other and (kind is EqualityKind.JSON or type(one) is type(other))


def tally(named: Sequence[tuple[int, JsonValue, Fraction]], alike: Callable[[JsonValue], bool]) -> Fraction:
    """What the values that are `alike` have in all, a voter's largest counting once."""
    best: dict[int, Fraction] = {}
    for voter, value, score in named:
        if alike(value):
            best[voter] = max(best.get(voter, Fraction(0)), score)
    return sum(best.values(), Fraction(0))


def full_count(case: Case) -> tuple[Outcome, JsonValue, Fraction]:
    """The outcome, the winning value as some voter wrote it, and the leader's share."""
    kind, n = case.equality.kind, len(case.ballots)
    weighted = case.method is WEIGHTED
    named = [
        (voter, value, Fraction(round(confidence * 10**6), 10**6) if weighted else Fraction(1))
        for voter, ballot in enumerate(case.ballots)
        for value, confidence in (ballot if weighted else ballot[:1])
    ]
    totals: list[tuple[JsonValue, Fraction]] = []
    for _, value, _ in named:
        if not any(same(value, known, kind) for known, _ in totals):
            totals.append((value, tally(named, lambda v, value=value: same(v, value, kind))))  # type: ignore[misc]
    if case.equality.tolerance:
        totals = absorb(totals, named, Decimal(str(case.equality.tolerance)))
    top = max((total for _, total in totals), default=Fraction(0))
    leaders = [value for value, total in totals if total == top > 0]
    enough = {
        MAJORITY: 2 * top > n,
        QUORUM: top >= Fraction(case.threshold or "0.51") * n,
        UNANIMOUS: top == n,
        WEIGHTED: True,
    }[case.method]
    if len(leaders) == 1 and enough:
        return AGREED, leaders[0], top / n
    tied = len(leaders) > 1 and case.method is not UNANIMOUS
    return TIE if tied else NO_QUORUM, None, top / n


def absorb(
    totals: list[tuple[JsonValue, Fraction]], named: Sequence[tuple[int, JsonValue, Fraction]], tolerance: Decimal
) -> list[tuple[JsonValue, Fraction]]:
    left, groups = list(totals), []
    while left:
        anchor, _ = min(left, key=lambda entry: (-entry[1], Decimal(str(entry[0]))))
        group = [v for v, _ in left if abs(Decimal(str(v)) - Decimal(str(anchor))) <= tolerance]
        left = [entry for entry in left if entry[0] not in group]
        weight = tally(named, lambda v, group=group: any(same(v, g, EqualityKind.NUMERIC) for g in group))  # type: ignore[misc]
        groups.append((anchor, weight))
    return groups


def agree(decision: Decision, case: Case) -> bool:
    outcome, value, _ = full_count(case)
    if outcome is not AGREED:
        return decision.outcome is outcome and decision.value is None
    return decision.agreed and same(decision.value, value, case.equality.kind)


# --- random votes -----------------------------------------------------------------------------------------------------

POOLS: list[tuple[Equality, list[list[JsonValue]]]] = [
    (Equality(), [["a"], ["b"], [1, 1.0], [True], [None], [{"x": 1, "y": [2.0]}, {"y": [2], "x": 1.0}]]),
    (Equality(kind=EqualityKind.EXACT), [["a"], ["A"], [1], [1.0], [True], [[1, {"x": 2}]], [{"x": 1, "y": 2}]]),
    (
        Equality(kind=EqualityKind.TEXT),
        [["Yes", " yes\n", "\uff39es"], ["no", "NO"], ["not  now", "Not now"], ["3", 3]],
    ),
    (Equality(kind=EqualityKind.NUMERIC), [[1, 1.0, "1.0"], [2**53], [2**53 + 1], [0.1, "0.10"], [-5, "-5e0"]]),
    (
        Equality(kind=EqualityKind.NUMERIC, tolerance=0.1),
        [[1, "1.00"], [1.1], [1.2, "1.2"], [1.15], [0.95], [1.3], [7.0, 7]],
    ),
]
CASES, A_SEED = 10_000, 10
"""Random cases for each method, and how many of them one of hypothesis' seeds makes: the time is hypothesis'."""

LEVELS = [0.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.1, 0.2, 0.3, 0.0000004]
THRESHOLDS = [None, "0.07", "0.25", "0.5", "0.51", "0.6667", "0.75", "1.0"]


def draw(rng: random.Random, method: Consensus, largest: int) -> Case:
    equality, pool = rng.choice(POOLS)
    values = rng.sample(pool, rng.randint(1, min(4, len(pool))))
    absent, first, smooth = rng.choice([0.0, 0.0, 0.1, 0.5]), rng.choice([0.2, 0.5, 0.8, 1.0]), rng.choice([0.0, 0.3])

    def name() -> Given:
        spellings = values[0] if rng.random() < first else rng.choice(values)
        return rng.choice(spellings), rng.random() if rng.random() < smooth else rng.choice(LEVELS)

    ballots = tuple(
        () if rng.random() < absent else tuple(name() for _ in range(rng.choice([1, 1, 2, 4])))
        for _ in range(rng.randint(1, largest))
    )
    return Case(method, ballots, equality, rng.choice(THRESHOLDS) if method is QUORUM else None)


def with_repeats(rng: random.Random, votes: list[Vote]) -> Iterator[Vote]:
    """The votes shuffled, some followed by a second vote of the same voter that says something else."""
    for v in rng.sample(votes, len(votes)):
        yield v
        if rng.random() < 0.2:
            yield vote(v.voter, (rng.random(), 1.0))


@pytest.mark.parametrize("method", Consensus)
def test_a_streamed_decision_is_the_decision_over_all_replies(method: Consensus) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=CASES // A_SEED, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**64 - 1))
    def check(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(A_SEED):
            check_case(rng, draw(rng, method, rng.choice([3, 6, 12])))

    def check_case(rng: random.Random, case: Case) -> None:
        votes, n = case.votes(), len(case.ballots)
        outcome, _, share = full_count(case)
        streamed, after = decide(case.engine(), votes)
        full, _ = decide(case.engine(early_stop=False), with_repeats(rng, votes))
        assert agree(streamed, case)
        assert agree(full, case)
        assert full.support == float(share)
        assert full.counted == sum(map(bool, case.ballots))
        seen[outcome.value] += 1
        seen["early"] += after < n

    check()
    assert seen.total() - seen["early"] >= CASES
    assert min(seen["agreed"], seen["no_quorum"], seen["early"]) > 100, seen
    assert (seen["tie"] > 100) is (method is not UNANIMOUS), seen


@pytest.mark.parametrize("method", Consensus)
def test_closing_makes_the_missing_voters_abstain(method: Consensus) -> None:
    for seed in range(1_000):
        rng = random.Random(seed)
        case = draw(rng, method, 6)
        heard = [bool(rng.getrandbits(1)) for _ in case.ballots]
        closed = Case(
            method,
            tuple(b if h else () for b, h in zip(case.ballots, heard, strict=True)),
            case.equality,
            case.threshold,
        )
        engine = case.engine()
        for v in itertools.compress(case.votes(), heard):
            engine.add(v)
        assert agree(engine.close(), closed)


@pytest.mark.parametrize("method", Consensus)
def test_the_order_of_arrival_changes_nothing(method: Consensus) -> None:
    for seed in range(60):
        case = draw(random.Random(seed), method, 4)
        votes = case.votes()
        streamed, counted, standings = [], [], []
        for order in itertools.permutations(votes):
            engine = case.engine(early_stop=False)
            counted.append(decide(engine, order)[0])
            standings.append(engine.candidates)
            decision, _ = decide(case.engine(), order)
            streamed.append((decision.outcome, repr(decision.value)))
        assert all(decision == counted[0] for decision in counted)
        assert all(repr(standing) == repr(standings[0]) for standing in standings)
        assert set(streamed) == {(counted[0].outcome, repr(counted[0].value))}


# --- every vote there can be ------------------------------------------------------------------------------------------


def every_vote(method: Consensus, options: Sequence[Ballot], n: int, **fields: object) -> Iterator[Case]:
    return (Case(method, ballots, **fields) for ballots in itertools.product(options, repeat=n))  # type: ignore[arg-type]


def check_soonest(cases: Iterable[Case]) -> None:
    """Each case must be decided at the first prefix whose completions, all of them among `cases`, end alike."""
    ends = [(case, full_count(case)[:2]) for case in cases]
    possible: dict[tuple[Ballot, ...], set[str]] = {}
    for case, end in ends:
        for heard in range(len(case.ballots) + 1):
            possible.setdefault(case.ballots[:heard], set()).add(repr(end))
    for case, end in ends:
        certain = next(k for k in itertools.count() if len(possible[case.ballots[:k]]) == 1)
        decision, after = decide(case.engine(), case.votes())
        assert (decision.outcome, decision.value, after) == (*end, certain), case


PLAIN: list[Ballot] = [((value, 1.0),) for value in "abcde"]
METHODS = [(MAJORITY, None), (UNANIMOUS, None), *((QUORUM, t) for t in (None, "0.2", "0.4", "0.5", "0.75", "1.0"))]


@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.parametrize(("method", "threshold"), METHODS)
def test_a_count_of_votes_is_decided_no_sooner_and_no_later_than_it_is_certain(
    method: Consensus, threshold: str | None, n: int
) -> None:
    check_soonest(every_vote(method, [(), *PLAIN[:n]], n, threshold=threshold))


SCORED: list[Ballot] = [
    (),
    (("a", 0.0),),
    (("a", 0.5),),
    (("a", 1.0),),
    (("b", 0.5),),
    (("b", 1.0),),
    (("c", 1.0),),
    (("a", 1.0), ("b", 1.0)),
    (("b", 0.5), ("c", 1.0), ("a", 0.0), ("b", 0.25)),
]


@pytest.mark.parametrize("n", range(1, 5))
def test_weighted_consensus_is_decided_no_sooner_and_no_later_than_it_is_certain(n: int) -> None:
    check_soonest(every_vote(WEIGHTED, SCORED, n))


NEAR: list[Ballot] = [(), *(((value, 1.0),) for value in (0, 0.5, 1, 1.5, 2, 10))]
NEAR_SCORED: list[Ballot] = [
    (),
    ((0, 1.0),),
    ((1, 0.5),),
    ((1, 1.0),),
    ((2, 1.0),),
    ((1, 1.0), (2, 1.0)),
    ((3, 1.0),),
]


@pytest.mark.parametrize("n", range(1, 5))
@pytest.mark.parametrize(("method", "threshold"), [*METHODS, (WEIGHTED, None)])
def test_with_a_tolerance_no_later_vote_overturns_an_early_decision(
    method: Consensus, threshold: str | None, n: int
) -> None:
    equality = Equality(kind=EqualityKind.NUMERIC, tolerance=1.0)
    options = NEAR_SCORED if method is WEIGHTED else NEAR
    early = 0
    for case in every_vote(method, options, n, threshold=threshold, equality=equality):
        decision, after = decide(case.engine(), case.votes())
        assert agree(decision, case), case
        early += after < n
    assert early or n < 4 or threshold == "1.0"
