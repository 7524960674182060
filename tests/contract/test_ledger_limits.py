"""What every ledger has to be: what may be spent, when, and who has to agree. The oracle audits each test."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from chimera.treasury.periods import EPOCH, LENGTHS
from chimera.treasury.types import (
    DAY_US,
    DEFAULT_CAPS,
    NANO,
    Account,
    AccountKind,
    Cap,
    RefusalReason,
    Rules,
    Window,
)
from tests.ledger_house import BEGUN, House, approval, decision, reason, transfer
from tests.ledgers import START_US, Bench

HOUR = DAY_US // 24
UNAPPROVED, UNSIGNED = RefusalReason.UNAPPROVED, RefusalReason.UNSIGNED
CAP, STOPPED = RefusalReason.CAP, RefusalReason.STOPPED

ENDS = {
    Window.DAY: datetime(2026, 9, 22, tzinfo=UTC),
    Window.WEEK: datetime(2026, 9, 28, tzinfo=UTC),
    Window.MONTH: datetime(2026, 10, 1, tzinfo=UTC),
}
"""When the calendar's windows that START_US lies in are over."""


def over(window: Window) -> int:
    """How long after START_US a spend of that moment counts no more."""
    if window in ENDS:
        return int((ENDS[window] - EPOCH).total_seconds()) * 1_000_000 - START_US
    return LENGTHS[window]


@pytest.mark.parametrize("window", Window)
@pytest.mark.parametrize("account", ["*", "cash"])
async def test_a_cap_holds_to_the_last_billionth_and_microsecond(ledgers: Bench, window: Window, account: str) -> None:
    cap = Cap(account=account, window=window, limit=10 * NANO)
    high = Cap(window=Window.DAY if window is Window.LAST_DAY else Window.LAST_DAY, limit=10**15)
    house = await House(ledgers).begin(caps=(high, cap))
    assert await house.pay(10 * NANO + 1) is CAP
    assert await house.pay(4 * NANO) is None
    pending = await house.asked(amount=6 * NANO)
    assert await house.move(pending, "pending") is None
    assert await house.pay(1) is CAP, "what is set aside counts"
    assert await house.pay(1, debit="mission-a") is (CAP if account == "*" else None)
    assert await house.pay(1, credit="mission-a") is None, "from fund to fund nothing is spent"
    assert await house.used(cap) == 10 * NANO
    ledgers.advance(over(window) - 1)
    assert await house.pay(1) is CAP
    assert await house.used(cap) == 10 * NANO
    ledgers.advance(1)
    assert await house.used(cap) == 0
    assert await house.pay(10 * NANO) is None
    assert await house.pay(1) is CAP
    assert await house.move(pending, "void") is None
    assert await house.used(cap) == 10 * NANO, "what counts no more is not let go of a second time"
    await house.audit()


@pytest.mark.parametrize(("limit", "refused"), [(10 * NANO, CAP), (Rules().ask_over, UNAPPROVED)])
async def test_what_just_became_too_old_leaves_room_at_once(ledgers: Bench, limit: int, refused: RefusalReason) -> None:
    """Also where the sum was brought up to date a moment before."""
    house = await House(ledgers).begin(caps=(Cap(window=Window.LAST_DAY, limit=limit if refused is CAP else 10**15),))
    assert await house.pay(limit * 6 // 10) is None
    ledgers.advance(DAY_US - 30_000_000)
    assert await house.pay(limit * 3 // 10) is None
    ledgers.advance(29_999_999)
    assert await house.pay(limit * 2 // 10) is refused
    ledgers.advance(1)
    assert await house.pay(limit * 7 // 10) is None
    assert await house.pay(1) is refused
    await house.audit()


@pytest.mark.parametrize(("rolling", "calendar"), list(zip(LENGTHS, ENDS, strict=True)))
async def test_only_a_calendars_end_lets_twice_the_cap_through(
    ledgers: Bench, rolling: Window, calendar: Window
) -> None:
    house = await House(ledgers).begin(caps=(Cap(window=calendar, limit=10 * NANO),))
    ledgers.advance(over(calendar) - 1)
    assert await house.pay(10 * NANO) is None
    ledgers.advance(1)
    assert await house.pay(10 * NANO) is None
    await house.owner.set_cap(Cap(window=rolling, limit=20 * NANO))
    await house.owner.set_cap(Cap(window=calendar, limit=100 * NANO))
    assert await house.pay(1) is CAP, "a new cap counts what was spent before"
    ledgers.advance(LENGTHS[rolling] - 2)
    assert await house.pay(1) is CAP
    ledgers.advance(1)
    assert await house.pay(10 * NANO) is None, "the first one is out, the second is not"
    assert await house.pay(1) is CAP
    await house.audit()


async def test_caps_are_of_one_currency_and_the_last_one_set_holds(house: House) -> None:
    for name, kind in (("euros", AccountKind.FUND), ("paris", AccountKind.OUTSIDE)):
        await house.app.write([Account(id=name, kind=kind, currency="EUR")])
    await house.owner.set_rules(Rules(currency="EUR"))
    assert await house.pay(50 * NANO, debit="paris", credit="euros", currency="EUR") is None
    assert await house.pay(NANO, debit="euros", credit="paris", currency="EUR") is CAP, "none is set"
    await house.owner.set_cap(Cap(currency="EUR", window=Window.MONTH, limit=NANO))
    assert await house.pay(1000 * NANO, "ann", "bob") is None
    assert await house.pay(NANO, debit="euros", credit="paris", currency="EUR") is None
    assert await house.pay(1) is CAP
    raised = DEFAULT_CAPS[0].model_copy(update={"limit": 1001 * NANO})
    assert reason(await house.owner.set_cap(raised)) is None
    assert await house.pay(NANO, "ann") is None
    assert await house.pay(1) is CAP
    assert await house.used(raised) == 1001 * NANO
    await house.owner.set_cap(raised.model_copy(update={"limit": 0}))
    ledger_caps = [use.cap for use in await house.app.caps() if use.cap.window is raised.window]
    assert ledger_caps == [raised.model_copy(update={"limit": 0})]


async def test_what_nobody_approves_is_added_up_by_payee_and_by_mission(house: House) -> None:
    assert await house.pay(50 * NANO + 1) is UNAPPROVED
    assert await house.pay(50 * NANO + 1, "ann") is None
    assert await house.pay(30 * NANO, mission="m1") is None
    assert await house.pay(20 * NANO, mission="m2") is None
    assert await house.pay(1, mission="m3") is UNAPPROVED, "to acme"
    assert await house.pay(20 * NANO, credit="globex", mission="m1") is None
    assert await house.pay(1, credit="bank", mission="m1") is UNAPPROVED, "for m1"
    assert await house.pay(1, "ann", credit="bank", mission="m1") is None
    assert await house.pay(40 * NANO, credit="mission-a") is None
    assert await house.pay(10 * NANO + 1, credit="mission-a") is UNAPPROVED, "also from fund to fund"
    assert await house.pay(900 * NANO, debit="mission-a", credit="bank") is UNAPPROVED
    assert await house.pay(200 * NANO, debit="bank") is None, "nobody asks where nothing of ours goes out"
    house.bench.advance(DAY_US - 1)
    assert await house.pay(1) is UNAPPROVED
    house.bench.advance(1)
    assert await house.pay(50 * NANO) is None
    assert await house.pay(1) is UNAPPROVED


async def test_what_is_let_go_counts_no_more_as_unapproved(house: House) -> None:
    first, second = await house.asked(amount=30 * NANO, mission="m"), await house.asked(amount=20 * NANO, mission="m")
    assert await house.move(first, "pending") is None
    assert await house.move(second, "pending", expires_at=house.bench.at + HOUR) is None
    assert await house.pay(1) is UNAPPROVED
    assert await house.move(first, "post", 10 * NANO) is None
    assert await house.pay(20 * NANO) is None
    assert await house.pay(1, mission="m") is UNAPPROVED
    house.bench.advance(HOUR)
    assert await house.pay(20 * NANO, mission="m") is None


async def test_who_is_paid_by_use_needs_no_person_below_the_second_limit(house: House) -> None:
    assert await house.pay(450 * NANO, credit="model") is None
    assert await house.pay(60 * NANO, credit="model") is None
    assert await house.pay(501 * NANO, credit="model") is UNAPPROVED
    assert await house.pay(491 * NANO, credit="model") is CAP
    assert await house.pay(50 * NANO) is None


async def test_a_person_agrees_where_the_cfo_asks_and_refuses_for_good(house: House) -> None:
    asked = await house.asked(verdict="ask")
    assert await house.move(asked) is UNAPPROVED
    until = house.bench.at + HOUR
    await house.approver.write([approval(asked, "ann", expires_at=until)])
    house.bench.advance(HOUR)
    assert await house.move(asked) is UNAPPROVED, "it has expired"
    await house.approver.write([approval(asked, "bob", expires_at=house.bench.at + HOUR)])
    house.bench.advance(HOUR - 1)
    assert await house.move(asked) is None
    other = await house.asked("ann")
    await house.approver.write([approval(other, "bob", verdict="refused")])
    assert await house.move(other) is UNAPPROVED
    await house.cfo.write([decision(other, "refused")])
    assert await house.move(other) is UNSIGNED


async def test_what_comes_in_waits_for_a_person_too_where_the_cfo_asks(house: House) -> None:
    asked = await house.asked(verdict="ask", debit="bank", credit="cash")
    assert await house.move(asked) is UNAPPROVED
    await house.approver.write([approval(asked, "ann")])
    assert await house.move(asked) is None
    refused = await house.asked(debit="bank", credit="cash")
    await house.approver.write([approval(refused, "ann", verdict="refused")])
    assert await house.move(refused) is UNAPPROVED
    await house.audit()


async def test_above_the_second_limit_two_keys_agree(house: House) -> None:
    amount = 500 * NANO
    assert await house.pay(amount, "ann") is None
    house.bench.advance(30 * DAY_US)
    assert await house.pay(amount + 1) is UNAPPROVED
    assert await house.pay(amount + 1, "ann") is UNAPPROVED, "the CFO and one who does not sign"
    assert await house.pay(amount + 1, "ann", "bob") is None
    house.bench.advance(30 * DAY_US)
    assert await house.pay(amount + 1, "ann!") is None
    request = house.ask(amount + 1)
    await house.app.write([request])
    await house.cfo.write([decision(request)])
    late = house.bench.at + 30 * DAY_US + HOUR
    await house.approver.write([approval(request, "ann"), approval(request, "bob", expires_at=late)])
    house.bench.advance(30 * DAY_US + HOUR)
    assert await house.move(request) is UNAPPROVED, "one of two has expired"


async def test_rules_can_be_set_anew(house: House) -> None:
    assert reason(await house.owner.set_rules(Rules(ask_over=5, dual_over=8))) is None
    assert await house.pay(5) is None
    assert await house.pay(1) is UNAPPROVED
    assert await house.pay(8, "ann") is None
    assert await house.pay(9, "ann") is UNAPPROVED
    assert await house.pay(9, "ann", "bob") is None


async def test_waiting_are_those_that_the_cfo_asks_about(house: House) -> None:
    asks = [await house.asked(verdict="ask", id=name) for name in ("b", "a", "c", "d", "e", "f")]
    await house.asked(id="g")
    soon = house.ask(id="h", expires_at=house.bench.at + HOUR)
    await house.app.write([soon, house.ask(id="i")])
    await house.cfo.write([decision(soon, "ask"), decision(asks[3])])
    until = house.bench.at + HOUR
    words = [approval(asks[2], "ann"), approval(asks[4], "ann", verdict="refused", expires_at=until)]
    await house.approver.write([*words, approval(asks[5], "ann", expires_at=until)])
    assert [each.id for each in await house.app.waiting()] == ["a", "b", "h"]
    assert [each.id for each in await house.app.waiting(after="a", limit=1)] == ["b"]
    house.bench.advance(HOUR)
    assert [each.id for each in await house.app.waiting()] == ["a", "b", "f"], (
        "h has expired, and f's approval; e was refused"
    )


async def test_all_spending_can_be_stopped_until_a_person_starts_it_again(house: House) -> None:
    pending = await house.asked()
    assert await house.move(pending, "pending") is None
    at = house.bench.at
    await house.cfo.stop("too fast", "cfo")
    assert await house.pay(1) is STOPPED
    assert await house.pay(1, credit="model") is STOPPED
    assert await house.pay(1, credit="mission-a") is STOPPED
    assert await house.pay(1, debit="bank", credit="cash") is None, "money still comes in"
    assert await house.move(pending, "post") is None, "what was agreed to is carried out"
    house.bench.advance(DAY_US)
    found = await house.app.stopped()
    assert found is not None and (found.why, found.by, found.at) == ("too fast", "cfo", at)
    await house.approver.resume("ann")
    assert await house.app.stopped() is None
    assert await house.pay(1) is None
    await house.owner.stop("audit", "the-owner")
    assert await house.pay(1) is STOPPED
    await house.owner.resume("the-owner")
    assert await house.pay(1) is None


async def test_time_does_not_go_back(house: House) -> None:
    assert await house.pay(50 * NANO) is None
    house.bench.advance(-2 * DAY_US)
    assert await house.pay(1) is UNAPPROVED
    house.bench.advance(2 * DAY_US)


async def test_a_batch_stops_at_the_cap_and_loses_nothing_below_it(ledgers: Bench) -> None:
    cap = Cap(window=Window.LAST_DAY, limit=7 * NANO)
    house = await House(ledgers).begin(caps=(cap,))
    requests = [await house.asked(amount=amount * NANO) for amount in (3, 5, 3, 2, 1)]
    outcomes = await house.app.write([transfer(each) for each in requests])
    assert [reason(each) for each in outcomes] == [None, CAP, None, CAP, None]
    assert await house.used(cap) == 7 * NANO
    assert (await house.app.balance("cash")).available == BEGUN - 7 * NANO
    await house.audit()
