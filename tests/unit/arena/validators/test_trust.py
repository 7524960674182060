"""Trust: with honest holders of most of the stake, no consensus goes against them, and lies weigh nothing or little."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.validators import trust
from chimera.arena.validators.merged import LOSS, MILLION, TIE, WIN, Tally
from chimera.arena.validators.trust import (
    FLOOR_PPM,
    ODDS,
    Bits,
    agreements,
    at_odds,
    majority,
    quorate,
    reach,
    set_aside,
    settle,
    weigh,
)

BITS = st.tuples(st.booleans(), st.booleans())
TALLIES = st.builds(Tally, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, int], set[str]]:
    """Stakes, and who is honest: holders of more than half of it."""
    honest = {f"h{n}": draw(st.integers(1, 100)) for n in range(draw(st.integers(2, 5)))}
    left = sum(honest.values()) - 1
    others = {}
    for n in range(draw(st.integers(0, 5))):
        others[f"x{n}"] = draw(st.integers(0, left))
        left -= others[f"x{n}"]
    return {**honest, **others}, set(honest)


def far_exactly(a: int, n: int, b: int, m: int) -> bool:
    """Fisher's test from its definition."""
    if a * m < b * n:
        a, n, b, m = b, m, a, n
    ways = sum(math.comb(n, k) * math.comb(m, a + b - k) for k in range(a, min(n, a + b) + 1))
    return Fraction(ways, math.comb(n + m, a + b)) < Fraction(1, ODDS)


def test_a_majority_is_more_than_half_of_all_the_weight_and_not_of_those_who_voted() -> None:
    weights = {"a": 1, "b": 1, "c": 2}
    assert majority({"a": True, "b": True, "c": False}, weights, 4) is None
    assert majority({"a": True, "c": True}, weights, 4) is True
    assert majority({"a": False, "c": False}, weights, 6) is None


@given(networks(), st.data())
def test_whatever_the_others_say_the_honest_majority_agrees_with_every_consensus(
    network: tuple[dict[str, int], set[str]], data: st.DataObject
) -> None:
    stakes, honest = network
    shared: list[dict[str, Bits]] = []
    for _ in range(data.draw(st.integers(1, 8))):
        truth = data.draw(BITS)
        absent = data.draw(st.sets(st.sampled_from(sorted(stakes))))
        votes = {name: truth if name in honest else data.draw(BITS) for name in stakes if name not in absent}
        shared.append(votes)
    found = agreements(shared, stakes)
    for name in honest:
        assert found[name].agreed == found[name].compared
        assert found[name].trust_ppm in (0, MILLION)
    if all(honest <= votes.keys() for votes in shared):
        assert all(found[name].compared == 2 * len(shared) for name in honest)


def test_trust_is_the_share_agreed_and_nothing_under_the_floor() -> None:
    stakes = dict.fromkeys("abc", 1)
    for right in range(21):
        shared: list[dict[str, Bits]] = [
            {"a": (True, True), "b": (True, True), "c": (n < right, n < right)} for n in range(20)
        ]
        share = right * MILLION // 20
        assert agreements(shared, stakes)["c"].trust_ppm == (share if share >= FLOOR_PPM else 0)


def test_nobody_is_trusted_for_challenges_that_too_few_others_met() -> None:
    stakes = dict.fromkeys("abcde", 1)
    few: list[dict[str, Bits]] = [{"a": (True, False), "b": (True, False)}]
    assert {agreement.trust_ppm for agreement in agreements(few, stakes).values()} == {0}
    assert agreements([{"a": (True, False)}], {"a": 9, "b": 1})["a"].trust_ppm == 0  # a whale with nobody beside it
    assert agreements([], {"a": 1})["a"].trust_ppm == MILLION  # who is alone


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_being_at_odds_is_fishers_exact_test(wins: int, rest: int, wins_there: int, rest_there: int) -> None:
    here, there = Tally(wins, 0, rest), Tally(wins_there, 0, rest_there)
    assert at_odds(here, there) is far_exactly(wins, wins + rest, wins_there, wins_there + rest_there)
    assert at_odds(here, there) is at_odds(there, here)


def test_the_screen_before_the_exact_test_never_decides_otherwise() -> None:
    rng = random.Random(4)
    decided = 0
    for _ in range(4_000):
        n, m = rng.choice([3, 20, 200, 900]), rng.choice([3, 20, 200, 900])
        a, b = rng.randint(0, rng.choice([5, n])), rng.randint(0, rng.choice([5, m]))
        exact = far_exactly(min(a, n), n, min(b, m), m)
        decided += exact
        assert at_odds(Tally(0, min(a, n), n - min(a, n)), Tally(0, min(b, m), m - min(b, m))) is exact
    assert 500 < decided < 3_500


def test_honest_validators_are_hardly_ever_at_odds() -> None:
    rng = random.Random(7)

    def tally(n: int) -> Tally:
        drawn = [rng.random() for _ in range(n)]
        wins, losses = sum(each < 0.34 for each in drawn), sum(each > 0.91 for each in drawn)
        return Tally(wins, losses, n - wins - losses)

    assert not any(at_odds(tally(rng.choice([5, 50, 300])), tally(300)) for _ in range(2_000))


def test_of_many_samples_one_more_decides_as_it_does_in_the_exact_test() -> None:
    n, found = 3_000, []
    for gap in range(170, 200, 2):
        high, low = (n + gap) // 2, (n - gap) // 2
        term = math.comb(n, high) * math.comb(n, low)
        tail = 0
        for k in range(high, n + 1):
            tail += term
            term = term * (n - k) * (n - k) // ((k + 1) * (k + 1))
        found.append(at_odds(Tally(high, 0, n - high), Tally(low, 0, n - low)))
        assert found[-1] is (tail * ODDS < math.comb(2 * n, n))
    assert found == sorted(found)
    assert set(found) == {False, True}


@given(networks(), st.data())
def test_liars_with_less_than_half_of_the_stake_set_nobody_aside(
    network: tuple[dict[str, int], set[str]], data: st.DataObject
) -> None:
    stakes, honest = network
    tallies = {name: Tally(30, 10, 60) if name in honest else data.draw(TALLIES) for name in stakes}
    found = set_aside(tallies, stakes)
    assert not honest & found
    assert found == set_aside(dict(reversed(tallies.items())), stakes)


@given(networks(), st.data())
def test_who_is_set_aside_is_at_odds_with_more_than_half_of_all_the_stake(
    network: tuple[dict[str, int], set[str]], data: st.DataObject
) -> None:
    stakes, _ = network
    rates = st.sampled_from([Tally(5, 50, 5), Tally(30, 10, 20), Tally(55, 3, 2), Tally(20, 20, 20)])
    tallies = {name: data.draw(rates) for name in data.draw(st.sets(st.sampled_from(sorted(stakes))))}
    against = {
        name: sum(stakes[other] for other in tallies if at_odds(tallies[name], tallies[other])) for name in tallies
    }
    assert set_aside(tallies, stakes) == {name for name in tallies if 2 * against[name] > sum(stakes.values())}


def test_each_two_tallies_are_compared_once_and_no_longer_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Tally, Tally]] = []

    def counting(a: Tally, b: Tally) -> bool:
        asked.append((a, b))
        return at_odds(a, b)

    monkeypatch.setattr(trust, "at_odds", counting)
    tallies = {f"v{number:02}": Tally(100 + number, 100 - number) for number in range(20)}
    stakes = dict.fromkeys(tallies, 1)
    assert not set_aside(tallies, stakes)
    assert len(asked) == len(set(asked)) <= 20 * 19 // 2
    asked.clear()
    assert not set_aside(tallies, {**stakes, "absent": 30})
    assert not asked  # all of them are not half of the stake


def test_who_lies_about_its_own_challenges_is_at_odds_with_the_majority() -> None:
    tallies = {"a": Tally(20, 5, 35), "b": Tally(17, 6, 37), "c": Tally(22, 4, 34), "liar": Tally(2, 40, 18)}
    stakes = dict.fromkeys(tallies, 1)
    assert set_aside(tallies, stakes) == {"liar"}
    assert not set_aside(tallies, {**stakes, "liar": 3})  # three of six is no more than half


def test_a_validator_that_few_can_be_compared_with_is_not_set_aside_by_them() -> None:
    tallies = {"honest": Tally(200, 50, 350), "liar": Tally(20, 400, 180)}
    assert not set_aside(tallies, {"honest": 2, "liar": 3, "c": 2, "d": 2})


def test_two_thirds_of_the_stake_are_enough_for_a_miner_and_less_is_not() -> None:
    assert [quorate(held, 9) for held in (0, 5, 6, 9)] == [False, False, True, True]
    assert not quorate(0, 0)
    tallies, trusted = dict.fromkeys("abc", Tally(8, 2)), dict.fromkeys("abc", MILLION)
    for stake, counts in ((2, True), (1, False)):
        stakes = {"a": stake, "b": 0 + stake, "c": 2}
        assert bool(weigh(tallies, trusted, stakes, aside={"c"})) is counts
        assert bool(weigh(tallies, {**trusted, "c": 0}, stakes)) is counts
        votes = {"a": (False, True), "b": (False, True), "c": (True, False)}
        assert bool(settle(votes, trusted, stakes, sum(stakes.values()))) is counts


def test_who_takes_no_part_is_not_heard() -> None:
    stakes = dict.fromkeys("abc", 1)
    votes: dict[str, Bits] = {"a": (True, True), "b": (True, True), "stranger": (False, False)}
    assert agreements([votes], stakes)["a"].trust_ppm == MILLION
    assert not agreements([{"a": (True, True), "stranger": (True, True)}], stakes)["a"].compared
    tallies = {"a": Tally(40, 5, 15), "b": Tally(38, 6, 16), "stranger": Tally(0, 60, 0)}
    assert not set_aside(tallies, stakes)


def test_what_is_reached_is_what_more_than_half_of_the_stake_has_sampled() -> None:
    assert reach([(1, 10), (1, 20), (1, 900)], 3) == 20
    assert reach([(1, 10), (1, 900)], 2) == 10
    assert reach([(3, 900), (1, 5), (1, 5)], 5) == 900
    assert reach([(1, 900), (1, 0), (1, 0)], 3) == 0
    assert reach([], 0) == 0


@given(networks(), st.data())
def test_nobody_weighs_more_than_an_honest_validator_of_its_stake_could(
    network: tuple[dict[str, int], set[str]], data: st.DataObject
) -> None:
    stakes, honest = network
    tallies = {name: data.draw(TALLIES) for name in stakes}
    trusted = {name: data.draw(st.integers(FLOOR_PPM, MILLION)) for name in stakes}
    weights = weigh(tallies, trusted, stakes)
    most = max(tallies[name].total for name in honest)
    greatest = max((stakes[name] for name in stakes if tallies[name].total), default=1)
    for name, weight_ppm in weights.items():
        assert 0 < weight_ppm <= trusted[name]
        assert weight_ppm * tallies[name].total * greatest <= most * MILLION * stakes[name]


@given(st.integers(2, 6), st.integers(1, 10**15))
def test_equal_stakes_weigh_alike_and_exactly(number: int, stake: int) -> None:
    names = [f"v{n}" for n in range(number)]
    tallies = {name: Tally(n, 40 - n) for n, name in enumerate(names)}
    found = weigh(tallies, dict.fromkeys(names, MILLION), dict.fromkeys(names, stake))
    assert found == dict.fromkeys(names, MILLION)


def test_an_own_sample_weighs_by_stake_and_next_to_none_weighs_nothing() -> None:
    stakes = {"a": 4 * 10**15, "b": 10**15, "dust": 10**9, "none": 0}
    found = weigh(dict.fromkeys(stakes, Tally(10, 10)), dict.fromkeys(stakes, MILLION), stakes)
    assert found == {"a": MILLION, "b": MILLION // 4}


def test_no_miner_is_crowned_by_a_few_who_alone_have_sampled_it() -> None:
    trusted = dict.fromkeys("abc", MILLION)
    assert weigh({"a": Tally(500)}, trusted, dict.fromkeys("abc", 1)) == {}
    assert weigh({"a": Tally(500)}, {"a": MILLION}, {"a": 1}) == {"a": MILLION}


def test_a_flood_weighs_as_much_as_what_the_majority_has_sampled() -> None:
    tallies = {"a": Tally(10, 10), "b": Tally(10, 10), "flood": Tally(2_000)}
    weights = weigh(tallies, dict.fromkeys(tallies, MILLION), dict.fromkeys(tallies, 1))
    assert weights == {"a": MILLION, "b": MILLION, "flood": MILLION // 100}


def test_a_shared_challenge_has_one_outcome_however_many_met_it() -> None:
    stakes, trusted = dict.fromkeys("abc", 1), {"a": MILLION, "b": 900_000, "c": 700_000}
    assert settle(dict.fromkeys("abc", (False, True)), trusted, stakes, 3) == (WIN, MILLION)
    assert settle({"a": (False, True), "b": (True, False), "c": (True, False)}, trusted, stakes, 3) == (LOSS, 900_000)
    assert settle({"a": (True, True), "b": (False, False)}, trusted, stakes, 3) == (TIE, MILLION)
    assert settle({"a": (False, True)}, trusted, stakes, 3) is None
    strangers: dict[str, Bits] = {"x": (True, False), "a": (False, True), "y": (False, True)}
    assert settle(strangers, {"a": MILLION, "y": 0}, {"a": 9, "x": 50, "y": 1}, 10) == (WIN, MILLION)


@pytest.mark.parametrize("votes", [{}, {"x": (True, False)}])
def test_who_is_not_trusted_settles_nothing(votes: dict[str, Bits]) -> None:
    assert settle(votes, {"x": 0}, {"x": 1}, 0) is None
