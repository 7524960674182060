"""Boundaries and exact chances, against a search of all counts and against all walks written out one by one."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.duel.exits import Exits, Side, exits, trace
from chimera.arena.duel.rules import StoppingRule, make_rule
from chimera.arena.duel.types import RuleName

names = st.sampled_from(("wilson", "calibrated", "mixture"))
ratios = st.floats(0.02, 0.98)


def rules(*, most: int) -> st.SearchStrategy[StoppingRule]:
    return st.builds(
        make_rule, names, p0=ratios, budget=st.integers(1, most), alpha=st.sampled_from((0.01, 0.05, 0.2, 0.49))
    )


@given(rules(most=60))
def test_a_boundary_is_where_the_rule_stops_and_nowhere_else(rule: StoppingRule) -> None:
    boundary = rule.boundary()
    assert boundary.budget == rule.budget
    for n in range(rule.budget + 1):
        for wins in range(n + 1):
            side = "contender" if wins >= boundary.contender[n] else None
            side = "champion" if wins <= boundary.champion[n] else side
            assert rule.decide(wins, n) == side


@pytest.mark.parametrize("name", ["wilson", "calibrated", "mixture"])
@pytest.mark.parametrize("p0", [0.51, 0.75])
def test_a_long_boundary_is_exact_where_it_matters(name: RuleName, p0: float) -> None:
    rule = make_rule(name, p0=p0, budget=3_000)
    boundary = rule.boundary()
    for n in range(1, rule.budget + 1, 7):
        fewest, most = int(boundary.contender[n]), int(boundary.champion[n])
        assert rule.decide(fewest - 1, n) != "contender"
        assert fewest > n or rule.decide(fewest, n) == "contender"
        assert rule.decide(most + 1, n) != "champion"
        assert most < 0 or rule.decide(most, n) == "champion"


def every_walk(rule: StoppingRule, p: float) -> Exits:
    """What `exits` says, by writing out all 2^budget duels."""
    chances: dict[Side | None, float] = {"contender": 0.0, "champion": 0.0, None: 0.0}
    samples = 0.0
    for walk in itertools.product((0, 1), repeat=rule.budget):
        wins, length, side = 0, rule.budget, None
        for n, won in enumerate(walk, start=1):
            wins += won
            side = rule.decide(wins, n)
            if side is not None:
                length = n
                break
        chance = p ** sum(walk) * (1 - p) ** (rule.budget - sum(walk))
        chances[side] += chance
        samples += length * chance
    return Exits(contender=chances["contender"], champion=chances["champion"], samples=samples)


@given(rules(most=10), st.floats(0.0, 1.0))
def test_chances_are_those_of_all_walks(rule: StoppingRule, p: float) -> None:
    found, expected = rule.exits(p), every_walk(rule, p)
    assert found.contender == pytest.approx(expected.contender, abs=1e-12)
    assert found.champion == pytest.approx(expected.champion, abs=1e-12)
    assert found.samples == pytest.approx(expected.samples, abs=1e-9)


def test_a_walk_that_always_stops_leaves_nothing() -> None:
    found = exits(trace(lambda wins, n: "contender" if wins else "champion", 5), 0.3)
    assert (found.contender, found.champion, found.samples) == pytest.approx((0.3, 0.7, 1.0))
    assert found.inconclusive == pytest.approx(0.0, abs=1e-15)


def test_a_walk_that_never_stops_lasts_its_budget() -> None:
    found = exits(trace(lambda _wins, _n: None, 7), 0.3)
    assert (found.contender, found.champion, found.inconclusive) == (0.0, 0.0, 1.0)
    assert math.isclose(found.samples, 7.0)


def test_a_boundary_is_not_changed_by_whoever_looks() -> None:
    boundary = make_rule("wilson", p0=0.51, budget=10).boundary()
    with pytest.raises(ValueError, match="read-only"):
        boundary.contender[3] = 0


@given(rules(most=150), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_better_contender_wins_more_often_and_is_held_less_often(rule: StoppingRule, a: float, b: float) -> None:
    worse, better = rule.exits(min(a, b)), rule.exits(max(a, b))
    assert worse.contender <= better.contender + 1e-12
    assert worse.champion >= better.champion - 1e-12
