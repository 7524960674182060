"""One duel: against a count by hand, against the known error rates by simulation, and after its end."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.duel.rules import StoppingRule, make_rule
from chimera.arena.duel.sequential import SequentialDuel
from chimera.arena.duel.types import DuelResult, Outcome, RuleName, outcome
from chimera.arena.types import Verdict
from chimera.core.errors import InputError

NAMES: tuple[RuleName, ...] = ("wilson", "calibrated", "mixture")

outcomes: st.SearchStrategy[list[Outcome]] = st.one_of(
    st.lists(st.sampled_from(tuple(mix)), min_size=40, max_size=40)
    for mix in (("win", "loss", "tie"), ("win", "win", "win", "loss"), ("loss", "loss", "loss", "win", "tie"))
)


def duel_under(rule: StoppingRule) -> SequentialDuel:
    return SequentialDuel(rule, env_id="mult8-v0", champion="oracle:p=0.5", contender="oracle:p=0.7")


def play(duel: SequentialDuel, outcomes: Sequence[Outcome]) -> DuelResult | None:
    for each in outcomes:
        if duel.record(each) is not None:
            break
    return duel.result


@given(st.sampled_from(NAMES), st.sampled_from((0.3, 0.51, 0.6)), st.integers(1, 40), outcomes)
def test_a_duel_is_its_counts_under_the_rules_interval(
    name: RuleName, p0: float, budget: int, history: list[Outcome]
) -> None:
    """Every prefix by hand: the first whose interval leaves p0 ends the duel, or else the budget does."""
    rule = make_rule(name, p0=p0, budget=budget)
    duel = duel_under(rule)
    for length in range(1, budget + 1):
        seen = history[:length]
        wins, losses, ties = (seen.count(each) for each in ("win", "loss", "tie"))
        low, high = rule.interval(wins, wins + losses)
        expected = "contender" if low > p0 else "champion" if high < p0 else None
        if expected is None and length == budget:
            expected = "inconclusive"
        result = duel.record(history[length - 1])
        assert duel.result is result
        assert duel.samples == length
        assert duel.interval == (low, high)
        assert (result and result.decision) == expected
        if result is not None:
            assert (result.wins, result.losses, result.ties) == (wins, losses, ties)
            assert (result.low, result.high, result.rule) == (low, high, rule.record())
            assert DuelResult.model_validate_json(result.model_dump_json()) == result
            break


@given(st.sampled_from(NAMES), outcomes, st.randoms(use_true_random=False))
def test_ties_may_come_at_any_time(name: RuleName, history: list[Outcome], shuffle: random.Random) -> None:
    """Where the ties fall between the decisive samples changes nothing, while the budget allows for all of them."""
    rule = make_rule(name, p0=0.51, budget=80)
    decisive = [each for each in history if each != "tie"]
    moved = list(decisive)
    for _ in range(len(history) - len(decisive)):
        moved.insert(shuffle.randint(0, len(moved)), "tie")
    one, other = (play(duel_under(rule), order) for order in (decisive, moved))
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one == other.model_copy(update={"ties": 0})


@given(st.sampled_from(NAMES), outcomes)
def test_ties_only_take_decisions_away(name: RuleName, history: list[Outcome]) -> None:
    """What a duel with ties decides, the same duel without them decides too: so ties cannot add to the error."""
    rule = make_rule(name, p0=0.51, budget=len(history))
    result = play(duel_under(rule), history)
    assert result is not None
    if result.decision != "inconclusive":
        without = play(duel_under(rule), [each for each in history if each != "tie"])
        assert without is not None
        assert without.decision == result.decision


@pytest.mark.parametrize("name", NAMES)
def test_a_duel_of_nothing_but_ties_ends_at_its_budget(name: RuleName) -> None:
    duel = duel_under(make_rule(name, p0=0.51, budget=200))
    for _ in range(199):
        assert duel.record("tie") is None
    result = duel.record("tie")
    assert result is not None
    assert (result.decision, result.ties, result.wins, result.losses) == ("inconclusive", 200, 0, 0)
    assert (result.low, result.high) == (0.0, 1.0)


def test_the_last_sample_may_still_decide() -> None:
    rule = make_rule("wilson", p0=0.51, budget=4)
    assert rule.decide(3, 3) is None
    result = play(duel_under(rule), ["win"] * 4)
    assert result is not None
    assert (result.decision, result.wins) == ("contender", 4)


@pytest.mark.parametrize("ending", [["win"] * 4, ["loss"] * 4, ["tie"] * 30])
def test_nothing_changes_what_was_decided(ending: list[Outcome]) -> None:
    duel = duel_under(make_rule("wilson", p0=0.51, budget=30))
    result = play(duel, ending)
    assert result is not None
    with pytest.raises(ValueError, match="has ended"):
        duel.record("loss")
    assert duel.result is result
    assert duel.samples == len(ending)


def test_an_outcome_that_is_none_is_refused() -> None:
    duel = duel_under(make_rule("wilson", p0=0.51, budget=30))
    with pytest.raises(ValueError, match="win, loss or tie"):
        duel.record("draw")  # type: ignore[arg-type]
    assert duel.samples == 0


def test_names_are_checked_before_anything_is_spent() -> None:
    rule = make_rule("wilson", p0=0.51, budget=30)
    with pytest.raises(InputError, match="env_id 'Mult 8'"):
        SequentialDuel(rule, env_id="Mult 8", champion="a", contender="b")
    with pytest.raises(InputError, match="contender"):
        SequentialDuel(rule, env_id="mult8-v0", champion="a", contender="two words")


@pytest.mark.parametrize(
    ("champion", "contender", "expected"),
    [(True, True, "tie"), (False, False, "tie"), (False, True, "win"), (True, False, "loss")],
)
def test_outcomes_are_the_contenders(champion: bool, contender: bool, expected: Outcome) -> None:
    assert outcome(Verdict(ok=champion), Verdict(ok=contender)) == expected


def test_the_engine_errs_as_often_as_is_known() -> None:
    """At p = p0 = 0.51 and budget 200: 0.211 for the contender, 0.209 for the hold side, within three sigma."""
    runs = 20_000
    rule = make_rule("wilson", p0=0.51, budget=200)
    rng = random.Random(20261122)
    ends = {"contender": 0, "champion": 0, "inconclusive": 0}
    for _ in range(runs):
        duel = duel_under(rule)
        while duel.result is None:
            duel.record("win" if rng.random() < 0.51 else "loss")
        ends[duel.result.decision] += 1
    for side, published, exact in zip(("contender", "champion"), (0.211, 0.209), rule.errors(), strict=True):
        sigma = math.sqrt(published * (1 - published) / runs)
        assert abs(ends[side] / runs - published) < 3 * sigma
        assert abs(ends[side] / runs - exact) < 3 * sigma
