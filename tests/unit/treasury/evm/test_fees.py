"""Fees: within the limits, enough to be taken, and never entered as less than they were."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury.evm.fees import Offer, in_ledger, offer, raised, with_margin
from chimera.treasury.evm.types import GWEI

fees = st.integers(0, 10_000 * GWEI)
limits = st.integers(1, 10_000 * GWEI)


@given(fees, fees, limits, limits)
def test_an_offer_is_one_that_a_node_takes_and_within_the_limits(base: int, tip: int, most: int, top: int) -> None:
    found = offer(base, tip, max_fee=most, max_tip=top)
    assert 1 <= found.tip <= found.max_fee <= most and found.tip <= top


@given(st.integers(0, 1_000 * GWEI), st.integers(1, 50 * GWEI))
def test_an_offer_lasts_for_five_full_blocks(base: int, tip: int) -> None:
    found = offer(base, tip, max_fee=10**15, max_tip=10**15)
    later = Fraction(base) * Fraction(9, 8) ** 5
    assert found.max_fee - found.tip >= later


@given(st.integers(1, 1_000 * GWEI), st.integers(1, 1_000 * GWEI), fees, fees, limits, limits)
def test_a_replacement_is_an_eighth_more_in_both_fields_or_there_is_none(
    fee: int, tip: int, fresh_fee: int, fresh_tip: int, most: int, top: int
) -> None:
    last = Offer(max_fee=max(fee, tip), tip=min(fee, tip))
    fresh = Offer(max_fee=max(fresh_fee, fresh_tip), tip=min(fresh_fee, fresh_tip))
    found = raised(last, fresh, max_fee=most, max_tip=top)
    if found is None:
        assert Fraction(9, 8) * last.max_fee + 1 > most or Fraction(9, 8) * last.tip + 1 > min(top, most)
    else:
        assert found.max_fee >= Fraction(9, 8) * last.max_fee and found.tip >= Fraction(9, 8) * last.tip
        assert found.tip <= found.max_fee <= most and found.tip <= top


@given(st.integers(1, 100 * GWEI), st.integers(1, 10 * GWEI))
def test_replacements_come_to_an_end(fee: int, tip: int) -> None:
    last: Offer | None = Offer(max_fee=max(fee, tip), tip=min(fee, tip))
    for _ in range(600):
        assert last is not None
        following = raised(last, last, max_fee=200 * GWEI, max_tip=50 * GWEI)
        if following is None:
            return
        last = following
    raise AssertionError("it offers more for ever")


@given(st.integers(0, 10**30))
def test_a_fee_is_entered_in_whole_billionths_and_never_as_less(wei: int) -> None:
    assert 0 <= in_ledger(wei) * GWEI - wei < GWEI


@given(st.integers(21_000, 10_000_000), st.integers(21_001, 1_000_000))
def test_gas_has_a_margin_and_a_limit(estimate: int, most: int) -> None:
    assert min(estimate, most) <= with_margin(estimate, most=most) <= most
