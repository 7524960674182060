"""Frauds that somebody tries: what the ledger refuses by itself, and what risk and policy make a person look at."""

from __future__ import annotations

from random import Random

import pytest

from chimera.treasury.history import History
from chimera.treasury.ledger import Row
from chimera.treasury.policy import Policy, judge
from chimera.treasury.risk import Assessment, assess
from chimera.treasury.rows import parse
from chimera.treasury.signer import Verdict
from chimera.treasury.types import (
    DAY_US,
    NANO,
    Account,
    AccountKind,
    CfoDecision,
    PaymentRequest,
    RefusalReason,
    Rules,
    Written,
)
from tests.ledger_house import NEVER, House, approval, decision, reason, transfer

HOUR = DAY_US // 24
UNAPPROVED, CONFLICT, UNSIGNED = RefusalReason.UNAPPROVED, RefusalReason.CONFLICT, RefusalReason.UNSIGNED
POLICY = Policy()
ANY_RISK = Policy(ask_at=1.0, refuse_at=1.0)


class Cfo:
    """Who reads a house's ledger, and decides as the policy says."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.history = History()
        self.read = 0

    async def assess(self, request: PaymentRequest, at: int | None = None) -> Assessment:
        while rows := await self.house.app.rows(after=self.read, limit=500):
            for seq, table, told, _ in rows:
                self.history.take(parse(table, told), int(told["at"]))
                self.read = seq
        return assess(request, self.history, at=self.house.bench.at if at is None else at)

    async def decide(self, request: PaymentRequest, policy: Policy = POLICY) -> Verdict:
        """File it, if it is not, and sign what the policy says of it."""
        assert reason(*await self.house.app.write([request])) is None
        found = await self.assess(request)
        verdict = judge(request, found, rules=Rules(), policy=policy)
        word = decision(request, verdict, factors=found.factors)
        assert reason(*await self.house.cfo.write([word])) is None
        return verdict

    async def settle_in(self, days: int = 20) -> None:
        """So long acme is paid about ten each day, at the same hour."""
        for day in range(days):
            self.house.bench.advance(DAY_US)
            amount = 10 * NANO + 137_000_001 * day
            assert await self.house.pay(amount, reason=f"invoice {day}", expires_at=self.house.bench.at + HOUR) is None
        self.house.bench.advance(DAY_US)


@pytest.fixture
async def cfo(house: House) -> Cfo:
    found = Cfo(house)
    await found.settle_in()
    return found


def usual(house: House, **fields: object) -> PaymentRequest:
    told = {"amount": 11_123_456_789, "reason": "invoice 77", "expires_at": house.bench.at + HOUR, **fields}
    return house.ask(**told)


async def test_what_is_usual_needs_nobody(cfo: Cfo, house: House) -> None:
    request = usual(house)
    assert await cfo.decide(request) == "approved"
    assert await house.move(request) is None


async def test_a_payment_sent_twice_under_its_id_moves_once(cfo: Cfo, house: House) -> None:
    request = usual(house)
    assert await cfo.decide(request) == "approved"
    before = (await house.app.balance("acme")).posted
    for again in (False, True, True):
        (filed,) = await house.app.write([request])
        (moved,) = await house.app.write([transfer(request)])
        assert isinstance(filed, Written) and isinstance(moved, Written) and moved.again is again
    assert reason(*await house.app.write([transfer(request, id="another")])) is CONFLICT
    assert (await house.app.balance("acme")).posted == before + request.amount


@pytest.mark.parametrize("later", [HOUR, 40 * DAY_US])
async def test_an_invoice_that_comes_again_under_another_id_is_shown_to_a_person(
    cfo: Cfo, house: House, later: int
) -> None:
    first = usual(house)
    assert await cfo.decide(first) == "approved"
    assert await house.move(first) is None
    house.bench.advance(later)
    second = usual(house)
    assert await cfo.decide(second) == "ask"
    found = {each.name: each.why for each in (await cfo.assess(second)).factors}
    assert first.id in found["duplicate"]
    assert await house.move(second) is UNAPPROVED
    other = usual(house, amount=9_876_543_210, reason="invoice 78")
    assert await cfo.decide(other) == "approved"


async def test_a_signature_is_good_for_one_request_alone(house: House) -> None:
    agreed, other = await house.asked("ann!", amount=600 * NANO), house.ask(600 * NANO)
    await house.app.write([other])
    theirs = {"request_id": other.id}
    for digest in ({}, {"request_digest": other.digest()}):
        stolen = decision(agreed).model_copy(update={**theirs, **digest})
        assert reason(*await house.cfo.write([stolen])) in (CONFLICT, UNSIGNED)
        person = approval(agreed, "ann", signed=True).model_copy(update={**theirs, **digest})
        assert reason(*await house.approver.write([person])) in (CONFLICT, UNSIGNED)
    assert await house.move(other) is UNSIGNED
    assert await house.cfo.decisions(other.id) == []


async def test_a_transfer_is_not_played_again(house: House) -> None:
    first, second = await house.asked(), await house.asked()
    moved = transfer(first)
    assert reason(*await house.app.write([moved])) is None
    again = moved.model_copy(update={"request_id": second.id})
    assert reason(*await house.app.write([again])) is CONFLICT, "its id is used"
    assert reason(*await house.app.write([moved.model_copy(update={"id": "new"})])) is CONFLICT, "it is carried out"
    word = decision(first, at=5)
    assert reason(*await house.cfo.write([word])) is CONFLICT, "nothing is decided anew"


@pytest.mark.parametrize("change", [{"credit": "globex"}, {"amount": 2 * NANO}, {"expires_at": NEVER - 1}])
async def test_what_was_signed_is_paid_to_no_other_payee(house: House, change: dict[str, object]) -> None:
    request = await house.asked()
    changed = request.model_copy(update=change)
    assert reason(*await house.app.write([changed])) is CONFLICT
    assert reason(*await house.cfo.write([decision(changed, at=1)])) is CONFLICT
    assert reason(*await house.approver.write([approval(changed, "ann")])) is CONFLICT
    if "amount" in change:
        assert await house.move(changed) is CONFLICT
    assert await house.move(request) is None
    assert (await house.app.balance("globex")).posted == 0


async def test_a_payee_with_almost_the_name_of_a_known_one_is_shown_to_a_person(cfo: Cfo, house: House) -> None:
    await house.app.write([Account(id=name, kind=AccountKind.OUTSIDE) for name in ("acrne", "acme-")])
    for name in ("acrne", "acme-"):
        request = usual(house, credit=name)
        assert await cfo.decide(request) == "ask", name
        assert await house.move(request) is UNAPPROVED


async def test_a_takeover_is_shown_to_a_person(cfo: Cfo, house: House) -> None:
    house.bench.advance(11 * HOUR)
    request = usual(house, amount=48 * NANO, credit="globex", category="gift-cards")
    assert await cfo.decide(request) == "ask"
    assert await house.move(request) is UNAPPROVED


async def test_a_burst_is_shown_to_a_person_before_it_is_over(cfo: Cfo, house: House) -> None:
    verdicts = []
    for number in range(16):
        request = usual(house, amount=2 * NANO + 23_456_789 * number, reason=f"invoice {number}b")
        verdicts.append(await cfo.decide(request))
        house.bench.advance(60_000_000)
        if verdicts[-1] == "approved":
            assert await house.move(request) is None
    assert verdicts[0] == "approved" and verdicts[-1] == "ask"


@pytest.mark.parametrize("seed", range(3))
async def test_what_the_ledger_wants_a_person_for_the_policy_asks_about(house: House, seed: int) -> None:
    """Parts to one payee or for one mission, pending, let go and approved ones among them: none gets past both."""
    cfo, rng = Cfo(house), Random(seed)
    asked = moved = 0
    for _ in range(60):
        house.bench.advance(rng.choice([0, HOUR, 3 * HOUR]))
        credit, mission = rng.choice(["acme", "globex", "mission-a", "model"]), rng.choice(["", "m1", "m2"])
        request = house.ask(rng.randrange(1, 30 * NANO), credit=credit, mission=mission)
        verdict = await cfo.decide(request, ANY_RISK)
        if verdict == "ask":
            asked += 1
            word = decision(request, at=1)
            await house.cfo.write([word])
            assert await house.move(request) in (UNAPPROVED, None), "a slot of half an hour may make it ask too soon"
        else:
            moved += 1
            kind = rng.choice(["posted", "pending"])
            assert await house.move(request, kind) is None
            if kind == "pending" and rng.random() < 0.7:
                assert await house.move(request, rng.choice(["void", "post"])) is None
    assert asked > 5 and moved > 5


async def test_parts_over_several_payees_of_a_mission_are_shown_to_a_person(cfo: Cfo, house: House) -> None:
    verdicts, moves = [], []
    for credit in ("acme", "globex", "bank"):
        request = usual(house, amount=24 * NANO, credit=credit, mission="split", reason=credit)
        verdicts.append(await cfo.decide(request, ANY_RISK))
        moves.append(await house.move(request))
    assert verdicts == ["approved", "approved", "ask"]
    assert moves == [None, None, UNAPPROVED]


async def test_what_words_say_of_the_time_moves_no_window(house: House) -> None:
    for at in (0, house.bench.at - 2 * DAY_US, house.bench.at + 2 * DAY_US):
        request = house.ask(20 * NANO)
        rows: list[Row] = [request]
        await house.app.write(rows)
        await house.cfo.write([decision(request, at=at)])
        moved = await house.move(request)
    assert moved is UNAPPROVED, "the third makes it 60 within a day, whatever they say"
    late = house.ask(20 * NANO)
    await house.app.write([late])
    await house.cfo.write([decision(late)])
    back = approval(late, "ann", at=0, expires_at=house.bench.at)
    assert reason(*await house.approver.write([back])) is RefusalReason.EXPIRED, (
        "dated back, it has expired all the same"
    )


async def test_a_clock_that_is_wrong_does_not_change_what_is_made_of_a_request(cfo: Cfo, house: House) -> None:
    request = usual(house, amount=30 * NANO)
    await house.app.write([request])
    found = await cfo.assess(request)
    for at in (0, house.bench.at - 9 * DAY_US, house.bench.at + 400 * DAY_US):
        assert await cfo.assess(request, at) == found


async def test_a_request_that_would_hold_for_years_is_a_greater_risk(cfo: Cfo, house: House) -> None:
    risks = []
    for lifetime_us in (HOUR, 3_000 * DAY_US, 1_000_000):
        request = usual(house, reason="", amount=10 * NANO + lifetime_us, expires_at=house.bench.at + lifetime_us)
        await house.app.write([request])
        found = await cfo.assess(request)
        assert isinstance(decision(request, factors=found.factors), CfoDecision)
        risks.append(found.risk)
    assert min(risks[1:]) > risks[0] + 0.3
