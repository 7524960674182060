"""What each method of consensus does, in votes that can be read at a glance."""

from __future__ import annotations

import itertools
import random

import pytest
from pydantic import JsonValue

from chimera.core.errors import InputError, ReplyError, SwarmError
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


def vote(voter: str, *ballot: tuple[JsonValue, float]) -> Vote:
    if not ballot:
        return Vote(voter=voter, failure=FailureKind.TIMEOUT)
    (value, confidence), *others = ballot
    alternatives = tuple(Alternative(value=other, confidence=c) for other, c in others)
    return Vote(voter=voter, reply=Reply(value=value, confidence=confidence, alternatives=alternatives))


def poll(method: Consensus, *values: JsonValue, n: int | None = None, **options: object) -> ConsensusEngine:
    """An engine that has heard one voter for each value, asked of `n`."""
    engine = ConsensusEngine(method=method, electorate=n or len(values), **options)  # type: ignore[arg-type]
    for i, value in enumerate(values):
        engine.add(vote(f"v{i}", (value, 1.0)))
    return engine


@pytest.mark.parametrize(
    ("method", "values", "outcome", "value"),
    [
        (MAJORITY, "aab", AGREED, "a"),
        (MAJORITY, "aabb", TIE, None),
        (MAJORITY, "aabc", NO_QUORUM, None),
        (MAJORITY, "abc", TIE, None),
        (QUORUM, "aab", AGREED, "a"),
        (QUORUM, "aabc", NO_QUORUM, None),
        (UNANIMOUS, "aaa", AGREED, "a"),
        (UNANIMOUS, "aab", NO_QUORUM, None),
        (UNANIMOUS, "abc", NO_QUORUM, None),
        (WEIGHTED, "aabc", AGREED, "a"),
        (WEIGHTED, "abc", TIE, None),
    ],
)
def test_each_method_has_its_own_bar(method: Consensus, values: str, outcome: Outcome, value: str | None) -> None:
    decision = poll(method, *values).close()
    assert (decision.outcome, decision.value) == (outcome, value)


@pytest.mark.parametrize(
    ("threshold", "n", "enough"), [(None, 100, 51), (0.07, 100, 7), (0.29, 100, 29), (2 / 3, 3, 2), (1.0, 3, 3)]
)
def test_a_quorum_is_rounded_up_from_the_decimal_that_was_written(threshold: float | None, n: int, enough: int) -> None:
    assert poll(QUORUM, *"a" * (enough - 1), n=n, threshold=threshold).close().outcome is NO_QUORUM
    assert poll(QUORUM, *"a" * enough, n=n, threshold=threshold).close().outcome is AGREED


def test_a_low_quorum_still_needs_a_sole_leader() -> None:
    assert poll(QUORUM, *"aabb", threshold=0.25).close().outcome is TIE
    assert poll(QUORUM, *"aaabb", threshold=0.25).close().value == "a"


def test_a_majority_is_decided_when_it_is_reached() -> None:
    engine = ConsensusEngine(method=MAJORITY, electorate=5)
    assert [engine.add(vote(f"v{i}", ("a", 0.0))) is None for i in range(4)] == [True, True, False, True]
    assert engine.decision is not None
    assert engine.decision.counted == 3
    assert engine.decision.explanation == "3 of 5 agreed (majority needs 3); 2 voters not heard"


def test_one_dissent_or_one_failure_ends_the_hope_of_unanimity() -> None:
    assert poll(UNANIMOUS, "a", "b", n=9).decision is not None
    assert ConsensusEngine(method=UNANIMOUS, electorate=9).add(vote("v0")) is not None


def test_without_early_stop_every_vote_is_heard() -> None:
    assert poll(MAJORITY, *"aaaa", n=5, early_stop=False).decision is None
    assert poll(MAJORITY, *"aaaaa", early_stop=False).decision is not None


def test_a_failed_voter_stays_in_the_electorate() -> None:
    engine = poll(MAJORITY, "a", n=4, early_stop=False)
    engine.add(vote("v8"))
    engine.add(vote("v9"))
    engine.add(Vote(voter="v7", failure=FailureKind.RAISED))
    decision = engine.close()
    assert (decision.outcome, decision.electorate, decision.counted) == (NO_QUORUM, 4, 1)
    assert decision.support == 0.25
    assert decision.explanation == "only 1 of 4 agreed (majority needs 3); 3 voters failed: raised, timeout (2)"


def test_silence_is_no_quorum() -> None:
    decision = ConsensusEngine(method=WEIGHTED, electorate=2).close()
    assert (decision.outcome, decision.support, decision.counted) == (NO_QUORUM, 0.0, 0)
    assert decision.explanation == "no value has any weight; 2 voters not heard"


def test_a_tie_says_between_how_many() -> None:
    assert poll(MAJORITY, *"ab").close().explanation == "tie between 2 values with 1 vote each"
    assert poll(WEIGHTED, *"aabbc").close().explanation == "tie between 2 values with weight 2 each"


def test_score_voting_finds_the_value_that_all_can_accept() -> None:
    engine = ConsensusEngine(method=WEIGHTED, electorate=3)
    engine.add(vote("v0", ("left", 0.9), ("middle", 0.8)))
    engine.add(vote("v1", ("right", 0.9), ("middle", 0.8)))
    decision = engine.add(vote("v2", ("middle", 0.7)))
    assert decision is not None
    assert decision.value == "middle"
    assert decision.support == pytest.approx(2.3 / 3)
    assert decision.explanation == "the winner has weight 2.3 of 3, the next has 0.9"


def test_a_voter_cannot_stuff_its_ballot() -> None:
    engine = ConsensusEngine(method=WEIGHTED, electorate=2)
    engine.add(vote("v0", (1, 0.3), (1.0, 0.4), (1, 0.4), (1, 0.1)))
    decision = engine.add(vote("v1", (2, 0.5)))
    assert decision is not None
    assert decision.value == 2
    assert [c.weight for c in engine.candidates] == [0.5, 0.4]


def test_a_voter_cannot_stuff_its_ballot_with_neighbours_either() -> None:
    near = Equality(kind=EqualityKind.NUMERIC, tolerance=0.5)
    engine = ConsensusEngine(method=WEIGHTED, electorate=2, equality=near)
    engine.add(vote("v0", (1, 0.4), (1.1, 0.4), (1.2, 0.4)))
    decision = engine.add(vote("v1", (2, 0.5)))
    assert decision is not None
    assert decision.value == 2


def test_replies_without_any_confidence_are_no_quorum() -> None:
    engine = ConsensusEngine(method=WEIGHTED, electorate=2)
    engine.add(vote("v0", ("a", 0.0)))
    decision = engine.add(vote("v1", ("b", 0.0)))
    assert decision is not None
    assert (decision.outcome, decision.counted) == (NO_QUORUM, 2)


def test_the_order_of_adding_confidences_cannot_matter() -> None:
    left = [vote(f"v{i}", ("a", c)) for i, c in enumerate((0.1, 0.2, 0.3))]
    right = [vote(f"w{i}", ("b", c)) for i, c in enumerate((0.3, 0.2, 0.1))]
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    engine = ConsensusEngine(method=WEIGHTED, electorate=6)
    for v in left + right:
        engine.add(v)
    assert engine.close().outcome is TIE


def test_alternatives_count_only_when_weighted() -> None:
    for method, winner in [(MAJORITY, "a"), (WEIGHTED, "b")]:
        engine = ConsensusEngine(method=method, electorate=3)
        for v in [vote("v0", ("a", 1.0), ("b", 1.0)), vote("v1", ("b", 1.0)), vote("v2", ("a", 0.1))]:
            engine.add(v)
        assert engine.close().value == winner


def test_the_first_vote_of_a_voter_counts() -> None:
    engine = ConsensusEngine(method=MAJORITY, electorate=3)
    for value in "abbb":
        assert engine.add(vote("v0", (value, 1.0))) is None
    assert [(c.value, c.weight, c.voters) for c in engine.candidates] == [("a", 1.0, ("v0",))]


def test_more_voters_than_were_asked_is_an_error() -> None:
    engine = poll(MAJORITY, "a", "b")
    assert engine.add(vote("v1", ("a", 1.0))) is None
    with pytest.raises(SwarmError, match="all 2 voters"):
        engine.add(vote("v2", ("a", 1.0)))


@pytest.mark.parametrize("method", Consensus)
@pytest.mark.parametrize("value", [True, "three", None, float("nan")])
def test_a_reply_that_cannot_be_compared_changes_nothing(method: Consensus, value: JsonValue) -> None:
    engine = ConsensusEngine(method=method, electorate=2, equality=Equality(kind=EqualityKind.NUMERIC))
    engine.add(vote("v0", (3, 1.0)))
    before = engine.candidates
    with pytest.raises(ReplyError):
        engine.add(vote("v1", (value, 1.0), (3, 1.0)))
    assert (engine.candidates, engine.decision) == (before, None)
    decision = engine.add(vote("v1", ("3.0", 1.0)))
    assert decision is not None
    assert decision.value == 3


def test_an_alternative_that_cannot_be_compared_spoils_a_weighted_reply_whole() -> None:
    engine = ConsensusEngine(method=WEIGHTED, electorate=2, equality=Equality(kind=EqualityKind.NUMERIC))
    with pytest.raises(ReplyError):
        engine.add(vote("v0", (3, 1.0), ("three", 1.0)))
    assert engine.candidates == ()


def test_votes_after_the_decision_are_for_the_record() -> None:
    engine = poll(MAJORITY, *"aa", n=3)
    decision = engine.decision
    assert engine.add(vote("v2", ("b", 1.0))) is None
    assert engine.decision == engine.close() == decision
    assert [(c.value, c.voters) for c in engine.candidates] == [("a", ("v0", "v1")), ("b", ("v2",))]


def test_candidates_of_equal_weight_have_a_fixed_order() -> None:
    assert [c.value for c in poll(MAJORITY, "b", "c", "a").candidates] == ["a", "b", "c"]
    numeric = Equality(kind=EqualityKind.NUMERIC)
    assert [c.value for c in poll(MAJORITY, 10, 9, -1, equality=numeric).candidates] == [-1, 9, 10]


def test_the_decided_value_is_canonical_whoever_replied_first() -> None:
    text = Equality(kind=EqualityKind.TEXT)
    for spellings in itertools.permutations(["The  Answer", "the answer", " THE ANSWER "]):
        assert poll(MAJORITY, *spellings, equality=text).close().value == "the answer"


def test_a_tolerance_joins_neighbours_under_the_heaviest_number() -> None:
    near = Equality(kind=EqualityKind.NUMERIC, tolerance=0.1)
    assert poll(MAJORITY, 3.05, 3.1, 3.1, 3.2, 4, equality=near, early_stop=False).close().value == 3.1
    assert poll(MAJORITY, 0.3, 0.2, equality=near).close().value == 0.2
    assert poll(MAJORITY, 2**53, 2**53 + 1, equality=near).close().outcome is TIE


def test_with_a_tolerance_a_number_that_needs_no_neighbours_is_decided_early() -> None:
    near = Equality(kind=EqualityKind.NUMERIC, tolerance=0.1)
    assert poll(MAJORITY, 1, 1, 1, n=5, equality=near).decision is not None
    assert poll(MAJORITY, 1, 1.05, 1.1, n=5, equality=near).decision is None
    assert poll(MAJORITY, 1, 1, 1.1, n=4, equality=near).decision is None
    assert poll(UNANIMOUS, 1, 1.3, n=5, equality=near).decision is not None
    assert poll(UNANIMOUS, 1, 1.2, n=5, equality=near).decision is None
    assert ConsensusEngine(method=UNANIMOUS, electorate=5, equality=near).add(vote("v0")) is not None


def test_with_a_tolerance_neighbours_help_a_number_that_none_can_displace() -> None:
    engine = poll(MAJORITY, 1, 1, 1, 1.1, n=7, equality=Equality(kind=EqualityKind.NUMERIC, tolerance=0.1))
    assert engine.add(vote("v8")) is None
    decision = engine.add(vote("v9"))
    assert decision is not None
    assert decision.value == 1
    assert decision.explanation == "4 of 7 agreed (majority needs 4); 2 voters failed: timeout; 1 voter not heard"


def test_with_a_tolerance_the_others_may_still_gather_to_a_tie() -> None:
    near = Equality(kind=EqualityKind.NUMERIC, tolerance=1.0)
    engine = poll(QUORUM, 1, 1, 1, 1, 10, 10, 10.5, n=8, threshold=0.4, equality=near)
    assert engine.decision is None
    decision = engine.add(vote("v9", (10, 1.0)))
    assert decision is not None
    assert decision.outcome is TIE


@pytest.mark.parametrize(
    ("method", "electorate", "threshold"),
    [(MAJORITY, 0, None), (MAJORITY, 3, 0.5), (QUORUM, 3, 0.0), (QUORUM, 3, 1.01), (QUORUM, 3, float("nan"))],
)
def test_a_vote_that_makes_no_sense_is_refused(method: Consensus, electorate: int, threshold: float | None) -> None:
    with pytest.raises(InputError):
        ConsensusEngine(method=method, electorate=electorate, threshold=threshold)


def heard(votes: list[str], certainty: float, method: Consensus = Consensus.MAJORITY) -> tuple[int, Decision]:
    """How many of these votes were heard before the decision, and the decision."""
    engine = ConsensusEngine(method=method, electorate=len(votes), certainty=certainty)
    for count, value in enumerate(votes, start=1):
        if decision := engine.add(Vote(voter=f"v{count}", reply=Reply(value=value))):
            return count, decision
    raise AssertionError("a complete vote decides")


def test_a_certainty_below_one_hears_fewer_and_is_hardly_ever_wrong() -> None:
    chance = random.Random(7)
    calls = sure = wrong = 0
    for _ in range(1_000):
        votes = [chance.choices("ab", (8, 2))[0] for _ in range(16)]
        calls += (early := heard(votes, 0.99))[0]
        sure += (full := heard(votes, 1.0))[0]
        wrong += (early[1].outcome, early[1].value) != (full[1].outcome, full[1].value)
    assert calls <= 0.6 * 16 * 1_000, "16 voters of whom 80 % agree: at least 40 % of the calls are saved"
    assert sure > 0.65 * 16 * 1_000, "a stop that is never wrong cannot save so much"
    assert wrong <= 10, "99 % certain"


def test_what_is_wanted_is_what_a_decision_takes_at_least() -> None:
    engine = ConsensusEngine(method=Consensus.MAJORITY, electorate=16)
    assert engine.wanted() == 9
    engine.add(Vote(voter="a", reply=Reply(value="x")))
    assert engine.wanted() == 8
    engine.add(Vote(voter="b", failure=FailureKind.RAISED))
    assert engine.wanted() == 8
    assert ConsensusEngine(method=Consensus.MAJORITY, electorate=16, early_stop=False).wanted() == 16
    assert ConsensusEngine(method=Consensus.UNANIMOUS, electorate=4).wanted() == 4


@pytest.mark.parametrize("method", list(Consensus))
@pytest.mark.parametrize("seed", range(20))
def test_never_less_is_wanted_than_was_heard_in_the_end(method: Consensus, seed: int) -> None:
    chance = random.Random(seed)
    engine = ConsensusEngine(method=method, electorate=9)
    for n in range(9):
        wanted = engine.wanted()
        assert 1 <= wanted <= 9 - n
        decision = engine.add(Vote(voter=f"v{n}", reply=Reply(value=chance.choice("abc"), confidence=chance.random())))
        if decision is not None:
            assert wanted == 1 or not decision.agreed
            return
