"""The figures of a campaign: what is counted, and how sure it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.content import kpi
from chimera.content.kpi import Figure, Record, report
from chimera.core.errors import InputError


def test_an_empty_campaign_says_nothing() -> None:
    found = report([])
    assert (found.items, found.cost_usd_total, found.reached) == (0, 0.0, None)
    assert found.without_person == found.engagement == found.cost_usd == Figure()


def test_each_figure_counts_what_it_says() -> None:
    records = [Record(item=f"a{n}", published=True, cost_usd=0.01, seen=100, reactions=5) for n in range(17)]
    records += [Record(item="b", published=True, person=True, cost_usd=0.03, reactions=7)]
    records += [Record(item="c", refused=True, person=True, changed=True)]
    records += [Record(item="d", failed=True), Record(item="e")]
    found = report(records)
    assert (found.items, found.published, found.refused) == (21, 18, 1)
    assert (found.without_person.value, found.without_person.n) == (18 / 20, 20)
    assert (found.interventions.value, found.errors.value) == (1 / 20, 1 / 20)
    assert (found.engagement.value, found.engagement.n) == (0.05, 1_700)
    assert found.reactions_each.value == pytest.approx((17 * 5 + 7) / 18)
    assert found.cost_usd.value == pytest.approx(0.2 / 21)
    assert found.cost_usd_total == pytest.approx(0.2)
    assert found.reached is False, "nine of ten are not more than 0.9"
    assert report([*records, Record(item="f", published=True)]).reached is True


RECORDS = st.builds(
    Record,
    item=st.just("x"),
    cost_usd=st.floats(0, 1),
    person=st.booleans(),
    changed=st.booleans(),
    published=st.booleans(),
    refused=st.booleans(),
    failed=st.booleans(),
    seen=st.none() | st.integers(0, 1_000),
    reactions=st.integers(0, 2_000),
)


@settings(max_examples=20)
@given(records=st.lists(RECORDS, max_size=30))
def test_intervals_hold_their_values_and_shares_are_shares(records: list[Record]) -> None:
    found = report(records)
    for figure in (found.without_person, found.interventions, found.errors, found.engagement):
        if figure.value is None:
            assert figure.n == 0
        else:
            assert figure.low is not None
            assert figure.high is not None
            assert 0.0 <= figure.low <= figure.value + 1e-12
            assert figure.value - 1e-12 <= figure.high <= 1.0
    assert found == report(records), "the same twice"


def test_too_many_records_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpi, "MAX_RECORDS", 3)
    with pytest.raises(InputError, match="shorter time"):
        report([Record(item="x")] * 4)
