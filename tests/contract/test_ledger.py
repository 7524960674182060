"""What every ledger has to be: its rows. Each test ends with an audit: the oracle, `book.Book`, reads them all."""

from __future__ import annotations

import pytest

from chimera.core.errors import InputError, LedgerError, NotThere
from chimera.treasury.ledger import MAX_BATCH, LedgerRole, Row
from chimera.treasury.types import (
    DEFAULT_CAPS,
    NANO,
    Account,
    AccountKind,
    Cap,
    RefusalReason,
    Rules,
    Window,
    Written,
)
from tests.ledger_house import BEGUN, House, approval, decision, reason, transfer
from tests.ledgers import Bench

HOUR = 3_600_000_000
UNAPPROVED, CONFLICT, EXPIRED = RefusalReason.UNAPPROVED, RefusalReason.CONFLICT, RefusalReason.EXPIRED
UNSIGNED, UNKNOWN, FORBIDDEN = RefusalReason.UNSIGNED, RefusalReason.UNKNOWN, RefusalReason.FORBIDDEN
FUNDS, CAP = RefusalReason.FUNDS, RefusalReason.CAP


async def test_an_empty_ledger_has_no_rows_and_lets_nothing_out(ledgers: Bench) -> None:
    app, owner = await ledgers.open(LedgerRole.APP), await ledgers.open(LedgerRole.OWNER)
    head = await owner.head()
    assert (head.seq, head.hash) == (0, "0" * 64)
    assert await app.rows() == [] and await app.caps() == [] and await app.stopped() is None
    house = House(ledgers)
    house.app, house.cfo = app, await ledgers.open(LedgerRole.CFO)
    names = [("cash", AccountKind.FUND), ("acme", AccountKind.OUTSIDE), ("bank", AccountKind.OUTSIDE)]
    await app.write([Account(id=name, kind=kind) for name, kind in names])
    assert await house.pay(NANO, debit="bank", credit="cash") is None
    assert await house.pay(NANO) is FORBIDDEN, "there are no rules"
    await owner.set_rules(Rules())
    assert await house.pay(NANO) is CAP, "there are no caps"
    await owner.set_cap(Cap(account="cash", window=Window.DAY, limit=NANO))
    assert await house.pay(NANO) is CAP, "there are none over all"
    await owner.set_cap(Cap(window=Window.DAY, limit=NANO))
    assert await house.pay(NANO) is None
    await house.audit()


async def test_what_is_written_can_be_read(house: House) -> None:
    request = await house.asked("ann", "bob!", amount=60 * NANO, mission="m[1]", reason='"quoted" \\ and é')
    pending = transfer(request, "pending")
    (written,) = await house.app.write([pending])
    assert isinstance(written, Written) and written.id == pending.id and not written.again
    assert await house.app.request(request.id) == request and await house.app.request("nobody") is None
    assert await house.app.account("model") == Account(id="model", kind=AccountKind.METERED)
    assert await house.app.account("nobody") is None
    said = [decision(request), approval(request, "ann"), approval(request, "bob", signed=True)]
    assert await house.cfo.decisions(request.id) == said
    await house.move(request, "post", 5)
    assert await house.approver.transfers(request.id) == [pending, transfer(request, "post", 5)]
    rows = await house.app.rows(after=written.seq - 1, limit=1)
    assert [(seq, table, hash_) for seq, table, _, hash_ in rows] == [(written.seq, "transfer", written.hash)]
    with pytest.raises(NotThere):
        await house.app.balance("nobody")
    with pytest.raises(InputError):
        await house.app.rows(limit=0)


async def test_the_same_again_is_no_second_one_and_another_of_its_name_a_conflict(house: House) -> None:
    request = house.ask(60 * NANO)
    steps: list[tuple[str, Row, Row | None]] = [
        ("app", Account(id="new", kind=AccountKind.FUND), Account(id="new", kind=AccountKind.OUTSIDE)),
        ("app", request, request.model_copy(update={"amount": 1})),
        ("cfo", decision(request), None),
        ("approver", approval(request, "ann"), approval(request, "ann", verdict="refused")),
        ("app", transfer(request, "pending"), transfer(request, "posted", id=f"pending-{request.id}")),
        ("app", transfer(request, "post", 7), transfer(request, "post", 8)),
    ]
    for role, row, other in steps:
        ledger = getattr(house, role)
        (first,) = await ledger.write([row])
        assert isinstance(first, Written) and not first.again
        assert await ledger.write([row]) == [first.model_copy(update={"again": True})]
        if other is not None:
            assert reason(*await ledger.write([other])) is CONFLICT
    for role, row, _ in steps:  # also when all of it is over
        ((again),) = await getattr(house, role).write([row])
        assert isinstance(again, Written) and again.again
    assert (await house.app.balance("acme")).posted == 7


async def test_a_batch_is_written_in_its_order_without_what_is_refused(house: House) -> None:
    good, bad = house.ask(id="one"), house.ask(credit="nobody", id="two")
    before = (await house.app.head()).seq
    outcomes = await house.app.write([good, bad, good, house.ask(id="three"), good.model_copy(update={"amount": 3})])
    assert [reason(each) for each in outcomes] == [None, UNKNOWN, None, None, CONFLICT]
    assert [each.id for each in outcomes] == ["one", "two", "one", "three", "one"]
    assert [each.seq - before for each in outcomes if isinstance(each, Written)] == [1, 1, 2]
    assert await house.app.write([]) == []
    with pytest.raises(InputError):
        await house.app.write([house.ask() for _ in range(MAX_BATCH + 1)])
    assert not any(map(reason, await house.app.write([house.ask() for _ in range(200)])))
    requests = [await house.asked(amount=20 * NANO) for _ in range(3)]
    outcomes = await house.app.write([transfer(each) for each in requests])
    assert [reason(each) for each in outcomes] == [None, None, UNAPPROVED], "the third makes it 60 to one payee"


async def test_each_role_writes_its_own_rows(house: House) -> None:
    request = await house.asked()
    rows: dict[str, Row] = {
        "app": house.ask(),
        "cfo": decision(request, at=1),
        "approver": approval(request, "ann"),
    }
    rows["app2"] = transfer(request)
    rows["app3"] = Account(id="new", kind=AccountKind.FUND)
    for writer in ("app", "cfo", "approver"):
        for kind, row in rows.items():
            if not kind.startswith(writer):
                assert reason(*await getattr(house, writer).write([row])) is FORBIDDEN, (writer, row)
    assert reason(*await house.app.write([Account(id="ours", kind=AccountKind.METERED)])) is FORBIDDEN
    for other in (house.app, house.cfo, house.approver):
        assert reason(await other.set_cap(Cap(window=Window.DAY, limit=NANO))) is FORBIDDEN
        assert reason(await other.set_rules(Rules(ask_over=10**17))) is FORBIDDEN
    for attempt in (house.app.stop("why", "x"), house.approver.stop("why", "x")):
        with pytest.raises(LedgerError):
            await attempt
    for attempt in (house.app.resume("x"), house.cfo.resume("x")):
        with pytest.raises(LedgerError):
            await attempt


async def test_what_a_request_may_be(house: House) -> None:
    await house.app.write([Account(id="euros", kind=AccountKind.OUTSIDE, currency="EUR")])
    now = house.bench.at
    for request, wanted in (
        (house.ask(debit="nobody"), UNKNOWN),
        (house.ask(credit="nobody"), UNKNOWN),
        (house.ask(credit="euros"), CONFLICT),
        (house.ask(debit="euros", credit="acme"), CONFLICT),
        (house.ask(credit="cash"), CONFLICT),
        (house.ask(expires_at=now), EXPIRED),
        (house.ask(expires_at=now + 1), None),
    ):
        assert reason(*await house.app.write([request])) is wanted, request


async def test_what_a_word_may_be(house: House) -> None:
    request, other, unwritten = house.ask(), house.ask(2), house.ask()
    await house.app.write([request, other])
    now, digest = house.bench.at, other.digest()
    unsigned = decision(request, at=3).model_copy(update={"signature": ""})
    forged = decision(request, at=4).model_copy(update={"signature": "0" * 128})
    for role, word, wanted in (
        ("cfo", decision(unwritten), UNKNOWN),
        ("cfo", decision(request, request_digest=digest), CONFLICT),
        ("cfo", unsigned, UNSIGNED),
        ("cfo", forged, UNSIGNED),
        ("approver", approval(unwritten, "ann"), UNKNOWN),
        ("approver", approval(request, "ann", request_digest=digest), CONFLICT),
        ("approver", approval(request, "worker-1"), FORBIDDEN),
        ("approver", approval(request, "ann", expires_at=now), EXPIRED),
        ("approver", approval(request, "ann").model_copy(update={"signature": "0" * 128}), UNSIGNED),
        ("approver", approval(request, "ann", expires_at=now + 1), None),
        ("approver", approval(request, "ann", expires_at=now + 2), CONFLICT),
        ("cfo", decision(request), None),
        ("cfo", decision(request, at=5), None),
    ):
        assert reason(*await getattr(house, role).write([word])) is wanted, word
    assert await house.move(request) is None
    assert reason(*await house.cfo.write([decision(request, at=6)])) is CONFLICT
    assert reason(*await house.approver.write([approval(request, "bob")])) is CONFLICT


async def test_what_a_transfer_may_be(house: House) -> None:
    silent, refused, late = house.ask(), await house.asked(verdict="refused"), house.ask(expires_at=house.bench.at + 5)
    await house.app.write([silent, late])
    await house.cfo.write([decision(late)])
    request, now = await house.asked(amount=9), house.bench.at
    assert await house.move(house.ask()) is UNKNOWN
    assert await house.move(silent) is UNSIGNED
    assert await house.move(refused) is UNSIGNED
    await house.cfo.write([decision(refused, at=1)])
    assert await house.move(refused) is None, "the last word counts"
    for amount in (0, 8, 10):
        assert await house.move(request, amount=amount) is CONFLICT
    assert await house.move(request, "post") is UNKNOWN
    assert await house.move(request, "void") is UNKNOWN
    assert await house.move(request, "pending", expires_at=now) is EXPIRED
    assert await house.move(request, "pending", expires_at=now + HOUR) is None
    assert await house.move(request, "posted") is CONFLICT
    for kind, amount in (("post", 0), ("post", 10), ("void", 1)):
        assert await house.move(request, kind, amount) is CONFLICT
    assert await house.move(request, "post", 1) is None
    assert await house.move(request, "void") is CONFLICT
    house.bench.advance(5)
    assert await house.move(late) is EXPIRED


async def test_a_stored_word_is_checked_again_before_money_moves_on_it(house: House) -> None:
    request, dual = await house.asked(), await house.asked("ann!", amount=600 * NANO)
    decided, signed = decision(request).payload(), approval(dual, "ann").payload()
    careful = await house.bench.open(LedgerRole.APP, lambda word: word.payload() not in (decided, signed))
    outcomes = await careful.write([transfer(request), transfer(dual)])
    assert [reason(each) for each in outcomes] == [UNSIGNED, UNSIGNED]
    assert await house.move(request) is None


async def test_money_set_aside_is_posted_let_go_or_expires(house: House) -> None:
    cap = DEFAULT_CAPS[0]

    async def state() -> tuple[int, int, int, int]:
        cash, acme = await house.app.balance("cash"), await house.app.balance("acme")
        return BEGUN - cash.available, cash.pending_out, acme.pending_in, await house.used(cap)

    requests = [await house.asked("ann", amount=100) for _ in range(4)]
    for request, ends in zip(requests, (0, 0, HOUR, HOUR), strict=True):
        assert await house.move(request, "pending", expires_at=ends and house.bench.at + ends) is None
    assert await state() == (400, 400, 400, 400)
    assert await house.move(requests[0], "post", 30) is None
    assert await state() == (330, 300, 300, 330)
    assert await house.move(requests[1], "void") is None
    assert await state() == (230, 200, 200, 230)
    house.bench.advance(HOUR - 1)
    assert await state() == (230, 200, 200, 230)
    assert await house.move(requests[2], "post") is None
    assert await state() == (230, 100, 100, 230)
    house.bench.advance(1)
    assert await state() == (130, 0, 0, 130), "it reads as let go before anything is written"
    assert await house.move(requests[3], "post") is CONFLICT
    assert await house.move(requests[3], "posted") is CONFLICT
    assert await house.pay(1) is None
    assert await state() == (131, 0, 0, 131)


async def test_a_fund_never_goes_below_zero(house: House) -> None:
    await house.app.write([Account(id="small", kind=AccountKind.FUND)])
    assert await house.pay(10, credit="small", debit="bank") is None
    assert await house.pay(11, debit="small") is FUNDS
    pending = await house.asked(amount=4, debit="small")
    assert await house.move(pending, "pending") is None
    assert await house.pay(7, debit="small") is FUNDS, "what is set aside is not there"
    assert await house.pay(6, debit="small") is None
    assert await house.pay(1, debit="small", credit="cash") is FUNDS
    assert await house.move(pending, "void") is None
    assert await house.pay(4, debit="small") is None
    assert (await house.app.balance("small")).posted == 0
