"""The ratio to beat: its laws of decay, its cap, and clocks that disagree."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.duel.ratchet import DECAY_S, Ratchet
from chimera.arena.duel.rules import make_rule

SINCE_S = 1_790_000_000.0

ratchets = st.builds(
    Ratchet,
    ratio=st.floats(0.5, 0.75),
    since_s=st.floats(0, 4e9),
    epsilon=st.floats(0.001, 0.2),
    cap=st.floats(0.75, 0.99),
)
rates = st.lists(st.floats(0.51, 1.0), min_size=1, max_size=8)


def test_a_throne_that_nobody_has_won_asks_for_epsilon() -> None:
    assert Ratchet().ratio_at(SINCE_S) == 0.51


def test_after_a_week_a_hundredth_of_the_excess_is_left() -> None:
    ratchet = Ratchet(ratio=0.75, since_s=SINCE_S, epsilon=0.0001)
    assert DECAY_S == 7 * 24 * 3600
    assert ratchet.ratio_at(SINCE_S) == 0.75
    assert ratchet.ratio_at(SINCE_S + DECAY_S / 2) == pytest.approx(0.525, abs=1e-9)
    assert ratchet.ratio_at(SINCE_S + DECAY_S) == pytest.approx(0.5025, abs=1e-9)
    assert ratchet.ratio_at(SINCE_S + 1e12) == 0.5001


@given(ratchets, st.floats(0, 8e9), st.floats(0, 8e9))
def test_a_ratio_only_falls_and_stays_in_its_bounds(ratchet: Ratchet, a: float, b: float) -> None:
    sooner, later = (ratchet.ratio_at(now_s) for now_s in sorted((a, b)))
    assert 0.5 + ratchet.epsilon <= later <= sooner <= ratchet.cap
    assert sooner <= max(ratchet.ratio, 0.5 + ratchet.epsilon) + 1e-9
    tau_s = DECAY_S / math.log(100)
    decayed = 0.5 + (ratchet.ratio - 0.5) * math.exp(-max(0.0, max(a, b) - ratchet.since_s) / tau_s)
    assert later == pytest.approx(max(0.5 + ratchet.epsilon, decayed), abs=1e-9)


@given(ratchets, st.floats(-1e9, 4e9))
def test_a_clock_that_is_behind_changes_nothing(ratchet: Ratchet, now_s: float) -> None:
    now_s = min(now_s, ratchet.since_s)
    assert ratchet.ratio_at(now_s) == ratchet.ratio_at(ratchet.since_s)
    assert ratchet.after_win([0.6], now_s).since_s == ratchet.since_s


@given(ratchets, rates)
def test_a_winner_sets_the_geometric_mean_of_its_rates(ratchet: Ratchet, won: list[float]) -> None:
    after = ratchet.after_win(won, 5e9)
    assert after.ratio == pytest.approx(min(ratchet.cap, math.prod(won) ** (1 / len(won))), abs=1e-9)
    assert (after.since_s, after.epsilon, after.cap) == (5e9, ratchet.epsilon, ratchet.cap)


@given(st.lists(st.floats(0.51, 0.74), min_size=2, max_size=5))
def test_the_order_of_environments_does_not_matter(won: list[float]) -> None:
    assert len({Ratchet().after_win(order, SINCE_S) for order in itertools.permutations(won)}) == 1


def test_four_of_four_does_not_lock_the_throne() -> None:
    after = Ratchet().after_win([1.0, 1.0, 1.0, 1.0], SINCE_S)
    assert after.ratio_at(SINCE_S) == 0.75
    rule = make_rule("calibrated", p0=after.ratio_at(SINCE_S), budget=200)
    assert rule.exits(0.95).contender > 0.99


@given(ratchets)
def test_a_ratchet_survives_json_exactly(ratchet: Ratchet) -> None:
    assert Ratchet.model_validate_json(ratchet.model_dump_json()) == ratchet


@pytest.mark.parametrize("won", [[], [0.0], [0.6, 1.1], [-0.6], [math.nan]])
def test_rates_that_no_winner_has_are_refused(won: list[float]) -> None:
    with pytest.raises(ValueError, match="win rates"):
        Ratchet().after_win(won, SINCE_S)


@pytest.mark.parametrize("now_s", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused(now_s: float) -> None:
    with pytest.raises(ValueError, match="a time"):
        Ratchet().ratio_at(now_s)
    with pytest.raises(ValueError, match="a time"):
        Ratchet().after_win([0.6], now_s)


@pytest.mark.parametrize(
    ("ratio", "epsilon", "cap"), [(0.76, 0.01, 0.75), (0.4, 0.01, 0.75), (0.5, 0.3, 0.75), (0.5, 0.01, 1.0)]
)
def test_a_ratio_beyond_its_cap_is_refused(ratio: float, epsilon: float, cap: float) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Ratchet(ratio=ratio, epsilon=epsilon, cap=cap)
