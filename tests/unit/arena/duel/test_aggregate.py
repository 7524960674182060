"""Many duels, one throne: against a full count, in every order."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.duel.aggregate import MAX_ENVIRONMENTS, Aggregate, AggregateResult, needed, total
from chimera.arena.duel.rules import make_rule
from chimera.arena.duel.types import Decision, DuelResult
from chimera.core.errors import InputError

RULE = make_rule("wilson", p0=0.51, budget=50).record()

decisions: st.SearchStrategy[Decision] = st.sampled_from(("contender", "champion", "inconclusive"))


def ended(env_id: str, decision: Decision, *, wins: int = 9, losses: int = 1, contender: str = "b") -> DuelResult:
    return DuelResult(
        env_id=env_id,
        champion="a",
        contender=contender,
        decision=decision,
        wins=wins,
        losses=losses,
        ties=3,
        low=0.1,
        high=0.9,
        rule=RULE,
    )


@given(st.integers(1, MAX_ENVIRONMENTS), st.integers(0, 100))
def test_the_number_needed_is_the_formula(n: int, k: int) -> None:
    assert needed(n, k) == min(n, math.ceil(Fraction(n + k, 2 * n) * n))


def test_one_more_than_half_by_default() -> None:
    assert [needed(n) for n in range(1, 9)] == [1, 2, 2, 3, 3, 4, 4, 5]


@given(st.lists(decisions, min_size=1, max_size=6), st.integers(0, 4), st.randoms(use_true_random=False))
def test_a_decision_is_that_of_the_full_count_and_comes_as_soon_as_it_is_certain(
    verdicts: list[Decision], k: int, shuffle: random.Random
) -> None:
    env_ids = [f"env{at}-v0" for at in range(len(verdicts))]
    duels = [ended(*pair) for pair in zip(env_ids, verdicts, strict=True)]
    final = "contender" if verdicts.count("contender") >= needed(len(verdicts), k) else "champion"
    shuffle.shuffle(duels)
    aggregate = Aggregate(env_ids, k)
    for heard, duel in enumerate(duels, start=1):
        assert aggregate.result is None
        won = sum(each.decision == "contender" for each in duels[:heard])
        possible = {won + more >= aggregate.needed for more in range(len(duels) - heard + 1)}
        result = aggregate.record(duel)
        assert (result is not None) == (len(possible) == 1)
        if result is not None:
            assert result.decision == final
            assert set(result.won) | set(result.lost) | set(result.open) == set(env_ids)
            assert [each.env_id for each in result.duels] == sorted(each.env_id for each in duels[:heard])
            return
    raise AssertionError("all duels are over, and there is no result")


def test_a_result_does_not_depend_on_the_order_of_its_duels() -> None:
    duels = [
        ended("d-v0", "contender", wins=9, losses=1),
        ended("a-v0", "contender", wins=8, losses=2),
        ended("c-v0", "inconclusive"),
        ended("b-v0", "contender", wins=7, losses=3),
    ]
    env_ids = ["a-v0", "b-v0", "c-v0", "d-v0"]
    results = {total(names, order) for order in itertools.permutations(duels) for names in (env_ids, env_ids[::-1])}
    assert len(results) == 1
    (result,) = results
    assert result is not None
    assert (result.decision, result.needed) == ("contender", 3)
    assert (result.won, result.lost, result.open) == (("a-v0", "b-v0", "d-v0"), ("c-v0",), ())
    assert result.win_rates == (0.8, 0.7, 0.9)
    assert AggregateResult.model_validate_json(result.model_dump_json()) == result


def test_an_inconclusive_duel_keeps_the_champion() -> None:
    aggregate = Aggregate(["a-v0", "b-v0"])
    result = aggregate.record(ended("b-v0", "inconclusive"))
    assert result is not None
    assert (result.decision, result.lost, result.open) == ("champion", ("b-v0",), ("a-v0",))


def test_a_duel_that_is_not_awaited_is_refused_and_not_counted() -> None:
    aggregate = Aggregate(["a-v0", "b-v0", "c-v0"])
    aggregate.record(ended("a-v0", "contender"))
    for unwanted in (ended("a-v0", "contender"), ended("x-v0", "contender")):
        with pytest.raises(ValueError, match="awaited"):
            aggregate.record(unwanted)
    with pytest.raises(ValueError, match="same two miners"):
        aggregate.record(ended("b-v0", "contender", contender="c"))
    assert aggregate.result is None
    assert aggregate.record(ended("b-v0", "contender")) is not None
    with pytest.raises(ValueError, match="nothing more"):
        aggregate.record(ended("c-v0", "champion"))


@pytest.mark.parametrize(
    ("env_ids", "k"),
    [([], 1), (["a-v0", "a-v0"], 1), (["a-v0"], -1), ([f"e{at}-v0" for at in range(MAX_ENVIRONMENTS + 1)], 1)],
)
def test_environments_that_make_no_duel_are_refused(env_ids: list[str], k: int) -> None:
    with pytest.raises(InputError):
        Aggregate(env_ids, k)
