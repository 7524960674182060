"""The risk of a payment: what each factor finds, that the score follows from them, and how well it ranks."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.risk import Ranking, score
from chimera.treasury.history import History
from chimera.treasury.risk import FACTORS, WEIGHTS, Assessment, alike, assess, combined
from chimera.treasury.types import (
    DAY_US,
    NANO,
    Account,
    AccountKind,
    CfoDecision,
    Factor,
    PaymentRequest,
    Transfer,
    TransferKind,
)

HOUR = DAY_US // 24
MONDAY_10 = 1_790_589_600_000_000
"""2026-09-28, a Monday, 10:00 UTC."""


class Company:
    """Sixty days in which `worker` pays acme about ten, and globex about forty, each morning of a working day."""

    def __init__(self, days: int = 60) -> None:
        self.history = History()
        self.at = MONDAY_10 - 70 * DAY_US
        self.number = 0
        for name, kind in (("cash", "fund"), ("acme", "outside"), ("globex", "outside"), ("model", "metered")):
            self.history.take(Account(id=name, kind=AccountKind(kind)), self.at)
        for day in range(days):
            self.at = MONDAY_10 + (day - 70) * DAY_US
            if day % 7 < 5:
                self.pay(10 * NANO + 37_000_001 * day, reason=f"a{day}")
                self.pay(40 * NANO + 91_000_003 * day, credit="globex", category="data", reason=f"g{day}")
        self.at = MONDAY_10

    def ask(self, amount: int = 9_700_000_001, credit: str = "acme", **fields: object) -> PaymentRequest:
        self.number += 1
        told = {"debit": "cash", "category": "cloud", "requester": "worker", "expires_at": self.at + HOUR, **fields}
        return PaymentRequest(**{"id": f"r{self.number}", "credit": credit, "amount": amount, **told})

    def file(self, amount: int = 9_700_000_001, **fields: object) -> PaymentRequest:
        request = self.ask(amount, **fields)
        self.history.take(request, self.at)
        return request

    def pay(self, amount: int, **fields: object) -> PaymentRequest:
        request = self.file(amount, **fields)
        moved = Transfer(id=request.id, kind=TransferKind.POSTED, request_id=request.id, amount=amount)
        self.history.take(moved, self.at)
        return request

    def assess(self, request: PaymentRequest, reputation: float | None = None) -> Assessment:
        return assess(request, self.history, at=self.at, reputation=reputation)

    def found(self, request: PaymentRequest, reputation: float | None = None) -> dict[str, float]:
        return {each.name: each.value for each in self.assess(request, reputation).factors}


@pytest.fixture
def company() -> Company:
    return Company()


def test_what_is_usual_is_hardly_a_risk(company: Company) -> None:
    assert company.assess(company.file()).risk < 0.1


def test_a_small_first_payment_is_a_moderate_risk_and_a_large_one_a_greater() -> None:
    company = Company(days=0)
    small, large = company.assess(company.ask(5 * NANO)), company.assess(company.ask(5_000 * NANO))
    assert 0.1 < small.risk < 0.5
    assert small.risk < large.risk < 0.9
    assert assess(company.ask(), History(), at=0).risk < 0.5, "not even accounts are known"


def test_the_score_follows_from_what_is_listed(company: Company) -> None:
    found = company.assess(company.file(900 * NANO, credit="acmee", category="ads", requester="new"), reputation=0.1)
    assert len(found.factors) > 5 and all(each.why and each.value for each in found.factors)
    assert found.risk == combined(found.factors)
    by_hand = 1 - math.prod(1 - each.weight * each.value for each in found.factors)
    assert found.risk == pytest.approx(by_hand, abs=1e-6)
    shares = [each.weight * each.value for each in found.factors]
    assert shares == sorted(shares, reverse=True)


def test_every_factor_has_a_weight_below_one_and_fits_in_what_is_signed() -> None:
    assert set(WEIGHTS) == set(FACTORS) and len(WEIGHTS) <= 32
    assert all(0 < each < 1 for each in WEIGHTS.values())


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=16), st.integers(0, 15), st.floats(0, 1))
def test_more_of_a_factor_never_lowers_the_risk(values: list[tuple[float, float]], which: int, more: float) -> None:
    factors = [Factor(name="any", value=value, weight=weight) for value, weight in values]
    before = combined(factors)
    assert 0 <= before <= 1
    if which < len(factors):
        raised = factors[which].model_copy(update={"value": max(factors[which].value, more)})
        assert combined([*factors[:which], raised, *factors[which + 1 :]]) >= before


def test_an_amount_is_held_against_the_payees_and_the_requesters_usual_ones(company: Company) -> None:
    found = company.assess(company.file(120 * NANO))
    amount = next(each for each in found.factors if each.name == "amount")
    assert amount.value > 0.5 and amount.why.endswith("times the usual amount for acme")
    assert 10 < float(amount.why.split()[0]) < 13
    assert "amount" not in company.found(company.file(45 * NANO + 3, credit="globex", category="data"))
    risks = [company.assess(company.ask(10 * NANO * 3**power + 1)).risk for power in range(7)]
    assert risks == sorted(risks) and risks[-1] > 0.3


def test_a_payee_is_new_for_some_weeks_and_only_where_money_leaves(company: Company) -> None:
    assert company.found(company.file(credit="initech"))["new-payee"] > 0.5
    company.pay(10 * NANO, credit="initech", reason="1")
    young = company.found(company.file(credit="initech"))["new-payee"]
    company.file(credit="initech", requester="another")
    assert 0.2 < company.found(company.file(credit="initech"))["new-payee"] < young < 0.7, "others pay it too"
    company.at += 28 * DAY_US
    assert "new-payee" not in company.found(company.file(credit="initech"))
    company.history.take(Account(id="own", kind=AccountKind.FUND), company.at)
    for credit in ("own", "model"):
        assert "new-payee" not in company.found(company.file(credit=credit))


def test_a_name_almost_that_of_a_known_payee_is_seen(company: Company) -> None:
    for name in ("acmee", "acne", "cme-", "amce", "a-c-m-e", "gl0bex", "globx", "Globex"):
        assert ("look-alike" in company.found(company.file(credit=name))) == (name != "cme-"), name
    assert "look-alike" not in company.found(company.file())


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("acme", "acme", True),
        ("vendor", "vend0r", True),
        ("vendor", "vendor-", True),
        ("corner", "comer", True),
        ("vendor-1", "vendor-2", False),
        ("vendor-19", "vendor-20", False),
        ("acme", "acmexx", False),
        ("abc", "abd", False),
        ("acme", "emca", False),
        ("evm:1:0xAbcd" + "1" * 32 + "9876", "evm:1:0xaBcd" + "2" * 32 + "9876", True),
        ("evm:1:0xabcd" + "1" * 32 + "9876", "evm:1:0xabcd" + "1" * 32 + "9875", False),
        ("evm:1:0xabcd" + "1" * 32 + "9876", "evm:137:0xabcd" + "2" * 32 + "9876", False),
    ],
)
def test_which_names_are_alike(one: str, other: str, wanted: bool) -> None:
    assert alike(one, other) is alike(other, one) is wanted


def test_a_new_payee_who_is_to_get_what_another_gets_is_seen(company: Company) -> None:
    company.pay(12_345_678_900, reason="march")
    assert company.found(company.file(12_345_678_900, credit="initech"))["stand-in"] == 1
    assert "stand-in" not in company.found(company.file(13_345_678_900, credit="initech"))
    assert "stand-in" not in company.found(company.file(12_345_678_900, credit="globex"))


def test_the_same_again_is_a_duplicate_and_an_old_invoice_a_replay(company: Company) -> None:
    company.pay(12_345_678_900, reason="invoice 7")
    first = company.found(company.file(12_345_678_900, reason="invoice 7"))
    assert first["duplicate"] == 1
    company.at += 20 * DAY_US
    assert company.found(company.file(12_345_678_900, reason="invoice 7"))["duplicate"] > 0.5
    fresh = Company()
    fresh.pay(12_345_678_900, reason="invoice 7")
    fresh.at += 20 * DAY_US
    assert 0 < fresh.found(fresh.ask(12_345_678_900, reason="invoice 8"))["duplicate"] < 0.5
    fresh.at += 200 * DAY_US
    assert "duplicate" not in fresh.found(fresh.ask(12_345_678_900, reason="invoice 7"))


def test_only_the_later_of_two_is_the_duplicate(company: Company) -> None:
    first, second = company.file(9_876_543_210), company.file(9_876_543_210)
    assert "duplicate" not in company.found(first)
    assert "duplicate" in company.found(second)
    company.history.take(
        CfoDecision(request_id=first.id, request_digest="0" * 64, at=0, verdict="refused", risk=0.0), company.at
    )
    assert "duplicate" not in company.found(second), "the first is not paid"


def test_a_subscription_is_no_duplicate(company: Company) -> None:
    for _ in range(4):
        company.pay(19_990_000_000)
        company.at += 7 * DAY_US
    assert company.found(company.file(19_990_000_000))["duplicate"] < 0.1
    company.at += DAY_US
    assert company.found(company.file(19_990_000_000))["duplicate"] > 0.3


def test_many_at_once_are_seen_and_a_few_are_not(company: Company) -> None:
    requests = [company.file(10 * NANO + 1_000_000_007 * number, reason=str(number)) for number in range(20)]
    assert "velocity" not in Company().found(requests[0])
    found = company.found(requests[-1])
    assert found["velocity"] > 0.8 and found["volume"] > 0.3


def test_an_hour_and_a_day_at_which_the_requester_never_asks_are_seen(company: Company) -> None:
    assert "hour" not in company.found(company.file())
    company.at += 15 * HOUR
    night = company.found(company.file())["hour"]
    company.at += 4 * DAY_US + 9 * HOUR
    assert night > 0.7 and company.found(company.file())["hour"] > 0.4, "on a Saturday"


def test_a_category_that_is_new_for_whom_it_concerns_is_seen(company: Company) -> None:
    assert company.found(company.file(category="ads"))["category"] > 0.8
    assert company.found(company.file(category="data"))["category"] > 0.8, "the requester's, and not acme's"


def test_parts_just_below_the_limit_are_seen(company: Company) -> None:
    parts = [company.file(amount * NANO + number, reason=str(number)) for number, amount in enumerate((49, 48, 47, 46))]
    values = [company.found(each).get("splitting", 0.0) for each in parts]
    assert values == sorted(values) and values[0] == 0 and values[-1] > 0.9
    names = ("initech", "umbra", "hooli", "stark")
    over = [company.file(45 * NANO, credit=name, mission="m") for name in names]
    assert company.found(over[-1])["splitting"] > 0.8, "for one mission, to several"


def test_a_life_much_shorter_or_longer_than_usual_is_seen(company: Company) -> None:
    for lifetime_us in (1_000_000, 900 * DAY_US):
        assert company.found(company.file(expires_at=company.at + lifetime_us))["lifetime"] == 1
    assert "lifetime" not in company.found(company.file(expires_at=company.at + 2 * HOUR))


def test_a_requester_with_refusals_or_a_bad_name_is_a_greater_risk(company: Company) -> None:
    request = company.file()
    risks = [company.assess(request, reputation).risk for reputation in (None, 1.0, 0.5, 0.3, 0.0)]
    assert risks[0] == risks[1] == risks[2] < risks[3] < risks[4]
    for number in range(5):
        other = company.file(credit="globex", amount=NANO + number)
        said = CfoDecision(request_id=other.id, request_digest="0" * 64, at=0, verdict="refused", risk=0.9)
        company.history.take(said, company.at)
    assert company.found(request)["refusals"] == 1


def test_what_is_paid_by_use_is_assessed_by_payee_and_category_alone(company: Company) -> None:
    for number in range(60):
        company.at += HOUR
        company.pay(NANO // 100 + number, credit="model", category="llm", reason=str(number))
    assert company.assess(company.file(NANO // 100, credit="model", category="llm", reason="x")).risk < 0.3
    assert company.found(company.file(900 * NANO, credit="model", category="llm"))["amount"] == 1
    usual = {each: value for each, value in company.found(company.file(category="cloud")).items() if each != "hour"}
    assert "velocity" not in usual, "sixty calls of a model make no payment of the worker's a burst"


def test_a_callers_clock_changes_nothing_for_a_request_that_was_filed(company: Company) -> None:
    request = company.file(49 * NANO)
    now = company.assess(request)
    for at in (0, company.at - 40 * DAY_US, company.at + 40 * DAY_US, 2**53):
        assert assess(request, company.history, at=at) == now
    earlier = company.ask(49 * NANO)
    assert assess(earlier, company.history, at=0) == assess(earlier, company.history, at=company.at)


def test_extreme_requests_have_a_risk_too(company: Company) -> None:
    for amount in (1, 10**18):
        for expires_at in (0, 2**53):
            found = company.assess(company.file(amount, expires_at=expires_at, reason="x" * 1_000, credit="c" * 96))
            assert 0 < found.risk <= 1
    assert sys.getsizeof(found.model_dump_json()) < 8_000


def test_fraud_ranks_above_honest_payments_in_companies_that_set_no_weight() -> None:
    ranking = Ranking([each for seed in range(300, 306) for each in score(seed)])
    assert ranking.auc() >= 0.90
