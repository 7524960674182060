"""Stopping rules against published and exact figures, against their own intervals, and at their limits."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from statsmodels.stats.proportion import proportion_confint

from chimera.arena.duel.exits import exits, trace
from chimera.arena.duel.rules import MAX_CALIBRATED, Z_STEPS, WilsonRule, log_worth, make_rule, normal_z
from chimera.arena.duel.types import MAX_BUDGET, RuleName, RuleRecord
from chimera.core.errors import InputError

NAMES: tuple[RuleName, ...] = ("wilson", "calibrated", "mixture")

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
ratios = st.floats(0.01, 0.99)


# The issue that asked for the arena gives 0.211 and 0.209 at 200, and 28 % at 2,000.
@pytest.mark.parametrize(
    ("budget", "contender", "champion"), [(200, 0.211, 0.209), (500, 0.242, 0.241), (2_000, 0.285, 0.283)]
)
def test_looking_often_at_a_wilson_interval_errs_as_often_as_is_known(
    budget: int, contender: float, champion: float
) -> None:
    rule = make_rule("wilson", p0=0.51, budget=budget)
    assert rule.z == 1.959964
    assert rule.errors() == pytest.approx((contender, champion), abs=5e-4)


@pytest.mark.parametrize("budget", [200, 2_000])
@pytest.mark.parametrize("p0", [0.51, 0.6, 0.75])
def test_a_calibrated_rule_errs_half_of_alpha_a_side_and_no_less_than_it_must(budget: int, p0: float) -> None:
    rule = make_rule("calibrated", p0=p0, budget=budget)
    assert max(rule.errors()) <= 0.025
    assert rule.z is not None
    assert rule.z * Z_STEPS == pytest.approx(round(rule.z * Z_STEPS), abs=1e-6)
    looser = WilsonRule(name="calibrated", p0=p0, alpha=0.05, budget=budget, z=rule.z - 1 / Z_STEPS)
    found = exits(trace(looser.decide, budget), p0)
    assert max(found.contender, found.champion) > 0.025


@given(ratios, st.integers(1, 80), st.sampled_from((0.001, 0.05, 0.3)), st.sampled_from(("calibrated", "mixture")))
def test_calibrated_and_mixture_keep_their_promise_for_any_ratio(
    p0: float, budget: int, alpha: float, name: RuleName
) -> None:
    assert max(make_rule(name, p0=p0, budget=budget, alpha=alpha).errors()) <= alpha / 2


def test_a_calibrated_rule_is_no_looser_than_one_look() -> None:
    assert make_rule("calibrated", p0=0.51, budget=1).z == math.ceil(1.959964 * Z_STEPS) / Z_STEPS


def test_a_mixture_needs_no_budget() -> None:
    short, long = (make_rule("mixture", p0=0.51, budget=budget) for budget in (50, 20_000))
    assert max(long.errors()) <= 0.025
    for wins in range(51):
        assert short.decide(wins, 50) == long.decide(wins, 50)


def test_rules_stop_in_the_end_for_whoever_is_better() -> None:
    for name in NAMES:
        rule = make_rule(name, p0=0.51, budget=2_000)
        assert rule.exits(0.7).contender > 0.99
        assert rule.exits(0.3).champion > 0.99


@given(st.sampled_from(NAMES), counts, ratios)
def test_a_rule_stops_exactly_when_its_interval_leaves_the_ratio(
    name: RuleName, count: tuple[int, int], p0: float
) -> None:
    wins, n = count
    rule = make_rule(name, p0=p0, budget=n)
    low, high = rule.interval(wins, n)
    assert 0.0 <= low <= wins / n <= high <= 1.0
    expected = "contender" if low > p0 else "champion" if high < p0 else None
    assert rule.decide(wins, n) == expected


@given(st.sampled_from(NAMES), counts)
def test_the_ends_of_an_interval_are_where_the_rule_changes_its_mind(name: RuleName, count: tuple[int, int]) -> None:
    wins, n = count
    z = make_rule(name, p0=0.51, budget=n).z
    low, high = make_rule(name, p0=0.51, budget=n).interval(wins, n)

    def decided(p0: float) -> str | None:
        if name == "mixture":
            return make_rule(name, p0=p0, budget=n).decide(wins, n)
        assert z is not None
        return WilsonRule(name=name, p0=p0, alpha=0.05, budget=n, z=z).decide(wins, n)

    if low > 1e-6:
        assert (decided(low * (1 - 1e-9)), decided(low * (1 + 1e-9))) == ("contender", None)
    if high < 1 - 1e-6:
        assert (decided(1 - (1 - high) * (1 - 1e-9)), decided(1 - (1 - high) * (1 + 1e-9))) == ("champion", None)


@given(counts)
def test_wilson_intervals_are_those_of_statsmodels(count: tuple[int, int]) -> None:
    wins, n = count
    for alpha in (0.01, 0.05, 0.2):
        found = make_rule("wilson", p0=0.51, budget=n, alpha=alpha).interval(wins, n)
        assert found == pytest.approx(proportion_confint(wins, n, alpha=alpha, method="wilson"), abs=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.05, 0.95))
def test_a_bet_is_worth_the_mean_of_its_likelihood_ratios(count: tuple[int, int], p0: float) -> None:
    wins, n = count

    def ratio(q: float) -> float:
        return float((q / p0) ** wins * ((1 - q) / (1 - p0)) ** (n - wins))

    mean = quad(ratio, p0, 1.0, points=[max(p0, min(1.0, wins / n))], limit=200)[0] / (1 - p0)
    if wins > n * p0:
        assert math.exp(log_worth(wins, n, p0)) == pytest.approx(mean, rel=1e-6)
    else:
        assert log_worth(wins, n, p0) == -math.inf
        assert mean <= 1.0 + 1e-9


@given(st.integers(1, 12), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_a_bet_gains_nothing_where_what_it_denies_is_true(n: int, a: float, b: float) -> None:
    """The mean worth over all samples under any p <= p0 is at most the stake: with Ville's inequality, the promise.

    `log_worth` leaves out bets that have not gained, so the mean is of what it says and no more.
    """
    p, p0 = sorted((a, b))
    mean = math.fsum(
        math.comb(n, wins) * p**wins * (1 - p) ** (n - wins) * math.exp(log_worth(wins, n, p0)) for wins in range(n + 1)
    )
    assert mean <= 1.0 + 1e-9


@given(counts, ratios, ratios)
def test_a_bet_is_worth_less_against_a_higher_ratio(count: tuple[int, int], a: float, b: float) -> None:
    wins, n = count
    assert log_worth(wins, n, max(a, b)) <= log_worth(wins, n, min(a, b)) + 1e-9


@given(st.integers(1, 300), st.fractions(Fraction(1, 100), Fraction(99, 100), max_denominator=100))
def test_both_sides_are_mirror_images(n: int, p0: Fraction) -> None:
    rule, mirror = (make_rule("mixture", p0=float(p), budget=n) for p in (p0, 1 - p0))
    swapped = {"contender": "champion", "champion": "contender", None: None}
    for wins in range(0, n + 1, 1 + n // 20):
        assert swapped[mirror.decide(n - wins, n)] == rule.decide(wins, n)
        low, high = rule.interval(wins, n)
        assert mirror.interval(n - wins, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_on_record_says_what_it_is_and_survives_the_journey(name: RuleName) -> None:
    rule = make_rule(name, p0=0.53, budget=100, alpha=0.1)
    record = rule.record()
    assert (record.name, record.z, record.p0, record.alpha, record.budget) == (name, rule.z, 0.53, 0.1, 100)
    assert (record.error_contender, record.error_champion) == rule.errors()
    assert RuleRecord.model_validate_json(record.model_dump_json()) == record
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert (record.z is None) == (name == "mixture")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [(-1, 5), (6, 5), (0, -1), (5, 11)])
def test_counts_that_cannot_be_are_refused(name: RuleName, count: tuple[int, int]) -> None:
    rule = make_rule(name, p0=0.51, budget=10)
    for ask in (rule.decide, rule.interval):
        with pytest.raises(ValueError, match=r"wins must be in 0\.\.n"):
            ask(*count)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"p0": 0.0}, "ratio to beat"),
        ({"p0": 1.0}, "ratio to beat"),
        ({"p0": math.nan}, "ratio to beat"),
        ({"budget": 0}, "from 1 to"),
        ({"budget": MAX_BUDGET + 1}, "from 1 to"),
        ({"budget": 10.0}, "from 1 to"),
        ({"budget": True}, "from 1 to"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
    ],
)
def test_numbers_that_make_no_rule_are_refused(name: RuleName, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_rule(name, **{"p0": 0.51, "budget": 10, **change})


def test_what_cannot_be_made_says_what_can() -> None:
    with pytest.raises(InputError, match="wilson, calibrated, mixture"):
        make_rule("sprt", p0=0.51, budget=10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="use mixture"):
        make_rule("calibrated", p0=0.51, budget=MAX_CALIBRATED + 1)


def test_nothing_seen_is_nothing_known() -> None:
    for name in NAMES:
        rule = make_rule(name, p0=0.51, budget=10)
        assert rule.interval(0, 0) == (0.0, 1.0)
        assert rule.decide(0, 0) is None


@pytest.mark.parametrize("alpha", [1e-9, 0.01, 0.05, 0.49])
def test_quantiles_are_those_of_the_normal_distribution(alpha: float) -> None:
    assert math.erfc(normal_z(alpha) / math.sqrt(2)) == pytest.approx(alpha, rel=1e-5)
