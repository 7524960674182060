"""The circuit breaker: what stops all spending, until a person starts it again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chimera.treasury.breaker import Breaker, BreakerLimits
from chimera.treasury.rows import AnyRow, Switch
from chimera.treasury.types import (
    NANO,
    Account,
    AccountKind,
    CfoDecision,
    PaymentRequest,
    Transfer,
    TransferKind,
)

MINUTE = 60_000_000
HOUR = 60 * MINUTE
LIMITS = BreakerLimits(spend={"USD": 100 * NANO, "EUR": 7 * NANO}, refused=3, risky=2, anomalies=2)
ACCOUNTS = [
    *(Account(id=name, kind=AccountKind.FUND) for name in ("cash", "mission")),
    *(Account(id=name, kind=AccountKind.OUTSIDE) for name in ("acme", "bank")),
    Account(id="model", kind=AccountKind.METERED),
]


class Told:
    """A breaker, and rows to tell it."""

    def __init__(self, limits: BreakerLimits = LIMITS) -> None:
        self.breaker = Breaker(limits)
        self.at = 0
        self.number = 0
        self.take(*ACCOUNTS)

    def take(self, *rows: AnyRow) -> str | None:
        why = None
        for row in rows:
            why = self.breaker.take(row, self.at)
        return why

    def spend(
        self, amount: int, debit: str = "cash", credit: str = "acme", currency: str = "USD", kind: str = "posted"
    ) -> str | None:
        self.number += 1
        name = f"r{self.number}"
        request = PaymentRequest(
            id=name,
            debit=debit,
            credit=credit,
            amount=amount,
            currency=currency,
            category="any",
            requester="a",
            expires_at=9,
        )
        return self.take(request, Transfer(id=name, kind=TransferKind(kind), request_id=name, amount=amount))

    def decide(self, name: str, verdict: str = "approved", risk: float = 0.0) -> str | None:
        return self.take(CfoDecision(request_id=name, request_digest="0" * 64, at=0, verdict=verdict, risk=risk))


def test_spending_too_fast_trips_and_slow_spending_does_not() -> None:
    told = Told()
    assert told.spend(100 * NANO, kind="pending") is None
    told.at = HOUR - 1
    assert told.spend(1) == "100.000000001 USD within 60 minutes: more than 100.00 USD"
    slow = Told()
    for number in range(50):
        slow.at = number * HOUR
        assert slow.spend(100 * NANO) is None, number


def test_only_what_leaves_the_house_counts_and_each_currency_by_itself() -> None:
    told = Told()
    assert told.spend(10**15, debit="bank", credit="cash") is None
    assert told.spend(10**15, credit="mission") is None
    assert told.spend(90 * NANO, credit="model") is None
    assert told.spend(7 * NANO, currency="EUR") is None
    assert told.spend(10**15, currency="CHF") is None, "no limit is set for it"
    ending = Transfer(id="x", kind=TransferKind.POST, request_id="r3", amount=90 * NANO)
    assert told.take(ending) is None, "it was counted when it was set aside"
    assert told.spend(1, currency="EUR") is not None


def test_what_is_not_known_counts_everywhere() -> None:
    told = Told()
    assert told.spend(99 * NANO, debit="nobody", credit="stranger") is None
    unknown = Transfer(id="x", kind=TransferKind.POSTED, request_id="forgotten", amount=2 * NANO)
    assert told.take(unknown) is not None


def test_failed_risk_checks_and_refusals_trip_and_a_request_counts_once() -> None:
    told = Told()
    for _ in range(5):
        assert told.decide("one", risk=0.8) is None
    assert told.decide("two", risk=0.79) is None
    assert told.decide("two", risk=0.8) == "2 requests of a risk of 0.8 or more within 60 minutes"
    told = Told()
    for _ in range(5):
        assert told.decide("one", "refused") is None
        assert told.decide("two", "refused") is None
    told.at = HOUR
    assert told.decide("three", "refused") is None, "the others are an hour old"
    assert told.decide("four", "refused") is None
    assert told.decide("five", "refused") == "3 requests were refused within 60 minutes"


def test_anomalies_trip_together_or_one_that_is_grave_alone() -> None:
    told = Told()
    for at in (0, HOUR, 2 * HOUR):
        assert told.breaker.anomaly("cost", 0.9, at) is None
    assert told.breaker.anomaly("cost", 0.899, 2 * HOUR + 1) is None
    assert told.breaker.anomaly("errors", 0.95, 2 * HOUR + 2) == "2 anomalies within 60 minutes, the last of errors"
    assert Told().breaker.anomaly("cost", 0.99, 0) == "cost is out of order: its score is 0.990"


def test_it_says_so_until_the_ledger_is_stopped_and_counts_anew_after_a_person_started_it() -> None:
    told = Told()
    why = told.spend(101 * NANO)
    assert why is not None and told.decide("other") == why, "a stop that was not written is asked for again"
    told.at = 5 * HOUR
    assert told.breaker.why == why, "time alone does not heal it"
    assert told.take(Switch(action="stop", why=why, by="cfo")) is None
    assert told.spend(101 * NANO) is None and told.breaker.why is None
    assert told.take(Switch(action="resume", why="", by="ann")) is None
    assert told.spend(100 * NANO) is None
    assert told.spend(1) is not None


def test_a_clock_that_goes_back_opens_no_window() -> None:
    told = Told()
    told.at = 3 * HOUR
    assert told.spend(60 * NANO) is None
    told.at = 0
    assert told.spend(40 * NANO) is None
    told.at = 3 * HOUR + 1
    assert told.spend(1) is not None


@given(st.lists(st.tuples(st.integers(0, 2 * HOUR), st.integers(1, 60 * NANO)), max_size=40))
def test_it_trips_with_the_first_spend_that_makes_a_window_too_much(steps: list[tuple[int, int]]) -> None:
    told, spends, tripped = Told(), [], False
    for later, amount in steps:
        told.at += later
        spends.append((told.at, amount))
        tripped = tripped or sum(each for at, each in spends if at > told.at - HOUR) > 100 * NANO
        assert (told.spend(amount) is not None) == tripped


def test_more_spends_than_it_remembers_are_too_fast() -> None:
    told = Told(BreakerLimits(spend={"USD": 10**18}))
    why = None
    for _ in range(10_001):
        why = told.spend(1)
    assert why == "more than 10000 spends within 60 minutes"
