"""The policy: what a person has to see, and that more of anything bad never makes it milder."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury.history import Flow
from chimera.treasury.policy import Policy, grounds, judge
from chimera.treasury.risk import Assessment
from chimera.treasury.signer import STRICTNESS, Verdict
from chimera.treasury.types import MAX_AMOUNT, NANO, PaymentRequest, Rules

RULES = Rules()
POLICY = Policy(critical_categories=frozenset({"legal"}), critical_payees=frozenset({"tax"}))
shares = st.floats(0, 1)
amounts = st.one_of(st.integers(1, MAX_AMOUNT), st.integers(1, 1_000).map(lambda units: units * NANO))


def asking(amount: int = NANO, credit: str = "acme", category: str = "any") -> PaymentRequest:
    return PaymentRequest(
        id="r", debit="cash", credit=credit, amount=amount, category=category, requester="a", expires_at=9
    )


def verdict(
    request: PaymentRequest, risk: float = 0.0, flow: Flow = Flow.SPEND, beside: int = 0, rules: Rules = RULES
) -> Verdict:
    return judge(request, Assessment(risk=risk, flow=flow, beside=beside), rules=rules, policy=POLICY)


@pytest.mark.parametrize(
    ("flow", "most"),
    [
        (Flow.SPEND, 50 * NANO),
        (Flow.INTERNAL, 50 * NANO),
        (Flow.METERED, 500 * NANO),
        (Flow.INCOME, MAX_AMOUNT),
    ],
)
def test_a_person_sees_what_is_above_the_limit_of_its_kind(flow: Flow, most: int) -> None:
    assert verdict(asking(most), flow=flow) == "approved"
    if most < MAX_AMOUNT:
        assert verdict(asking(most + 1), flow=flow) == "ask"


def test_what_nobody_approved_today_goes_with_the_amount_where_the_ledger_adds_it() -> None:
    assert verdict(asking(20 * NANO), beside=30 * NANO) == "approved"
    assert verdict(asking(20 * NANO), beside=30 * NANO + 1) == "ask"
    assert verdict(asking(20 * NANO), beside=30 * NANO + 1, flow=Flow.INTERNAL) == "ask"
    assert verdict(asking(20 * NANO), beside=900 * NANO, flow=Flow.METERED) == "approved"
    assert verdict(asking(20 * NANO), beside=900 * NANO, flow=Flow.INCOME) == "approved"


@pytest.mark.parametrize("flow", Flow)
def test_risk_is_judged_whichever_way_money_goes(flow: Flow) -> None:
    for risk, wanted in ((0.0, "approved"), (0.499, "approved"), (0.5, "ask"), (0.899, "ask"), (0.9, "refused")):
        assert verdict(asking(), risk, flow) == wanted


def test_what_is_critical_is_always_a_persons() -> None:
    assert verdict(asking(1, category="legal")) == "ask"
    assert verdict(asking(1, credit="tax")) == "ask"
    assert verdict(asking(1, credit="tax"), flow=Flow.METERED) == "ask"
    assert verdict(asking(1, credit="tax"), risk=0.95) == "refused"


def test_grounds_say_all_that_speaks_against_it() -> None:
    request = asking(60 * NANO, credit="tax", category="legal")
    found = grounds(request, Assessment(risk=0.7), rules=RULES, policy=POLICY)
    assert [each.why for each in found] == [
        "its risk is 0.70",
        "the category legal is critical",
        "the payee tax is critical",
        "it is above 50.00 USD",
    ]
    assert grounds(asking(), Assessment(risk=0.1), rules=RULES, policy=POLICY) == ()


@given(
    risks=st.tuples(shares, shares).map(sorted),
    sizes=st.tuples(amounts, amounts).map(sorted),
    besides=st.tuples(amounts, amounts).map(sorted),
    flow=st.sampled_from(list(Flow)),
    category=st.sampled_from(["any", "legal"]),
    limits=st.tuples(amounts, amounts),
)
def test_more_risk_and_a_larger_amount_never_make_it_milder(
    risks: list[float],
    sizes: list[int],
    besides: list[int],
    flow: Flow,
    category: str,
    limits: tuple[int, int],
) -> None:
    rules = Rules(ask_over=limits[0], dual_over=limits[1])
    steps = [
        (risks[0], sizes[0], besides[0]),
        (risks[1], sizes[0], besides[0]),
        (risks[1], sizes[1], besides[0]),
        (risks[1], sizes[1], besides[1]),
    ]
    found = [verdict(asking(size, category=category), risk, flow, beside, rules) for risk, size, beside in steps]
    assert all(STRICTNESS.index(one) <= STRICTNESS.index(other) for one, other in pairwise(found))


@given(risk=shares, amount=amounts, beside=st.integers(0, MAX_AMOUNT), limits=st.tuples(amounts, amounts))
def test_above_the_limit_nothing_is_approved(risk: float, amount: int, beside: int, limits: tuple[int, int]) -> None:
    rules = Rules(ask_over=limits[0], dual_over=limits[1])
    for flow in (Flow.SPEND, Flow.INTERNAL):
        if amount + beside > rules.ask_over:
            assert verdict(asking(amount), risk, flow, beside, rules) != "approved"


def test_a_policy_asks_before_it_refuses() -> None:
    with pytest.raises(ValueError, match="ask_at is at most refuse_at"):
        Policy(ask_at=0.9, refuse_at=0.5)
