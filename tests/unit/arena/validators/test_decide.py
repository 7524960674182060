"""The global duel over counts: equal trust counts exactly, unequal trust counts less, and the winner takes all."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.arena.duel.ratchet import Ratchet
from chimera.arena.duel.rules import make_rule
from chimera.arena.validators.decide import Terms, decide, effective
from chimera.arena.validators.merged import MILLION, Merged, OwnCount, SharedCount, Tally
from chimera.arena.validators.throne import Ruling, Throne
from chimera.core.errors import InputError
from tests.unit.arena.validators.adversaries import hotkey

THRONE = Throne(champion="old", since_s=100)
ONE = Terms(env_ids=("mult8-v0",), budget=200)
COUNTS = st.builds(Tally, st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
WEIGHTS = st.integers(1, MILLION)


def own(
    tally: tuple[int, int, int],
    *,
    contender: str = "new",
    env_id: str = "mult8-v0",
    by: str = "A",
    weight: int = MILLION,
) -> OwnCount:
    wins, losses, ties = tally
    return OwnCount(
        env_id=env_id,
        champion="old",
        contender=contender,
        wins=wins,
        losses=losses,
        ties=ties,
        weight_ppm=weight,
        hotkey=hotkey(by),
    )


def merged(*counts: OwnCount | SharedCount) -> Merged:
    return Merged(
        standings=(),
        offences=(),
        unread=(),
        own=tuple(count for count in counts if isinstance(count, OwnCount)),
        shared=tuple(count for count in counts if isinstance(count, SharedCount)),
    )


def rule(*counts: OwnCount | SharedCount, terms: Terms = ONE, throne: Throne = THRONE, p0: float = 0.51) -> Ruling:
    return decide(merged(*counts), throne, terms, p0=p0, now_s=500)


@given(st.lists(COUNTS, max_size=6), WEIGHTS)
def test_equal_weights_count_exactly(tallies: list[Tally], weight: int) -> None:
    total = Tally()
    for tally in tallies:
        total = total.plus(tally)
    assert effective([(weight, tally) for tally in tallies]) == total


@given(st.lists(st.tuples(WEIGHTS, COUNTS), min_size=1, max_size=6))
def test_unequal_weights_are_never_worth_more_than_the_samples_there_are(parts: list[tuple[int, Tally]]) -> None:
    found = effective(parts)
    assert found.decisive <= sum(tally.decisive for _, tally in parts)
    assert found.ties <= sum(tally.ties for _, tally in parts)
    weighed = sum(weight * tally.decisive for weight, tally in parts)
    if weighed:
        share = Fraction(sum(weight * tally.wins for weight, tally in parts), weighed)
        assert found.wins <= share * found.decisive < found.wins + 1
    assert found == effective(reversed(parts))


def test_effective_counts_are_kishs() -> None:
    # sum w = 10 * 1 + 10 * 0.5 = 15, sum w^2 = 12.5: 18 samples; two thirds of them at the first's rate, 12 wins
    assert effective([(MILLION, Tally(10)), (MILLION // 2, Tally(0, 10))]) == Tally(12, 6, 0)
    assert effective([(0, Tally(50)), (MILLION, Tally(1, 2, 3))]) == Tally(1, 2, 3)


def test_with_no_evidence_the_champion_stays() -> None:
    ruling = rule()
    assert (ruling.winner, ruling.duels, ruling.win_rates) == ("old", (), ())
    assert THRONE.after(ruling) == THRONE.model_copy(update={"round": 1})


def test_evidence_of_other_duels_decides_nothing() -> None:
    other = own((90, 0, 0)).model_copy(update={"champion": "somebody"})
    ruling = rule(other, own((90, 0, 0), env_id="subset-v0"))
    assert (ruling.winner, ruling.duels) == ("old", ())


def test_a_contender_that_wins_takes_the_throne_and_all_the_weight() -> None:
    ruling = rule(own((60, 20, 30)))
    assert ruling.winner == "new"
    assert ruling.weights(["old", "new", "third"]) == {"new": 1.0, "old": 0.0, "third": 0.0}
    (duel,) = ruling.duels[0].duels
    assert (duel.wins, duel.losses, duel.ties, duel.decision) == (60, 20, 30, "contender")
    assert duel.rule == make_rule("calibrated", p0=0.51, budget=200).record()


def test_the_union_decides_what_no_validator_could_alone() -> None:
    parts = [own((14, 6, 5), by=name) for name in "ABCD"]
    assert all(rule(part).winner == "old" for part in parts)
    assert rule(*parts).winner == "new"


def test_shared_challenges_tell_whom_to_trust_and_are_not_counted() -> None:
    shared = SharedCount(
        env_id="mult8-v0", champion="old", contender="new", wins=90, losses=0, ties=0, weight_ppm=MILLION
    )
    assert rule(shared).winner == "old"
    assert rule(own((14, 6, 0)), shared) == rule(own((14, 6, 0)))


def test_many_contenders_share_one_chance_of_error() -> None:
    found = merged(own((45, 20, 0)))
    few, many = (
        decide(found, THRONE, ONE, p0=0.51, now_s=1, miners=["old", "new", *crowd])
        for crowd in ([], [f"copy{i}" for i in range(200)])
    )
    assert (few.winner, many.winner) == ("new", "old")
    record = many.duels[0].duels[0].rule
    assert 201 * (record.error_contender + record.error_champion) <= ONE.alpha


def test_little_trust_is_little_evidence() -> None:
    for_it, against = own((80, 0, 0), weight=10_000), own((20, 30, 0), by="B")
    assert rule(for_it).winner == "new"
    assert rule(for_it, against).winner == "old"


def test_more_samples_than_the_budget_count_as_the_budget() -> None:
    (duel,) = rule(own((3_000, 1_000, 0))).duels[0].duels
    assert (duel.wins, duel.losses) == (150, 50)


def test_the_ratio_to_beat_is_the_one_handed_in() -> None:
    assert rule(own((60, 20, 0)), p0=0.51).winner == "new"
    assert rule(own((60, 20, 0)), p0=0.7).winner == "old"


def test_a_contender_must_win_enough_environments() -> None:
    terms = Terms(env_ids=("mult8-v0", "tictactoe-v0", "subset-v0"), budget=200)
    wins = [own((60, 10, 0), env_id=env_id) for env_id in terms.env_ids]
    assert rule(*wins[:1], terms=terms).winner == "old"
    ruling = rule(*wins[:2], terms=terms)
    assert ruling.winner == "new"
    assert ruling.win_rates == (60 / 70, 60 / 70)


def test_of_several_winners_the_better_one_and_of_equal_ones_the_lower_id() -> None:
    counts = [own((60, 20, 0), contender="b"), own((70, 10, 0), contender="c"), own((70, 10, 0), contender="d")]
    for seed in range(6):
        random.Random(seed).shuffle(counts)
        assert rule(*counts).winner == "c"


def test_who_is_better_is_the_geometric_mean_over_all_environments() -> None:
    terms = Terms(env_ids=("mult8-v0", "tictactoe-v0"), budget=200, k=0)
    lopsided = [own((99, 1, 0), contender="a"), own((26, 24, 0), contender="a", env_id="tictactoe-v0")]  # a higher mean
    steady = [own((60, 20, 0), contender="b"), own((60, 20, 0), contender="b", env_id="tictactoe-v0")]
    assert rule(*lopsided, terms=terms).winner == "a"
    assert rule(*lopsided, *steady, terms=terms).winner == "b"


def test_only_miners_of_the_subnet_can_win() -> None:
    counts = [own((70, 10, 0), contender="gone"), own((60, 20, 0), contender="new")]
    found = decide(merged(*counts), THRONE, ONE, p0=0.51, now_s=500, miners=["old", "new"])
    assert found.winner == "new"


def test_a_duel_that_has_ended_stays_as_it_was() -> None:
    ((first,),) = [result.duels for result in rule(own((60, 20, 0))).duels]
    counts = merged(own((60, 80, 0)))
    assert decide(counts, THRONE, ONE, p0=0.51, now_s=900).winner == "old"
    again = decide(counts, THRONE, ONE, p0=0.51, now_s=900, ended=[first])
    assert (again.winner, again.duels[0].duels) == ("new", (first,))
    assert decide(merged(), THRONE, ONE, p0=0.51, now_s=900, ended=[first]).winner == "new"


def test_the_next_reign_has_its_own_ratio_and_begins_when_it_was_decided() -> None:
    throne = THRONE.after(rule(own((60, 20, 30))))
    assert (throne.champion, throne.since_s, throne.round) == ("new", 500, 1)
    assert throne.ratchet == Ratchet().after_win([0.75], 500)
    assert Throne.model_validate_json(throne.model_dump_json()) == throne


def test_a_ruling_is_for_its_own_round_and_champion() -> None:
    ruling = rule(own((60, 20, 30)))
    for other in (Throne(champion="third"), Throne(champion="old", round=1)):
        with pytest.raises(InputError, match="round 0"):
            other.after(ruling)


def test_terms_that_make_no_rule_are_refused() -> None:
    with pytest.raises(InputError):
        rule(own((1, 1, 1)), p0=1.5)
    with pytest.raises(ValidationError):
        Terms(env_ids=())


def test_optional_stopping_does_not_deceive_the_union_more_often_than_the_rule_says() -> None:
    """Three validators stop as they please (here: when they are ahead); the union is looked at after every round."""
    rng = random.Random(11)
    p0, deceived, runs = 0.51, 0, 400
    calibrated = make_rule("calibrated", p0=p0, budget=200)
    for _ in range(runs):
        tallies = [Tally()] * 3
        for _ in range(10):
            for number in range(3):
                for _ in range(8):
                    if tallies[number].decisive >= 60:
                        break
                    tallies[number] = tallies[number].plus(Tally(1) if rng.random() < p0 else Tally(0, 1))
                    if tallies[number].wins > tallies[number].losses + 3:
                        break
            union = effective([(MILLION, tally) for tally in tallies])
            if union.decisive and calibrated.decide(union.wins, union.decisive) == "contender":
                deceived += 1
                break
    assert deceived / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
